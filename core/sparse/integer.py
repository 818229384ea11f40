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
from core.sparse.ops import check_pattern_tensor, is_unwatched

_LIBRARY = torch.library.Library("core", "FRAGMENT")
_LIBRARY.define(
    "linear_int8(Tensor x, Tensor x_scale, Tensor codes, Tensor scale, Tensor row_ptr,"
    " Tensor col_index, Tensor row_index, int rows) -> Tensor"
)
#: Longest row whose int32 sum cannot overflow: 255 * 127 for each entry, at most.
MAX_COLUMN = (2**31 - 1) // (255 * 127)


def _linear_int8(
    x: Tensor, x_scale: Tensor, codes: Tensor, scale: Tensor, row_ptr: Tensor, col_index: Tensor,
    row_index: Tensor, rows: int,
) -> Tensor:  # fmt: skip
    who = "core::linear_int8"
    check_shape(who, "x", x, (None, None), "flatten leading axes first")
    check_shape(who, "codes", codes, (row_index.numel(), None, None), "one block per live block")
    check_dtype(who, "codes", codes, (torch.int8,))
    check_dtype(who, "x", x, (torch.float32,))
    _, br, bc = codes.shape
    n_row = row_ptr.numel() - 1
    check_shape(who, "scale", scale, (n_row * br, 1), "give one scale per padded row")
    check_shape(who, "x_scale", x_scale, (), "give one scale for all inputs")
    check_dtype(who, "x_scale", x_scale, (torch.float32,))
    for part in (row_ptr, col_index, row_index):
        check_pattern_tensor(who, part, codes)
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
    flat = x.reshape(-1, x.shape[-1])
    is_taught = torch.is_grad_enabled() and x.requires_grad
    if is_unwatched(flat) and not is_taught:
        y = _linear_int8(flat, x_scale, codes, scale, *index, rows)
    else:
        y = torch.ops.core.linear_int8.default(flat, x_scale, codes, scale, *index, rows)
    return y.view(*x.shape[:-1], rows)
