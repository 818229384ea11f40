"""Sums of rows by segment and messages along edges (segment.cpp, messages.cpp)."""

from __future__ import annotations

import torch
from torch import Tensor

from core.kernels.call import Kernels, pointer, raise_for, rows_of

#: Code of the maximum among the ways in which messages meet (`Reduce` in messages.cpp).
MAX = 2


def segment_sum(kernels: Kernels, x: Tensor, index: Tensor, n_segment: int) -> Tensor | None:
    """Return the sums, float32 [n_segment, feature], or None if an index lies outside."""
    x, index = rows_of(x), index.contiguous()
    out = x.new_empty(n_segment, x.shape[1])
    status = kernels.segment_sum(
        x.data_ptr(), x.stride(0), index.data_ptr(), x.shape[0], x.shape[1],
        out.data_ptr(), n_segment, torch.get_num_threads(),
    )  # fmt: skip
    return None if status else out


def group_rows(kernels: Kernels, index: Tensor, n_group: int) -> tuple[Tensor, Tensor] | None:
    """Return the starts of the groups and the rows in their order, or None for a bad index."""
    index = index.contiguous()
    ptr = torch.empty(n_group + 1, dtype=torch.int32)
    order = torch.empty(index.numel(), dtype=torch.int32)
    status = kernels.group_rows(
        index.data_ptr(), index.numel(), n_group, ptr.data_ptr(), order.data_ptr()
    )
    return None if status else (ptr, order)


def pass_messages(
    kernels: Kernels, x: Tensor, edge: Tensor | None, kind: Tensor | None, ptr: Tensor,
    source: Tensor, order: Tensor, relu: bool, reduce: int, own: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return the rows of the targets, dtype of `x`, and for maxima the edge of each."""
    x = x.contiguous()
    edge, kind = (None if t is None else t.contiguous() for t in (edge, kind))
    n_target, n_feature = ptr.numel() - 1, x.shape[1]
    out = x.new_empty(n_target, n_feature)
    winner = ptr.new_empty((n_target, n_feature) if reduce == MAX else 0)
    status = kernels.pass_messages(
        x.data_ptr(), *map(pointer, (edge, kind)), 0 if edge is None else edge.shape[0],
        ptr.data_ptr(), source.data_ptr(), order.data_ptr(), x.shape[0], n_target, order.numel(),
        n_feature, relu, own, reduce, x.dtype == torch.bfloat16, out.data_ptr(), winner.data_ptr(),
        torch.get_num_threads(),
    )  # fmt: skip
    if status:
        raise_for(status, "pass_messages")
    return out, winner


def pass_messages_backward(
    kernels: Kernels, g: Tensor, x: Tensor | None, edge: Tensor | None, kind: Tensor | None,
    winner: Tensor, target_ptr: Tensor, source_ptr: Tensor, target: Tensor, order: Tensor,
    relu: bool, reduce: int, own: bool, n_edge_row: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return the gradients of the source rows and of `n_edge_row` rows of edges."""
    g, winner = g.contiguous(), winner.contiguous()
    x, edge, kind = (None if t is None else t.contiguous() for t in (x, edge, kind))
    n_source, (n_target, n_feature) = source_ptr.numel() - 1, g.shape
    dx, dedge = g.new_empty(n_source, n_feature), g.new_empty(n_edge_row, n_feature)
    n_kind = n_edge_row if edge is None else edge.shape[0]
    if kind is not None and not n_kind:  # nothing is to be read or written by kind
        kind = None
    status = kernels.pass_messages_backward(
        g.data_ptr(), *map(pointer, (x, edge, kind)), n_kind, winner.data_ptr(),
        target_ptr.data_ptr(), source_ptr.data_ptr(), target.data_ptr(), order.data_ptr(),
        n_source, n_target, order.numel(), n_feature, relu, own, reduce, g.dtype == torch.bfloat16,
        dx.data_ptr(), dedge.data_ptr() if n_edge_row else None, torch.get_num_threads(),
    )  # fmt: skip
    if status:
        raise_for(status, "pass_messages_backward")
    return dx, dedge
