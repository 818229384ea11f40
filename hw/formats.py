"""Number formats as the cost model sees them: a short name and a width.

The names are those of `core.precision.formats`, plus the integer types of indices and masks.
"""

from __future__ import annotations

import torch

from core.errors import DtypeError

#: Storage of one entry, in byte (int4 packs two entries in a byte, binary eight).
FORMAT_BYTE: dict[str, float] = {
    "fp64": 8,
    "fp32": 4,
    "tf32": 4,
    "bf16": 2,
    "fp16": 2,
    "fp8_e4m3": 1,
    "fp8_e5m2": 1,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "int4": 0.5,
    "bool": 1,
    "binary": 0.125,
}

_FORMAT_OF_DTYPE: dict[torch.dtype, str] = {
    torch.float64: "fp64",
    torch.float32: "fp32",
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
    torch.float8_e4m3fn: "fp8_e4m3",
    torch.float8_e5m2: "fp8_e5m2",
    torch.int64: "int64",
    torch.int32: "int32",
    torch.int16: "int16",
    torch.int8: "int8",
    torch.uint8: "int8",
    torch.bool: "bool",
    torch.complex64: "fp32",
    torch.complex128: "fp64",
}


def format_of(dtype: torch.dtype) -> str:
    """Return the format name of a torch dtype; of a complex dtype, that of its two parts."""
    try:
        return _FORMAT_OF_DTYPE[dtype]
    except KeyError:
        raise DtypeError(
            f"hw: no format for {dtype}; known dtypes are "
            f"{', '.join(str(d).removeprefix('torch.') for d in _FORMAT_OF_DTYPE)}"
        ) from None


def element_byte(dtype: torch.dtype) -> float:
    """Return the storage of one entry of `dtype`, in byte (both parts of a complex entry)."""
    return FORMAT_BYTE[format_of(dtype)] * (2 if dtype.is_complex else 1)
