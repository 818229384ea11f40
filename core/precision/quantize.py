"""Codes and scales: a tensor squeezed into a narrow format, as a whole or row by row.

``core::quantize``    codes = round(x / scale) in the format's storage dtype
``core::dequantize``  codes * scale in a float dtype
"""

from __future__ import annotations

import torch
from torch import Tensor

from core.errors import FormatError, ShapeError
from core.precision.formats import Format, format_named
from core.precision.rounding import round_to_format

_LIBRARY = torch.library.Library("core", "FRAGMENT")
_LIBRARY.define("quantize(Tensor x, Tensor scale, str format) -> Tensor")
_LIBRARY.define("dequantize(Tensor codes, Tensor scale, ScalarType dtype) -> Tensor")


def scale_of(x: Tensor, format: Format, *, axis: int | None = None) -> Tensor:
    """Return the scale that spreads `x` over the whole range of `format`.

    Parameters
    ----------
    x : Tensor, float [...]
    format : Format
    axis : int, optional
        Axis with a scale for each of its entries (0: one per row); None for one scale in all.

    Returns
    -------
    Tensor, dtype of `x`
        Largest magnitude over `max_value`, for ``binary`` the mean magnitude (the scale of least
        squared error: Rastegari et al. 2016, arXiv 1603.05279, eq. 6); 1 where `x` is all zero;
        all axes but `axis` have length 1, and without `axis` it is a scalar.
    """
    size = x.abs()
    if axis is None:
        other = list(range(x.dim()))
    else:
        other = [i for i in range(x.dim()) if i != axis % x.dim()]
    if x.numel() == 0:
        scale = size.new_ones([1 if i in other else n for i, n in enumerate(x.shape)])
    elif format.kind == "binary":
        scale = size.mean(other, keepdim=True)
    else:
        scale = size.amax(other, keepdim=True) / format.max_value
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    return scale.reshape(()) if axis is None else scale


def quantize(x: Tensor, format: Format | str, *, axis: int | None = None) -> tuple[Tensor, Tensor]:
    """Return codes and scale with ``codes * scale`` close to `x`.

    Parameters
    ----------
    x : Tensor, float [...]
    format : Format or str
        A format of 8 bits or fewer.
    axis : int, optional
        Axis with a scale for each of its entries; None for one scale in all.

    Returns
    -------
    codes : Tensor, storage dtype of the format [...]
        Rounded to nearest, ties to even.
    scale : Tensor, dtype of `x`, broadcastable to `x`
        |x - codes * scale| <= scale / 2 for the integer formats. NaN or Inf in `x` make the scale
        they share not finite, and so all that is dequantised with it: bad input stays visible.

    Raises
    ------
    FormatError
        If the format is unknown or wider than 8 bits.

    Examples
    --------
    >>> import torch, core
    >>> codes, scale = core.quantize(torch.tensor([[-1.0, 0.5], [0.0, 100.0]]), "int8", axis=0)
    >>> codes.tolist()
    [[-127, 64], [0, 127]]
    """
    format = _narrow(format)
    scale = scale_of(x, format, axis=axis)
    return torch.ops.core.quantize(x, scale, format.name), scale


def dequantize(codes: Tensor, scale: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return ``codes * scale``, computed in float32 (float64 for that `dtype`), as `dtype`.

    Raises
    ------
    ShapeError
        If `scale` does not broadcast to `codes`.

    Examples
    --------
    >>> import torch, core
    >>> x = torch.tensor([1.0, -0.5, 0.25])
    >>> codes, scale = core.quantize(x, "int8")
    >>> bool((core.dequantize(codes, scale) - x).abs().max() <= scale.max() / 2)
    True
    """
    return torch.ops.core.dequantize(codes, scale, dtype)


def fake_quantize(x: Tensor, format: Format | str, *, axis: int | None = None) -> Tensor:
    """Return `x` as it reads after quantising and dequantising; the gradient passes unchanged.

    The straight-through rule (Bengio et al. 2013, arXiv 1308.3432): with scales from the largest
    magnitude nothing is clipped, so no gradient has to be stopped.

    Examples
    --------
    >>> import torch
    >>> from core.precision import fake_quantize
    >>> x = torch.tensor([0.1, 3.0], requires_grad=True)
    >>> fake_quantize(x, "int4").sum().backward()
    >>> x.grad  # as if nothing had been rounded
    tensor([1., 1.])
    """
    format = _narrow(format)
    scale = scale_of(x.detach(), format, axis=axis)
    return straight_through(x, scale, format.name)


def straight_through(x: Tensor, scale: Tensor, name: str) -> Tensor:
    """Return ``dequantize(quantize(x, scale))`` with the gradient of the identity."""
    return _StraightThrough.apply(x, scale, name)


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, scale: Tensor, name: str) -> Tensor:
        codes = torch.ops.core.quantize(x, scale, name)
        return torch.ops.core.dequantize(codes, scale, x.dtype)

    @staticmethod
    def setup_context(ctx: object, inputs: tuple[Tensor, Tensor, str], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: object, g: Tensor) -> tuple[Tensor, None, None]:
        return g, None, None


def _narrow(format: Format | str) -> Format:
    if isinstance(format, str):
        format = format_named(format)
    if not format.needs_scale:
        raise FormatError(
            f"quantize: format must have 8 bits or fewer, got {format.name!r}; "
            "use round_to_format for wider ones"
        )
    return format


def _quantize(x: Tensor, scale: Tensor, format: str) -> Tensor:
    kind = _narrow(format)
    _check_scale("core::quantize", x, scale)
    y = x / scale
    if kind.kind == "binary":
        return torch.where(y >= 0, 1, -1).to(kind.dtype)
    limit = kind.max_value
    if kind.kind == "integer":
        return y.round().clamp(-limit, limit).nan_to_num(0.0).to(kind.dtype)
    if kind.overflow == "saturate":  # torch before 2.13 turned overflow into NaN here
        y = y.clamp(-limit, limit)
    if y.dtype == torch.float64:  # torch would round twice, by way of float32
        y = round_to_format(y, kind)
    return y.to(kind.dtype)


def _dequantize(codes: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    _check_scale("core::dequantize", codes, scale)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    return (codes.to(wide) * scale.to(wide)).to(dtype)


def _check_scale(who: str, x: Tensor, scale: Tensor) -> None:
    # Written out: this runs on each call, and torch.broadcast_shapes costs several microseconds.
    pairs = zip(reversed(scale.shape), reversed(x.shape), strict=False)
    if scale.dim() > x.dim() or any(s not in (1, n) for s, n in pairs):
        raise ShapeError(
            f"{who}: scale {list(scale.shape)} does not broadcast to {list(x.shape)}; "
            "give one scale, or one per entry of an axis with the other axes of length 1"
        )


_LIBRARY.impl("quantize", _quantize, "CompositeExplicitAutograd")
_LIBRARY.impl("dequantize", _dequantize, "CompositeExplicitAutograd")


@torch.library.register_fake("core::quantize", lib=_LIBRARY)
def _(x: Tensor, scale: Tensor, format: str) -> Tensor:
    return torch.empty_like(x, dtype=_narrow(format).dtype)


@torch.library.register_fake("core::dequantize", lib=_LIBRARY)
def _(codes: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.empty_like(codes, dtype=dtype)
