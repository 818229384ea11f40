"""One door to linear layers: a specification in, a layer out; and the way to inference form."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from core.errors import ConfigError
from core.precision.formats import format_named
from core.sparse.linear import BlockSparseLinear, DenseLinear, frozen
from core.sparse.pattern import BlockPattern


@dataclass(frozen=True)
class LayerSpec:
    """How sparse and how precise a layer is.

    Parameters
    ----------
    density : float
        Share of live blocks, in (0, 1]; 1 is a dense layer.
    block : int
        Edge of a square block, in entries.
    weight_format, activation_format, gradient_format : str
        Names out of `core.precision.FORMATS`.

    Raises
    ------
    ConfigError, FormatError
        If a number lies outside its bounds or a format is unknown.

    Examples
    --------
    >>> from core import LayerSpec
    >>> spec = LayerSpec(density=0.25, block=8, weight_format="int8")
    >>> spec.weight_format, spec.activation_format
    ('int8', 'fp32')
    """

    density: float = 1.0
    block: int = 16
    weight_format: str = "fp32"
    activation_format: str = "fp32"
    gradient_format: str = "fp32"

    def __post_init__(self) -> None:
        if not 0 < self.density <= 1:
            raise ConfigError(
                f"LayerSpec: density must lie in (0, 1], got {self.density}; 1 is a dense layer"
            )
        if self.block < 1:
            raise ConfigError(f"LayerSpec: block must be at least 1, got {self.block}; try 16")
        format_named(self.weight_format)
        format_named(self.activation_format)
        format_named(self.gradient_format)


def build_linear(
    in_features: int,
    out_features: int,
    spec: LayerSpec,
    *,
    generator: torch.Generator,
    bias: bool = True,
) -> DenseLinear | BlockSparseLinear:
    """Return a freshly drawn linear layer of `spec`.

    Parameters
    ----------
    in_features, out_features : int
    spec : LayerSpec
        Density 1 gives a `DenseLinear`, less a `BlockSparseLinear` on a random pattern with a live
        block in every block row and column, where the count allows it.
    generator : torch.Generator
        Source of pattern and weights.
    bias : bool

    Examples
    --------
    >>> import torch, core
    >>> generator = torch.Generator().manual_seed(0)
    >>> type(core.build_linear(32, 64, core.LayerSpec(density=0.25), generator=generator)).__name__
    'BlockSparseLinear'
    >>> type(core.build_linear(32, 64, core.LayerSpec(), generator=generator)).__name__
    'DenseLinear'
    """
    formats: dict[str, Any] = {
        "weight_format": spec.weight_format,
        "activation_format": spec.activation_format,
        "gradient_format": spec.gradient_format,
    }
    if spec.density == 1:
        return DenseLinear(in_features, out_features, bias=bias, generator=generator, **formats)
    shape, block = (out_features, in_features), (spec.block, spec.block)
    pattern = BlockPattern.random(shape, block, spec.density, generator)
    return BlockSparseLinear(
        in_features, out_features, pattern=pattern, bias=bias, generator=generator, **formats
    )


def freeze(module: nn.Module) -> nn.Module:
    """Return a copy of `module` for inference, with weights at rest in their own format.

    Layers of `build_linear` with a format other than fp32 become `FrozenLinear`; everything else
    is copied. The copy is in evaluation mode and asks for no gradients.

    Examples
    --------
    >>> import torch, core
    >>> generator = torch.Generator().manual_seed(0)
    >>> spec = core.LayerSpec(weight_format="int8")
    >>> layer = core.build_linear(8, 4, spec, generator=generator)
    >>> frozen = core.freeze(layer)
    >>> x = torch.ones(1, 8)
    >>> frozen.codes.dtype, bool(torch.allclose(frozen(x), layer(x), atol=1e-6))
    (torch.int8, True)
    """
    out = _freeze(copy.deepcopy(module))
    return out.eval().requires_grad_(False)


def _freeze(module: nn.Module) -> nn.Module:
    if isinstance(module, DenseLinear | BlockSparseLinear):
        return module if module.roles.weight.name == "fp32" else frozen(module)
    for name, child in module.named_children():
        setattr(module, name, _freeze(child))
    return module
