"""Live blocks written into a dense matrix, and read out of one (dense.cpp, mask.cpp)."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from core.kernels.call import Kernels, raise_for
from core.kernels.plans import Plan, plan_for


def write_blocks(
    kernels: Kernels, values: Tensor, row_index: Tensor, col_index: Tensor, shape: tuple[int, int]
) -> Tensor:
    """Return the dense matrix of blocks [n_block, br, bc] of four or two bytes a number."""
    values, dense = values.contiguous(), values.new_empty(shape)
    status = kernels.write_blocks(
        values.data_ptr(), row_index.data_ptr(), col_index.data_ptr(), *values.shape,
        dense.data_ptr(), *shape, values.element_size(), torch.get_num_threads(),
    )  # fmt: skip
    if status:
        raise_for(status, "spmm")
    return dense


def read_blocks(
    kernels: Kernels, dense: Tensor, row_index: Tensor, col_index: Tensor, block: tuple[int, int]
) -> Tensor:
    """Return the blocks [n_block, br, bc] of a dense matrix of four or two bytes a number."""
    dense, values = dense.contiguous(), dense.new_empty(row_index.numel(), *block)
    status = kernels.read_blocks(
        values.data_ptr(), row_index.data_ptr(), col_index.data_ptr(), *values.shape,
        dense.data_ptr(), *dense.shape, dense.element_size(), torch.get_num_threads(),
    )  # fmt: skip
    if status:
        raise_for(status, "sddmm")
    return values


def mask_of(
    kernels: Kernels, row_index: Tensor, col_index: Tensor, shape: tuple[int, int]
) -> Plan | None:
    """Return where the single entries of a pattern lie, a bit a place, made once for a pattern.

    None where entries do not ascend by row and column, and where the build has no use for it.
    """
    if row_index.is_inference() or col_index.is_inference():  # it would be made in every call
        return None

    def make() -> Plan:
        address = ctypes.c_void_p()
        status = kernels.make_mask(
            row_index.data_ptr(), col_index.data_ptr(), row_index.numel(), *shape,
            ctypes.byref(address),
        )  # fmt: skip
        if status:
            raise_for(status, "spmm")
        return Plan(address.value or 0, kernels.free_mask)

    plan = plan_for(col_index, (row_index,), ("mask", kernels, shape), make)
    return plan if plan.address else None


def write_entries(kernels: Kernels, mask: Plan, values: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return the dense matrix of entries [n_entry, 1, 1] of four or two bytes a number."""
    values, dense = values.contiguous(), values.new_empty(shape)
    kernels.write_entries(
        mask.address, values.data_ptr(), dense.data_ptr(), values.element_size(),
        torch.get_num_threads(),
    )  # fmt: skip
    return dense


def read_entries(kernels: Kernels, mask: Plan, strip: Tensor, begin: int, out: Tensor) -> None:
    """Write to `out` [n_entry, 1, 1] the entries of `strip`: rows of the matrix from `begin` on."""
    strip = strip.contiguous()
    kernels.read_entries(
        mask.address, strip.data_ptr(), begin, begin + strip.shape[0], out.data_ptr(),
        strip.element_size(), torch.get_num_threads(),
    )  # fmt: skip
