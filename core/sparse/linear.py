"""Linear layers of any density and number format: training form and frozen form."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.errors import ConfigError, PatternError, ShapeError
from core.precision.formats import Format
from core.precision.quantize import scale_of, straight_through
from core.precision.running import RunningRange
from core.sparse.integer import linear_int8
from core.sparse.ops import matmul, route_of
from core.sparse.pattern import BlockPattern
from core.sparse.roles import Roles, imitate


class DenseLinear(nn.Linear):
    """`torch.nn.Linear` with a format for weights, one for activations, one for gradients.

    Parameters
    ----------
    in_features, out_features : int
    bias : bool
        Added in the dtype of the inputs.
    weight_format, activation_format, gradient_format : str
        See `Roles`. Narrow weights have one scale per output row, narrow activations one in all
        that follows their range while training and then stays (`activation_range`).
    generator : torch.Generator, optional
        Source of the initial weights, uniform in +-1/sqrt(in_features) as in `torch.nn.Linear`.

    Raises
    ------
    FormatError
        If a format is unknown or the two do not go together.

    Examples
    --------
    >>> import torch, core
    >>> generator = torch.Generator().manual_seed(0)
    >>> layer = core.DenseLinear(8, 4, weight_format="int8", generator=generator)
    >>> layer(torch.ones(3, 8)).shape
    torch.Size([3, 4])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        weight_format: str = "fp32",
        activation_format: str = "fp32",
        gradient_format: str = "fp32",
        generator: torch.Generator | None = None,
    ) -> None:
        self.roles = Roles(weight_format, activation_format, gradient_format)
        self._generator = generator
        super().__init__(in_features, out_features, bias=bias)
        del self._generator
        self.activation_range = self.roles.running_range()

    def reset_parameters(self) -> None:
        """Draw weights and bias anew; called by the constructor."""
        generator = getattr(self, "_generator", None)
        bound = 1 / math.sqrt(self.in_features)
        for p in self.parameters():
            nn.init.uniform_(p, -bound, bound, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., in_features] to [..., out_features] in the dtype of `x`."""
        roles = self.roles
        if roles.compute_dtype is None and roles.weight.is_native and roles.activation.is_native:
            return roles.receive(F.linear(x, self.weight, self.bias))
        weight = roles.cast(imitate(self.weight, roles.weight, axis=0))
        y = F.linear(roles.activate(x, self.activation_range), weight).to(x.dtype)
        return roles.receive(y if self.bias is None else y + self.bias.to(y.dtype))


class BlockSparseLinear(nn.Module):
    """A linear layer whose weight matrix is zero outside the live blocks of a pattern.

    Stores, multiplies and differentiates live blocks only. `state_dict` carries the pattern, and
    loading one adopts its pattern.

    Parameters
    ----------
    in_features, out_features : int
    pattern : BlockPattern
        Of shape (out_features, in_features).
    dense_from : float, optional
        Density from which on products run dense: 0 for always, 2 for never. Without it, where this
        host was measured to gain from that; `route` says which it is.
    bias, weight_format, activation_format, gradient_format, generator
        As in `DenseLinear`. The initial weights of an output row are uniform in
        +-1/sqrt(live inputs of that row), so that the signal has the scale of a dense layer.

    Raises
    ------
    PatternError
        If the pattern has another shape.
    ConfigError
        If `dense_from` is negative.
    FormatError
        If a format is unknown or the two do not go together.

    Examples
    --------
    >>> import torch, core
    >>> generator = torch.Generator().manual_seed(0)
    >>> pattern = core.BlockPattern.random((64, 32), (8, 8), 0.25, generator)
    >>> layer = core.BlockSparseLinear(32, 64, pattern=pattern, generator=generator)
    >>> layer(torch.ones(5, 32)).shape, layer.values.shape
    (torch.Size([5, 64]), torch.Size([8, 8, 8]))
    """

    row_ptr: Tensor
    col_index: Tensor
    row_index: Tensor
    col_ptr: Tensor
    row_index_t: Tensor
    order_t: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        pattern: BlockPattern,
        bias: bool = True,
        dense_from: float | None = None,
        weight_format: str = "fp32",
        activation_format: str = "fp32",
        gradient_format: str = "fp32",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if dense_from is not None and not dense_from >= 0:
            raise ConfigError(
                f"BlockSparseLinear: dense_from must be a density of 0 or more, got {dense_from}; "
                "0 always takes the dense product, 2 never"
            )
        if pattern.shape != (out_features, in_features):
            raise PatternError(
                f"BlockSparseLinear: pattern must have shape (out_features, in_features) = "
                f"({out_features}, {in_features}), got {pattern.shape}; build it for this layer"
            )
        self.in_features, self.out_features = in_features, out_features
        self.block, self.dense_from = pattern.block, dense_from
        self.roles = Roles(weight_format, activation_format, gradient_format)
        self.activation_range = self.roles.running_range()
        _register_pattern(self, pattern)
        self.values: Tensor = nn.Parameter(torch.empty(pattern.n_block, *pattern.block))
        self.bias: Tensor | None = nn.Parameter(torch.empty(out_features)) if bias else None
        self.reset_parameters(generator)

    @property
    def pattern(self) -> BlockPattern:
        """The live blocks; its tensors are this module's buffers."""
        return _pattern_of(self)

    @property
    def route(self) -> str:
        """How the products run here on the CPU: ``"kernels"``, ``"dense"`` or ``"torch"``."""
        dtype = self.roles.compute_dtype or self.values.dtype
        return route_of(self.pattern, self.dense_from, dtype)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw weights and bias anew."""
        n_row = self.pattern.grid[0]
        br, bc = self.block
        index = self.col_index.long()
        width = (self.in_features - index * bc).clamp(max=bc)
        height = (self.out_features - self.row_index.long() * br).clamp(max=br)
        fan_in = torch.zeros(n_row, device=index.device).index_add_(
            0, self.row_index, width.float()
        )
        bound = fan_in.clamp(min=1).rsqrt()
        with torch.no_grad():
            self.values.uniform_(-1, 1, generator=generator)
            self.values.mul_(bound[self.row_index.long()].view(-1, 1, 1))
            across = torch.arange(bc, device=index.device)
            down = torch.arange(br, device=index.device)
            self.values.mul_(
                (across < width.view(-1, 1, 1)) & (down.view(-1, 1) < height.view(-1, 1, 1))
            )
            if self.bias is not None:
                limit = bound.repeat_interleave(br)[: self.out_features]
                self.bias.uniform_(-1, 1, generator=generator).mul_(limit)

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., in_features] to [..., out_features] in the dtype of `x`."""
        roles, values = self.roles, self.values
        if roles.is_plain:
            return matmul(x, values, _pattern_of(self), self.bias, dense_from=self.dense_from)
        if roles.weight.needs_scale:
            scale = _row_scale(values.detach(), self.pattern, roles.weight)
            scale_of_block = _scale_of_block(scale, self.pattern)
            values = straight_through(values, scale_of_block, roles.weight.name)
        else:
            values = imitate(values, roles.weight)
        operand, values = roles.activate(x, self.activation_range), roles.cast(values)
        bias = None if self.bias is None else self.bias.to(x.dtype)
        if operand.dtype == x.dtype:
            return roles.receive(
                matmul(operand, values, self.pattern, bias, dense_from=self.dense_from)
            )
        y = matmul(operand, values, self.pattern, dense_from=self.dense_from).to(x.dtype)
        return roles.receive(y if bias is None else y + bias)

    def extra_repr(self) -> str:
        """Return what `print(model)` shows."""
        p, r = self.pattern, self.roles
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"block={p.block}, density={p.density:.3g}, bias={self.bias is not None}, "
            f"weight_format={r.weight.name}, activation_format={r.activation.name}, "
            f"route={self.route}"
        )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        row_index = state_dict.get(prefix + "row_index")
        col_index = state_dict.get(prefix + "col_index")
        if row_index is not None and col_index is not None:
            shape = (self.out_features, self.in_features)
            pattern = BlockPattern.from_index(shape, self.block, row_index, col_index)
            if pattern.n_block != self.pattern.n_block:
                self.values.data = self.values.new_empty(pattern.n_block, *self.block)
            for name in _PATTERN_TENSORS:
                setattr(self, name, getattr(pattern, name).to(self.values.device))
        super()._load_from_state_dict(state_dict, prefix, *args)


