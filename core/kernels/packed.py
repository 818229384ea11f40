"""Batches that stay in the layout of the kernels from one layer to the next (packed.cpp)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from core.kernels.call import Kernels, pointer, raise_for, rows_of


class Packed(NamedTuple):
    """A batch in the layout of the kernels (packed.cpp), and how to read it."""

    x: Tensor
    """float32 [samples up to a multiple of sixteen * features]"""
    batch: int
    slot: int

    @property
    def n_sample(self) -> int:
        """Samples that are held, those that fill up a multiple of sixteen included."""
        return -(-self.batch // 16) * 16


def pack(kernels: Kernels, x: Tensor, slot: int | None = None) -> Packed:
    """Return float32 [batch, feature], features a multiple of four, in tiles of `slot` samples."""
    x = rows_of(x)
    batch, n_feature = x.shape
    n_thread = torch.get_num_threads()
    slot = slot or kernels.packed_slot(batch, n_thread)
    out = Packed(x.new_empty(-(-batch // 16) * 16 * n_feature), batch, slot)
    kernels.pack(x.data_ptr(), x.stride(0), batch, n_feature, slot, out.x.data_ptr(), n_thread)
    return out


def unpack(kernels: Kernels, x: Packed) -> Tensor:
    """Return a packed batch as [batch, feature]."""
    n_feature = x.x.numel() // x.n_sample if x.batch else 0
    out = x.x.new_empty(x.batch, n_feature)
    kernels.unpack(
        x.x.contiguous().data_ptr(), x.slot, x.batch, n_feature, out.data_ptr(),
        torch.get_num_threads(),
    )  # fmt: skip
    return out


def spmm_packed(
    kernels: Kernels, x: Packed, values: Tensor, row_ptr: Tensor, col_index: Tensor, n_col: int,
    bias: Tensor | None,
) -> Packed:  # fmt: skip
    """Return ``x @ S^T + bias``, both sides packed; S has `n_col` columns of blocks."""
    values = values.contiguous()
    n_block, br, bc = values.shape
    n_row = row_ptr.numel() - 1
    y = Packed(x.x.new_empty(x.n_sample * n_row * br), x.batch, x.slot)
    status = kernels.spmm_packed(
        x.x.contiguous().data_ptr(), x.n_sample, x.slot, values.data_ptr(), row_ptr.data_ptr(),
        col_index.data_ptr(), n_row, n_col, n_block, br, bc, pointer(bias), y.x.data_ptr(),
        torch.get_num_threads(),
    )  # fmt: skip
    if status:
        raise_for(status, "spmm_packed")
    return y


def backward_packed(
    kernels: Kernels, dy: Tensor, x: Packed, values: Tensor, pattern: tuple[Tensor, ...],
    needs_dx: bool,
) -> tuple[Tensor | None, Tensor, Tensor]:  # fmt: skip
    """Return the packed dx, where it is needed, dS [n_block, br, bc] and the sum of dy [rows].

    `pattern` is row_ptr, row_index, col_index, col_ptr, row_index_t, order_t.
    """
    dy, packed, values = dy.contiguous(), x.x.contiguous(), values.contiguous()
    n_block, br, bc = values.shape
    n_row, n_col = pattern[0].numel() - 1, pattern[3].numel() - 1
    dx = torch.empty_like(packed) if needs_dx else None
    sums = values.new_empty(values.numel() + n_row * br)
    status = kernels.backward_packed(
        dy.data_ptr(), packed.data_ptr(), x.n_sample, x.slot, values.data_ptr(),
        *(t.data_ptr() for t in pattern), n_row, n_col, n_block, br, bc, pointer(dx),
        sums.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
    if status:
        raise_for(status, "backward_packed")
    return dx, sums[: values.numel()].view_as(values), sums[values.numel() :]
