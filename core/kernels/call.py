"""The compiled kernels as functions of tensors on the CPU.

`kernels_for` gives None where they do not apply (no library, another dtype); the caller then takes
the torch route, which gives the same result up to the order of its sums. The bf16 instruction of
AVX-512 takes and gives zero for subnormals, as the processor defines it.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from core.errors import IndexRangeError, PatternError
from core.kernels.load import library
from core.kernels.plans import Plan, plan_for

if TYPE_CHECKING:
    from core.precision.formats import Format

_P, _L, _I, _F, _D, _U = (
    ctypes.c_void_p,
    ctypes.c_int64,
    ctypes.c_int32,
    ctypes.c_float,
    ctypes.c_double,
    ctypes.c_uint32,
)
_ARGUMENTS = {
    "tessera_spmm": [_P, _L, _L, _L, _P, _P, _P, _L, _L, _L, _I, _I, _P, _P, _P, _L, _I, _I],
    "tessera_make_plan": [*[_P] * 3, _L, _L, _L, _I, _I, _L, _L, _P],
    "tessera_free_plan": [_P],
    "tessera_transpose_blocks": [_P, _P, _L, _I, _I, _P, _I],
    "tessera_use_team": [_P],
    "tessera_write_blocks": [_P, _P, _P, _L, _I, _I, _P, _L, _L, _I, _I],
    "tessera_read_blocks": [_P, _P, _P, _L, _I, _I, _P, _L, _L, _I, _I],
    "tessera_make_mask": [_P, _P, _L, _L, _L, _P],
    "tessera_free_mask": [_P],
    "tessera_write_entries": [_P, _P, _P, _I, _I],
    "tessera_read_entries": [_P, _P, _L, _L, _P, _I, _I],
    "tessera_has_bf16": [],
    "tessera_sddmm": [_P, _L, _L, _P, _L, _L, _L, _P, _P, _L, _L, _L, _I, _I, _P, _P, _I, _I],
    "tessera_spmm_backward": [
        *[_P, _L, _L, _P, _L, _L, _L, *[_P] * 6, _L, _L, _L, _I, _I, _P, _P, _P, _I],
    ],
    "tessera_packed_slot": [_L, _I],
    "tessera_pack": [_P, _L, _L, _L, _I, _P, _I],
    "tessera_unpack": [_P, _I, _L, _L, _P, _I],
    "tessera_spmm_packed": [_P, _L, _I, _P, _P, _P, _L, _L, _L, _I, _I, _P, _P, _I],
    "tessera_backward_packed": [_P, _P, _L, _I, *[_P] * 7, _L, _L, _L, _I, _I, _P, _P, _I],
    "tessera_has_int8": [],
    "tessera_linear_int8": [_P, _L, _L, _L, *[_P] * 5, _L, _L, _L, _I, _I, _P, _L, _I],
    "tessera_stack_int8": [_P, _L, _L, _L, _P, _P, _L, _P, _I],
    "tessera_segment_sum": [_P, _L, _P, _L, _L, _P, _L, _I],
    "tessera_group_rows": [_P, _L, _L, _P, _P],
    "tessera_pass_messages": [*[_P] * 3, _L, *[_P] * 3, *[_L] * 4, *[_I] * 4, _P, _P, _I],
    "tessera_pass_messages_backward": [
        *[_P] * 4,
        _L,
        *[_P] * 5,
        *[_L] * 4,
        *[_I] * 4,
        _P,
        _P,
        _I,
    ],
    "tessera_batch_norm": [*[_P] * 4, _L, _L, _D, _D, _I, _I, *[_P] * 5, _I],
    "tessera_batch_norm_backward": [*[_P] * 6, _L, _L, _I, _I, *[_P] * 3, _I],
    "tessera_multiply_adds": [_L, _I],
    "tessera_round": [_P, _P, _L, _I, _I, _F, _I, _I, _U, _U, _I],
}


class Kernels:
    """The functions of one loaded library, with their argument types declared."""

    def __init__(self, loaded: ctypes.CDLL) -> None:
        for name, types in _ARGUMENTS.items():
            function = getattr(loaded, name)
            function.argtypes, function.restype = types, _I
            setattr(self, name.removeprefix("tessera_"), function)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Callable[..., int]: ...


@functools.cache
def kernels() -> Kernels | None:
    """Return the kernels of this processor, or None where there is no library."""
    loaded = library()
    if loaded is None:
        return None
    found = Kernels(loaded)
    found.use_team(_openmp_entry())
    return found


def _openmp_entry() -> int | None:
    """Return the address by which work is given to torch's own threads, if it has OpenMP's."""
    try:
        entry = ctypes.CDLL(None).GOMP_parallel
    except (AttributeError, OSError):
        return None
    return ctypes.cast(entry, ctypes.c_void_p).value


#: Dtypes that the products take. fp16 has no instructions of its own: it is computed in fp32.
PRODUCT_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def kernels_for(
    a: Tensor, b: Tensor, dtypes: tuple[torch.dtype, ...] = (torch.float32,)
) -> Kernels | None:
    """Return the kernels if they can take these operands, else None."""
    if a.dtype not in dtypes or b.dtype not in dtypes or not (a.is_cpu and b.is_cpu):
        return None
    return kernels()


def spmm(
    kernels: Kernels, x: Tensor, values: Tensor, row_ptr: Tensor, col_index: Tensor, rows: int,
    bias: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Return ``x @ S^T``, dtype of `x` [batch, rows], summed in float32.

    A bias, contiguous float32 [rows] for inputs of float32, is added as outputs are written.
    """
    dtype, is_bf16 = x.dtype, False
    if dtype != torch.float32:
        is_bf16 = dtype == torch.bfloat16 and values.shape[2] % 2 == 0 and bool(kernels.has_bf16())
        if not is_bf16:
            x, values = x.float(), values.float()
    x, values = rows_of(x), values.contiguous()
    batch, cols = x.shape
    n_block, br, bc = values.shape
    n_col = -(-cols // bc)
    stride = x.stride(0)
    if is_bf16:  # from here on, two neighbouring entries count as one 32-bit unit
        if cols % 2 or stride % 2:
            x = torch.nn.functional.pad(x, (0, cols % 2)).contiguous()
            stride = x.stride(0)
        cols, stride, bc = -(-cols // 2), stride // 2, bc // 2
    y = x.new_empty(batch, rows)
    plan = None
    if not is_bf16:
        of = (row_ptr,)
        plan = _plan(kernels, lambda: row_ptr, col_index, of, None, (br, bc), (rows, cols), "spmm")
    status = kernels.spmm(
        x.data_ptr(), stride, batch, cols, values.data_ptr(), row_ptr.data_ptr(),
        col_index.data_ptr(), row_ptr.numel() - 1, n_col, n_block, br, bc,
        plan and plan.address, pointer(bias), y.data_ptr(), rows, is_bf16, torch.get_num_threads(),
    )  # fmt: skip
    if status:
        raise_for(status, "spmm")
    return y if y.dtype == dtype else y.to(dtype)


def _plan(
    kernels: Kernels, starts: Callable[[], Tensor], index: Tensor, others: tuple[Tensor, ...],
    order: Tensor | None, block: tuple[int, int], shape: tuple[int, int], who: str,
) -> Plan | None:  # fmt: skip
    """Return the plan of blocks that are not quads, or None for those that need none.

    `starts` gives the first block of each row, made from `others`; `who` tells products apart that
    are made from others.
    """
    (br, bc), (rows, cols) = block, shape
    if br % 4 == 0 and bc % 4 == 0:
        return None

    def make() -> Plan:
        ptr, address = starts(), ctypes.c_void_p()
        status = kernels.make_plan(
            ptr.data_ptr(), index.data_ptr(), pointer(order), ptr.numel() - 1, -(-cols // bc),
            index.numel(), br, bc, rows, cols, ctypes.byref(address),
        )  # fmt: skip
        if status:
            raise_for(status, who)
        return Plan(address.value or 0, kernels.free_plan)

    return plan_for(index, others, (who, kernels, block, shape), make)


def _starts_of(row_index: Tensor, n_row: int) -> Tensor:
    """Return the first block of each of `n_row` rows, int32 [n_row + 1]."""
    row = row_index.long()
    if row.numel() and (row.diff().lt(0).any() or row[0] < 0 or row[-1] >= n_row):
        raise_for(1 if row.min() < 0 or row.max() >= n_row else 2, "sddmm")
    return torch.searchsorted(row, torch.arange(n_row + 1)).to(torch.int32)


def transpose_blocks(kernels: Kernels, values: Tensor, order: Tensor) -> Tensor:
    """Return the blocks in transposed order, each transposed: [n_block, bc, br]."""
    values = values.contiguous()
    n_block, br, bc = values.shape
    out = values.new_empty(n_block, bc, br)
    status = kernels.transpose_blocks(
        values.data_ptr(), order.data_ptr(), n_block, br, bc, out.data_ptr(), values.element_size()
    )
    if status:
        raise_for(status, "spmm_t")
    return out


def sddmm(
    kernels: Kernels, dy: Tensor, x: Tensor, row_index: Tensor, col_index: Tensor, br: int, bc: int,
    row_ptr: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Return the live blocks of ``dy^T @ x``, dtype of `x` [n_block, br, bc], summed in float32.

    With the `row_ptr` of the same pattern it shares the plan of `spmm`.
    """
    dtype = x.dtype
    has_quads = br % 4 == 0 and bc % 4 == 0
    is_bf16 = dtype == torch.bfloat16 and has_quads and bool(kernels.has_bf16())
    if not is_bf16 and dtype != torch.float32:
        dy, x = dy.float(), x.float()
    dy, x = rows_of(dy), rows_of(x)
    n_block, rows, cols = row_index.numel(), dy.shape[1], x.shape[1]
    out = torch.empty(n_block, br, bc)
    plan = None
    if not is_bf16:
        size, starts = ((br, bc), (rows, cols)), row_ptr
        if starts is not None:
            plan = _plan(kernels, lambda: starts, col_index, (starts,), None, *size, "spmm")
        else:
            made = functools.partial(_starts_of, row_index, -(-rows // br))
            plan = _plan(kernels, made, col_index, (row_index,), None, *size, "sddmm")
    status = kernels.sddmm(
        dy.data_ptr(), dy.stride(0), rows, x.data_ptr(), x.stride(0), cols, x.shape[0],
        row_index.data_ptr(), col_index.data_ptr(), -(-rows // br), -(-cols // bc), n_block,
        br, bc, plan and plan.address, out.data_ptr(), is_bf16, torch.get_num_threads(),
    )  # fmt: skip
    if status:
        raise_for(status, "sddmm")
    return out if dtype == torch.float32 else out.to(dtype)


def spmm_backward(
    kernels: Kernels, dy: Tensor, x: Tensor, values: Tensor, row_index: Tensor, col_index: Tensor,
    col_ptr: Tensor, row_index_t: Tensor, order_t: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return both gradients, float32 [batch, cols] and [n_block, br, bc], in one pass."""
    dy, x = rows_of(dy), rows_of(x)
    (n_block, br, bc), (batch, cols), rows = values.shape, x.shape, dy.shape[1]
    values = values.contiguous()
    dx, dvalues = x.new_empty(batch, cols), torch.empty(n_block, br, bc)
    of = (col_ptr, order_t)
    size = (bc, br), (cols, rows)
    plan = _plan(kernels, lambda: col_ptr, row_index_t, of, order_t, *size, "spmm_backward")
    status = kernels.spmm_backward(
        dy.data_ptr(), dy.stride(0), rows, x.data_ptr(), x.stride(0), cols, batch,
        values.data_ptr(), row_index.data_ptr(), col_index.data_ptr(), col_ptr.data_ptr(),
        row_index_t.data_ptr(), order_t.data_ptr(), -(-rows // br), col_ptr.numel() - 1, n_block,
        br, bc, plan and plan.address, dx.data_ptr(), dvalues.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
    if status:
        raise_for(status, "spmm_backward")
    return dx, dvalues


def linear_int8(
    kernels: Kernels, x: Tensor, x_scale: Tensor, codes: Tensor, scale: Tensor, row_ptr: Tensor,
    col_index: Tensor, rows: int,
) -> Tensor | None:  # fmt: skip
    """Return the product, float32 [batch, rows], or None where the processor has no int8."""
    if not kernels.has_int8():
        return None
    x, codes, scale = rows_of(x), codes.contiguous(), scale.contiguous()
    (n_block, br, bc), (batch, cols) = codes.shape, x.shape
    y = x.new_empty(batch, rows)
    status = kernels.linear_int8(
        x.data_ptr(), x.stride(0), batch, cols, x_scale.data_ptr(), codes.data_ptr(),
        scale.data_ptr(), row_ptr.data_ptr(), col_index.data_ptr(), row_ptr.numel() - 1,
        -(-cols // bc), n_block, br, bc, y.data_ptr(), rows, torch.get_num_threads(),
    )  # fmt: skip
    if status:
        raise_for(status, "linear_int8")
    return y


class IntegerLayer(NamedTuple):
    """A layer of `stack_int8`: codes int8 [n_block, br, bc], a scale a row, one for its inputs."""

    codes: Tensor
    scale: Tensor
    x_scale: Tensor
    row_ptr: Tensor
    col_index: Tensor
    bias: Tensor | None
    rows: int
    cols: int
    is_relu: bool
    """Whether relu follows."""


def stack_int8(kernels: Kernels, x: Tensor, layers: Sequence[IntegerLayer]) -> Tensor:
    """Return what the layers give one after the other, float32 [batch, rows of the last].

    Blocks divide the features, and have rows in sixteens and 8, 16 or 32 columns.
    """
    x = rows_of(x)
    kept: list[Tensor | None] = []  # alive until the call is over
    size: list[int] = []
    for layer in layers:
        n_block, br, bc = layer.codes.shape
        bias = None if layer.bias is None else layer.bias.contiguous()
        kept += [layer.codes.contiguous(), layer.scale.contiguous(), layer.row_ptr]
        kept += [layer.col_index, bias, layer.x_scale]
        size += [layer.rows // br, layer.cols // bc, n_block, br, bc, layer.is_relu]
    y = x.new_empty(x.shape[0], layers[-1].rows)
    status = kernels.stack_int8(
        x.data_ptr(), x.stride(0), *x.shape, (_P * len(kept))(*map(pointer, kept)),
        (_L * len(size))(*size), len(layers), y.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
    if status:
        raise_for(status, "stack_int8")
    return y


def pointer(x: Tensor | None) -> int | None:
    """Return where the numbers of `x` lie, or None for None."""
    return None if x is None else x.data_ptr()


def round_to(kernels: Kernels, x: Tensor, format: Format, seed: int | None = None) -> Tensor:
    """Return float32 `x` rounded to a float format or integers; at random where a seed is given."""
    x = x.contiguous()
    out = torch.empty_like(x)
    low, high = ((seed or 0) >> shift & 0xFFFFFFFF for shift in (0, 32))
    kernels.round(
        x.data_ptr(), out.data_ptr(), x.numel(), format.n_exponent, format.n_mantissa,
        format.max_value, format.overflow == "saturate", seed is not None, low, high,
        torch.get_num_threads(),
    )  # fmt: skip
    return out


def rows_of(x: Tensor) -> Tensor:
    """Return `x` with features side by side in memory; rows may lie any distance apart."""
    if x.is_contiguous() or (x.stride(1) == 1 and x.stride(0) >= x.shape[1]):
        return x
    return x.contiguous()


def raise_for(status: int, who: str) -> None:
    """Raise the error that a kernel's status stands for."""
    if status == 1:
        raise IndexRangeError(
            f"core::{who}: a block index points outside the matrix; "
            "pass the tensors of one BlockPattern, for this shape"
        )
    if status == 4:
        raise PatternError(f"core::{who}: the plan belongs to another pattern; this is a defect")
    if status == 2:
        raise PatternError(
            f"core::{who}: block rows do not ascend from 0 to the number of blocks; "
            "pass the tensors of one BlockPattern"
        )
