"""Block-sparse product in 8-bit integers, for inference: from float32 to float32.

``core::linear_int8``   y[batch, rows] = round(x / x_scale) @ codes^T * x_scale * scale

Sums are exact integers, so every route gives the same ones.
"""

from __future__ import annotations

import torch
from torch import Tensor

from core.checks import check_dtype, check_shape
from core.kernels import call
from core.kernels.call import kernels_for
from core.precision.formats import FORMATS
from core.sparse import routes
from core.sparse.ops import check_pattern, check_pattern_tensor, check_place, is_unwatched

_LIBRARY = torch.library.Library("core", "FRAGMENT")
_LIBRARY.define(
    "linear_int8(Tensor x, Tensor x_scale, Tensor codes, Tensor scale, Tensor row_ptr,"
    " Tensor col_index, Tensor row_index, int rows) -> Tensor"
)
#: Longest row whose int32 sum cannot overflow: 255 * 127 for each entry, at most.
MAX_COLUMN = (2**31 - 1) // (255 * 127)


def _is_sound(
    x: Tensor, x_scale: Tensor, codes: Tensor, scale: Tensor, row_ptr: Tensor, col_index: Tensor,
    row_index: Tensor, rows: int,
) -> bool:  # fmt: skip
    """Whether these are operands that kernels can read, told quickly: small layers wait for it."""
    if codes.dim() != 3:
        return False
    n_block, br, _ = codes.shape
    n_padded = (row_ptr.numel() - 1) * br
    return (
        x.is_cpu and x_scale.is_cpu and codes.is_cpu and scale.is_cpu
        and row_ptr.is_cpu and col_index.is_cpu and row_index.is_cpu
        and x.dtype is scale.dtype is x_scale.dtype is torch.float32 and codes.dtype is torch.int8
        and row_ptr.dtype is col_index.dtype is row_index.dtype is torch.int32
        and x.dim() == 2 and x_scale.dim() == 0
        and scale.shape == (n_padded, 1) and n_padded - br < rows <= n_padded
        and col_index.shape == (n_block,) and row_index.shape == (n_block,) and row_ptr.dim() == 1
        and row_ptr.is_contiguous() and col_index.is_contiguous() and row_index.is_contiguous()
    )  # fmt: skip


def _explain(
    x: Tensor, x_scale: Tensor, codes: Tensor, scale: Tensor, row_ptr: Tensor, col_index: Tensor,
    row_index: Tensor, rows: int,
) -> None:  # fmt: skip
    """Raise what is wrong with the operands, on whatever device they are."""
    who = "core::linear_int8"
    check_shape(who, "x", x, (None, None), "flatten leading axes first")
    check_shape(who, "codes", codes, (row_index.numel(), None, None), "one block per live block")
    check_dtype(who, "codes", codes, (torch.int8,))
    check_dtype(who, "x", x, (torch.float32,))
    n_row, (_, br, _) = row_ptr.numel() - 1, codes.shape
    check_shape(who, "scale", scale, (n_row * br, 1), "give one scale per padded row")
    check_dtype(who, "scale", scale, (torch.float32,))
    check_shape(who, "x_scale", x_scale, (), "give one scale for all inputs")
    check_dtype(who, "x_scale", x_scale, (torch.float32,))
    for name, part in (("x_scale", x_scale), ("codes", codes), ("scale", scale)):
        check_place(who, "x", x, name, part)
    check_pattern_tensor(who, row_ptr, codes)
    check_pattern_tensor(who, row_index, codes)
    check_pattern(who, "rows", rows, n_row, br, codes, col_index)


def _linear_int8(
    x: Tensor, x_scale: Tensor, codes: Tensor, scale: Tensor, row_ptr: Tensor, col_index: Tensor,
    row_index: Tensor, rows: int,
) -> Tensor:  # fmt: skip
    if not _is_sound(x, x_scale, codes, scale, row_ptr, col_index, row_index, rows):
        _explain(x, x_scale, codes, scale, row_ptr, col_index, row_index, rows)
    n_row, bc = row_ptr.numel() - 1, codes.shape[2]
    if bc % 4 == 0 and x.shape[1] <= MAX_COLUMN and (kernels := kernels_for(x, scale)) is not None:
        y = call.linear_int8(kernels, x, x_scale, codes, scale, row_ptr, col_index, rows)
        if y is not None:
            return y
    limit = FORMATS["int8"].max_value
    bad = ~x.isfinite().all(1, keepdim=True)
    whole = (x / x_scale).round().clamp(-limit, limit).nan_to_num(0.0).double()
    sums = routes.spmm(whole, codes.double(), row_index, col_index, n_row)[:, :rows]
    return (sums.float() * (scale * x_scale).view(-1)[:rows]).masked_fill(bad, torch.nan)


_LIBRARY.impl("linear_int8", _linear_int8, "CompositeExplicitAutograd")


@torch.library.register_fake("core::linear_int8", lib=_LIBRARY)
def _(x: Tensor, x_scale: Tensor, codes: Tensor, scale: Tensor, row_ptr: Tensor,
      col_index: Tensor, row_index: Tensor, rows: int) -> Tensor:  # fmt: skip
    for name, part in (("codes", codes), ("scale", scale), ("the pattern", col_index)):
        check_place("core::linear_int8", "x", x, name, part)
    return x.new_empty(x.shape[0], rows)


def linear_int8(
    x: Tensor, x_scale: Tensor, codes: Tensor, scale: Tensor,
    index: tuple[Tensor, Tensor, Tensor], rows: int,
) -> Tensor:  # fmt: skip
    """Return the product of rounded inputs and weight codes, float32 [..., rows].

    Parameters
    ----------
    x : Tensor, float32 [..., cols]
        A sample with an entry that is not finite comes out as NaN.
    x_scale : Tensor, float32 scalar
        Inputs are rounded to the nearest multiple of it, at most 127 either way.
    codes : Tensor, int8 [n_block, br, bc]
        Live blocks in row order.
    scale : Tensor, float32 [padded rows, 1]
        Scale of each row of codes.
    index : tuple of Tensor
        `row_ptr`, `col_index`, `row_index` of the pattern.
    rows : int
    """
    flat = x if x.dim() == 2 else x.reshape(-1, x.shape[-1])
    is_taught = torch.is_grad_enabled() and x.requires_grad
    if is_unwatched(flat) and not is_taught:
        y = _linear_int8(flat, x_scale, codes, scale, *index, rows)
    else:
        y = torch.ops.core.linear_int8.default(flat, x_scale, codes, scale, *index, rows)
    return y if x.dim() == 2 else y.view(*x.shape[:-1], rows)
