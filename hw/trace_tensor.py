"""What the tracer reads off a tensor or a call: storage, layout, arguments by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from hw.formats import element_byte
from hw.program import TensorInfo

COMPRESSED = {
    torch.sparse_csr: "csr",
    torch.sparse_bsr: "bsr",
    torch.sparse_csc: "csc",
    torch.sparse_bsc: "bsc",
}


def bind(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments by their names in the schema, defaults included."""
    bound = {}
    for i, argument in enumerate(func._schema.arguments):
        if i < len(args):
            bound[argument.name] = args[i]
        elif argument.name in kwargs:
            bound[argument.name] = kwargs[argument.name]
        else:
            bound[argument.name] = argument.default_value
    return bound


def is_fake(tensor: Tensor) -> bool:
    """Tell whether a tensor has a shape and no values."""
    return isinstance(tensor, FakeTensor) or tensor.is_meta


def strided_part(tensor: Tensor) -> Tensor:
    """Return the tensor itself, or the values of a sparse one."""
    if tensor.layout in COMPRESSED:
        return tensor.values()
    return tensor if tensor.layout == torch.strided else tensor._values()


def stored_byte(tensor: Tensor) -> int:
    """Return the bytes a fresh result asks for (its storage; of a sparse tensor, its values)."""
    strided = strided_part(tensor)
    return max(
        strided.untyped_storage().nbytes(), int(strided.numel() * element_byte(strided.dtype))
    )


def describe_compressed(info: TensorInfo, tensor: Tensor) -> TensorInfo:
    """Add stored count, block and block coordinates of a CSR, CSC, BSR or BSC tensor."""
    layout = COMPRESSED[tensor.layout]
    values = tensor.values()
    block = (values.shape[-2], values.shape[-1]) if layout in ("bsr", "bsc") else (1, 1)
    by_row = layout in ("csr", "bsr")
    pointer = tensor.crow_indices() if by_row else tensor.ccol_indices()
    minor_tensor = tensor.col_indices() if by_row else tensor.row_indices()
    index = None
    if not is_fake(values) and pointer.dim() == 1:
        length = np.diff(pointer.numpy())
        major = np.repeat(np.arange(len(length), dtype=np.int64), length)
        minor = minor_tensor.numpy().astype(np.int64)
        index = (major, minor) if by_row else (minor, major)
    return replace(info, layout=layout, n_stored=values.numel(), block=block, index=index)
