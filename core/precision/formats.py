"""The number formats of the suite, each with its range, its grid and its overflow rule."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal

import torch

from core.errors import FormatError


@dataclass(frozen=True)
class Format:
    """One number format.

    A float format has `n_exponent` and `n_mantissa` bits (explicit fraction bits, subnormals
    included); an integer format has neither, and its codes run from ``-max_value`` to
    ``max_value`` in steps of one (symmetric: the most negative two's complement code is unused).
    ``binary`` has the two codes -1 and 1.

    Parameters
    ----------
    name : str
        Short name, as in records and machine files.
    kind : {"float", "integer", "binary"}
    n_bit : int
        Storage of one entry.
    n_exponent, n_mantissa : int
        Zero for formats without an exponent.
    max_value : float
        Largest finite magnitude.
    overflow : {"infinity", "saturate"}
        What a magnitude that rounds beyond `max_value` becomes. Infinite input follows the same
        rule; NaN stays NaN wherever the format has one.
    dtype : torch.dtype
        Type that stores codes. ``tf32`` rests in float32, ``int4`` and ``binary`` in int8.
    """

    name: str
    kind: Literal["float", "integer", "binary"]
    n_bit: int
    n_exponent: int
    n_mantissa: int
    max_value: float
    overflow: Literal["infinity", "saturate"]
    dtype: torch.dtype

    @property
    def min_exponent(self) -> int:
        """Exponent of the smallest normal number; subnormals share its spacing."""
        return 2 - 2 ** (self.n_exponent - 1)

    @property
    def is_native(self) -> bool:
        """Whether torch computes in this format, so that no rounding has to be imitated."""
        return self.kind == "float" and self.n_bit >= 16 and self.name != "tf32"

    @property
    def needs_scale(self) -> bool:
        """Whether the range is so narrow that tensors are scaled into it (8 bits and fewer)."""
        return self.n_bit <= 8


def _ieee(name: str, n_bit: int, n_exponent: int, n_mantissa: int, dtype: torch.dtype) -> Format:
    max_value = (2.0 - 2.0**-n_mantissa) * 2.0 ** (2 ** (n_exponent - 1) - 1)
    return Format(name, "float", n_bit, n_exponent, n_mantissa, max_value, "infinity", dtype)


#: By name. The IEEE-like formats overflow to infinity, as hardware conversions do. fp8_e4m3 has
#: no infinity (its top code is NaN; Micikevicius et al. 2022, arXiv 2209.05433, table 1): it
#: saturates, as the OCP 8-bit specification allows and torch >= 2.13 does.
FORMATS: dict[str, Format] = {
    f.name: f
    for f in (
        _ieee("fp64", 64, 11, 52, torch.float64),
        _ieee("fp32", 32, 8, 23, torch.float32),
        _ieee("tf32", 32, 8, 10, torch.float32),
        _ieee("bf16", 16, 8, 7, torch.bfloat16),
        _ieee("fp16", 16, 5, 10, torch.float16),
        Format("fp8_e4m3", "float", 8, 4, 3, 448.0, "saturate", torch.float8_e4m3fn),
        _ieee("fp8_e5m2", 8, 5, 2, torch.float8_e5m2),
        Format("int8", "integer", 8, 0, 0, 127.0, "saturate", torch.int8),
        Format("int4", "integer", 4, 0, 0, 7.0, "saturate", torch.int8),
        Format("binary", "binary", 1, 0, 0, 1.0, "saturate", torch.int8),
    )
}


def format_named(name: str) -> Format:
    """Return the format called `name`; FormatError names the near miss of an unknown one.

    Examples
    --------
    >>> from core.precision import format_named
    >>> format_named("bf16").n_mantissa, format_named("fp8_e4m3").max_value
    (7, 448.0)
    """
    if name in FORMATS:
        return FORMATS[name]
    near = difflib.get_close_matches(str(name), FORMATS, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}?" if near else "choose one of those"
    raise FormatError(f"unknown format {name!r}; known are {', '.join(FORMATS)}; {hint}")