class FrozenLinear(nn.Module):
    """A linear layer for inference whose weights rest in a narrow dtype.

    Weights of 8 bits and fewer are codes with one scale per output row, expanded when used.

    Parameters
    ----------
    codes : Tensor [out_features, in_features] or [n_block, br, bc]
        Dense weights, or the live blocks of `pattern`.
    scale : Tensor, float [out_features (padded to whole blocks), 1], or None for wide formats
    bias : Tensor or None
    roles : Roles
    pattern : BlockPattern or None
    activation_range : RunningRange or None
        What training has seen, for narrow activations.
    """

    codes: Tensor
    scale: Tensor | None
    bias: Tensor | None

    def __init__(
        self,
        codes: Tensor,
        scale: Tensor | None,
        bias: Tensor | None,
        roles: Roles,
        pattern: BlockPattern | None,
        activation_range: RunningRange | None = None,
    ) -> None:
        super().__init__()
        self.roles, self.activation_range = roles, activation_range
        self.register_buffer("codes", codes)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)
        self.shape = None if pattern is None else pattern.shape
        if pattern is not None:
            self.block = pattern.block
            self.out_features, self.in_features = pattern.shape
            _register_pattern(self, pattern)

    @property
    def pattern(self) -> BlockPattern | None:
        """The live blocks, or None for a dense layer."""
        return None if self.shape is None else _pattern_of(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., in_features] to [..., out_features] in the dtype of `x`."""
        weight, roles, pattern = self.codes, self.roles, self.pattern
        names = roles.weight.name, roles.activation.name
        if pattern is not None and names == ("int8", "int8") and x.dtype == torch.float32:
            assert self.scale is not None
            assert self.activation_range is not None
            if x.shape[-1:] != (self.in_features,):
                raise ShapeError(
                    f"FrozenLinear: x must have {self.in_features} features, "
                    f"[..., {self.in_features}], got {list(x.shape)}"
                )
            index = pattern.row_ptr, pattern.col_index, pattern.row_index
            x_scale = self.activation_range.scale_for(x)
            y = linear_int8(x, x_scale, weight, self.scale, index, self.out_features)
            return y if self.bias is None else y + self.bias.to(y.dtype)
        if self.scale is not None:
            scale = self.scale if pattern is None else _scale_of_block(self.scale, pattern)
            weight = torch.ops.core.dequantize(weight, scale, roles.compute_dtype or x.dtype)
        operand = roles.activate(x, self.activation_range)
        y = F.linear(operand, weight) if pattern is None else matmul(operand, weight, pattern)
        y = y.to(x.dtype)
        return y if self.bias is None else y + self.bias.to(y.dtype)


def frozen(layer: DenseLinear | BlockSparseLinear) -> FrozenLinear:
    """Return the inference form of one layer; gives what the layer gives, bit for bit.

    Sparse layers of int8 weights and activations multiply in integers: exact sums, which differ
    from those of the layer by its own rounding.
    """
    roles, running = layer.roles, layer.activation_range
    pattern = layer.pattern if isinstance(layer, BlockSparseLinear) else None
    weight = (layer.values if isinstance(layer, BlockSparseLinear) else layer.weight).detach()
    bias = None if layer.bias is None else layer.bias.detach().clone()
    if not roles.weight.needs_scale:
        weight = roles.cast(imitate(weight, roles.weight)).clone()
        return FrozenLinear(weight, None, bias, roles, pattern, running)
    if pattern is None:
        scale = full_scale = scale_of(weight, roles.weight, axis=0)
    else:
        scale = _row_scale(weight, pattern, roles.weight)
        full_scale = _scale_of_block(scale, pattern)
    codes = torch.ops.core.quantize(weight, full_scale, roles.weight.name)
    return FrozenLinear(codes, scale, bias, roles, pattern, running)


_PATTERN_TENSORS = ("row_ptr", "col_index", "row_index", "col_ptr", "row_index_t", "order_t")


def _register_pattern(module: nn.Module, pattern: BlockPattern) -> None:
    module._pattern = pattern  # type: ignore[assignment]
    for name in _PATTERN_TENSORS:
        # The two indices say everything; the rest is rebuilt from them.
        kept = name in ("row_index", "col_index")
        module.register_buffer(name, getattr(pattern, name), persistent=kept)


def _pattern_of(module: Any) -> BlockPattern:
    pattern, buffers = module._pattern, module._buffers
    if pattern.col_index is not buffers["col_index"]:  # moved to a device, or loaded
        tensors = (buffers[name] for name in _PATTERN_TENSORS)
        pattern = module._pattern = BlockPattern(pattern.shape, pattern.block, *tensors)
    return pattern


def _row_scale(values: Tensor, pattern: BlockPattern, format: Format) -> Tensor:
    """Return one scale per padded output row, [n_row_block * br, 1]."""
    n_row, br = pattern.grid[0], pattern.block[0]
    size = values.abs()
    per_block = size.mean(2) if format.kind == "binary" else size.amax(2)
    reduce = "mean" if format.kind == "binary" else "amax"
    index = pattern.row_index.long().unsqueeze(1).expand(-1, br)
    top = values.new_zeros(n_row, br)
    top = top.scatter_reduce(0, index, per_block, reduce, include_self=False) / format.max_value
    return torch.where(top == 0, torch.ones_like(top), top).view(-1, 1)


def _scale_of_block(scale: Tensor, pattern: BlockPattern) -> Tensor:
    """Spread row scales over live blocks: [n_row_block * br, 1] -> [n_block, br, 1]."""
    return scale.view(pattern.grid[0], pattern.block[0], 1).index_select(0, pattern.row_index)
