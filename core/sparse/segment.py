"""Sums over groups of rows: the aggregation of message passing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from core.checks import check_dtype, check_index, check_shape
from core.kernels import messages
from core.kernels.call import kernels_for

_LIBRARY = torch.library.Library("core", "FRAGMENT")
_LIBRARY.define("segment_sum(Tensor x, Tensor index, int n_segment) -> Tensor")


def segment_sum(x: Tensor, index: Tensor, n_segment: int) -> Tensor:
    """Add up the rows of `x` that share an entry of `index`.

    Parameters
    ----------
    x : Tensor, float [row, feature]
    index : Tensor, int64 [row]
        Segment of each row, 0..n_segment-1, in any order.
    n_segment : int
        Segments that no row names come out as zero.

    Returns
    -------
    Tensor, dtype of `x` [n_segment, feature]
        Differentiable in `x`, any number of times.

    Raises
    ------
    ShapeError, DtypeError, IndexRangeError
        If `index` does not give one valid segment per row.

    Examples
    --------
    >>> import torch, core
    >>> core.segment_sum(torch.tensor([[1.0], [2.0], [5.0]]), torch.tensor([1, 0, 1]), 3)
    tensor([[2.],
            [6.],
            [0.]])
    """
    return torch.ops.core.segment_sum(x, index, n_segment)


def _segment_sum(x: Tensor, index: Tensor, n_segment: int) -> Tensor:
    _check(x, index)
    if (kernels := kernels_for(x, x)) is not None:
        out = messages.segment_sum(kernels, x, index, n_segment)
        if out is not None:
            return out
    if index.device.type == "cpu":  # reading the index back would stall an accelerator
        check_index("segment_sum", "index", index, n_segment, "segment")
    return x.new_zeros(n_segment, x.shape[1]).index_add_(0, index, x)


def _check(x: Tensor, index: Tensor) -> None:
    check_shape("segment_sum", "x", x, (None, None), "flatten trailing axes into features")
    check_shape("segment_sum", "index", index, (x.shape[0],), "give one segment per row of x")
    check_dtype("segment_sum", "index", index, (torch.int64,))


_LIBRARY.impl("segment_sum", _segment_sum, "CompositeExplicitAutograd")


@torch.library.register_fake("core::segment_sum", lib=_LIBRARY)
def _(x: Tensor, index: Tensor, n_segment: int) -> Tensor:
    _check(x, index)
    return x.new_empty(n_segment, x.shape[1])


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])


def _backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
    (index,) = ctx.saved_tensors
    return g.index_select(0, index), None, None


torch.library.register_autograd("core::segment_sum", _backward, setup_context=_save, lib=_LIBRARY)
