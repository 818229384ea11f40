"""Rounding to a number format, to nearest or at random, with the result kept in a wide dtype."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from core.checks import check_dtype
from core.errors import FormatError
from core.kernels import call
from core.kernels.call import kernels_for
from core.precision.formats import Format, format_named

Rounding = Literal["nearest", "stochastic"]

_LIBRARY = torch.library.Library("core", "FRAGMENT")
# A seed below zero rounds to nearest.
_LIBRARY.define("round_to_format(Tensor x, str format, int seed) -> Tensor")


def round_to_format(
    x: Tensor,
    format: Format | str,
    *,
    rounding: Rounding = "nearest",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Round each entry to a value that `format` can hold; the dtype stays.

    Parameters
    ----------
    x : Tensor, float32 or float64 [...]
        Not modified, not scaled (see `core.precision.quantize`).
    format : Format or str
    rounding : {"nearest", "stochastic"}
        Nearest sends ties to even. Stochastic picks one of the two neighbours, the upper with
        probability (x - lower) / (upper - lower), so that the mean of many draws is x.
    generator : torch.Generator, optional
        Source of the stochastic draws; required for them.

    Returns
    -------
    Tensor, dtype of `x` [...]
        Rounds as if the range had no upper end, then applies the overflow rule of the format.
        Subnormals are kept. NaN stays NaN. ``binary`` gives 1 for zero and above, else -1.

    Raises
    ------
    DtypeError
        If `x` is neither float32 nor float64.
    FormatError
        If the format or `rounding` is unknown, or `rounding` is stochastic without a generator.

    Notes
    -----
    Spacing at x: 2**(max(exponent of x, min_exponent) - n_mantissa); x / spacing is exact.
    Source: IEEE 754-2019, section 4.3.1 (nearest, ties to even); Croci et al. 2022,
    doi 10.1098/rsos.211631, definition 1 (stochastic).
    Checked against: torch and ml_dtypes casts, all codes of the 8-bit formats and all midpoints.

    Examples
    --------
    >>> import torch, core
    >>> core.round_to_format(torch.tensor([1.06, -3.3, 500.0]), "fp8_e4m3")
    tensor([  1.0000,  -3.2500, 448.0000])
    """
    if isinstance(format, str):
        format = format_named(format)
    check_dtype("round_to_format", "x", x, (torch.float32, torch.float64))
    if rounding not in get_args(Rounding):
        raise FormatError(
            f"round_to_format: rounding must be 'nearest' or 'stochastic', got {rounding!r}; "
            "name one of them"
        )
    if rounding == "stochastic" and generator is None:
        raise FormatError(
            "round_to_format: rounding 'stochastic' needs a generator, got None; "
            "pass torch.Generator().manual_seed(seed)"
        )
    if format.kind == "binary":
        return torch.where(x.isnan(), x, torch.where(x >= 0, 1.0, -1.0).to(x.dtype))
    if x.dtype == format.dtype and format.name != "tf32":
        return x.clone()
    seed = -1
    if rounding == "stochastic" and generator is not None:
        draw = torch.randint((1 << 63) - 1, (), generator=generator, device=generator.device)
        seed = int(draw)
    return torch.ops.core.round_to_format(x, format.name, seed)


def _round_to_format(x: Tensor, format_name: str, seed: int) -> Tensor:
    format = format_named(format_name)
    if (kernels := kernels_for(x, x)) is not None:
        return call.round_to(kernels, x, format, None if seed < 0 else seed)
    wide = x.double()
    spacing: Tensor | float = 1.0
    if format.kind == "float":
        exponent = torch.frexp(wide).exponent - 1
        exponent = exponent.clamp(min=format.min_exponent) - format.n_mantissa
        spacing = _power_of_two(exponent)
    count = wide / spacing
    if seed < 0:
        count = count.round()
    else:
        # Away from zero if the draw lies below the share of the spacing that would be lost.
        lower = count.abs().floor()
        count = (lower + (_draws(x, seed) < count.abs() - lower)).copysign(count)
    out = torch.where(wide.isfinite(), count * spacing, wide)
    limit = format.max_value
    if format.overflow == "saturate":
        out = out.clamp(-limit, limit)
    else:
        out = torch.where(out.abs() > limit, torch.copysign(torch.tensor(torch.inf), out), out)
    # A float that rounds to zero keeps its sign; integers have no negative zero.
    out = torch.copysign(out, wide) if format.kind == "float" else out + 0.0
    return out.to(x.dtype)


def _draws(x: Tensor, seed: int) -> Tensor:
    """Return uniform float64 draws in [0, 1) in steps of 2**-24, as core/kernels/round.cpp does."""
    low = 0xFFFFFFFF
    seed0, seed1 = seed & low, seed >> 32
    h = torch.arange(x.numel(), device=x.device).view(x.shape)
    h = (h * 0x9E3779B1 + seed0) & low
    h = ((h ^ (h >> 16)) * 0x85EBCA6B) & low
    h = ((h ^ (h >> 13) ^ seed1) * 0xC2B2AE35) & low
    return ((h ^ (h >> 16)) >> 8).double() * 2.0**-24


def _power_of_two(exponent: Tensor) -> Tensor:
    """Return 2**exponent in float64, exact from -1022 to 1023, from the bits of the exponent."""
    return ((exponent.long() + 1023) << 52).view(torch.float64)


_LIBRARY.impl("round_to_format", _round_to_format, "CompositeExplicitAutograd")


@torch.library.register_fake("core::round_to_format", lib=_LIBRARY)
def _(x: Tensor, format: str, seed: int) -> Tensor:
    return torch.empty_like(x)
