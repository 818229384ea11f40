"""Rows picked or added by a run-time index; segment sums, messages on graphs; embeddings."""

from __future__ import annotations

import math

from hw.program import Op, TensorInfo
from hw.rules.registry import rule
from hw.work import Gather, Move, Pointwise, Scatter, Work


def _row_element(tensor: TensorInfo, dim: int) -> int:
    """Return the entries that lie behind one index along `dim`, of a tensor's trailing axes."""
    return max(1, math.prod(tensor.shape[dim % max(len(tensor.shape), 1) + 1 :]))


@rule("aten.index_select", "aten.embedding", "aten.repeat_interleave")
def _pick_rows(op: Op) -> list[Work]:
    if op.name == "aten.repeat_interleave" and not isinstance(op.args.get("self"), TensorInfo):
        return []  # index arithmetic on counts
    source = op.inputs[0]
    dim = op.args.get("dim") or 0
    if not source.shape or op.out.n_element == 0:
        return []
    width = _row_element(source, dim)
    return [Gather(op.out.n_element // width, width, source.n_element // width, source.format)]


@rule("aten.gather", "aten.take_along_dim", "aten.take")
def _pick_entries(op: Op) -> list[Work]:
    source = op.inputs[0]
    if op.out.n_element == 0:
        return []
    return [Gather(op.out.n_element, 1, source.n_element, source.format)]


def _added(op: Op, scatter: Scatter) -> list[Work]:
    """Return rows put into, or added to, a tensor: out of place, to a copy of it."""
    if op.name.endswith("_"):
        return [scatter]
    return [Move(op.out.byte, "copy"), scatter]


def _index_width(source: TensorInfo, indices: tuple[TensorInfo | None, ...]) -> int:
    """Return the entries behind one tuple of indices: the trailing axes without an index."""
    trailing = source.shape[len(indices) :]
    return max(1, math.prod(trailing))


@rule("aten.index", "aten._unsafe_index")
def _index(op: Op) -> list[Work]:
    source = op.tensor("self")
    if op.out.n_element == 0:
        return []
    width = math.gcd(_index_width(source, op.args["indices"]), op.out.n_element)
    return [Gather(op.out.n_element // width, width, source.n_element // width, source.format)]


@rule("aten.index_put", "aten._unsafe_index_put", "aten._index_put_impl")
def _index_put(op: Op) -> list[Work]:
    target, values = op.tensor("self"), op.tensor("values")
    width = math.gcd(_index_width(target, op.args["indices"]), max(values.n_element, 1))
    n_row = max(1, values.n_element // width)
    return _added(op, Scatter(n_row, width, target.n_element // width, target.format))


@rule("aten.index_add", "aten.index_copy", "aten.index_reduce")
def _add_rows(op: Op) -> list[Work]:
    target, source = op.tensor("self"), op.tensor("source")
    if source.n_element == 0:
        return []
    width = _row_element(target, op.args["dim"])
    n_row, n_target = source.n_element // width, target.n_element // width
    return _added(op, Scatter(n_row, width, n_target, target.format))


@rule("aten.scatter_add", "aten.scatter_reduce", "aten.scatter", "aten.put")
def _add_entries(op: Op) -> list[Work]:
    target, index = op.tensor("self"), op.tensor("index")
    if index.n_element == 0:
        return []
    return _added(op, Scatter(index.n_element, 1, target.n_element, target.format))


@rule("aten.index_fill")
def _fill_rows(op: Op) -> list[Work]:
    target, index = op.tensor("self"), op.tensor("index")
    dim = op.args["dim"]
    if target.n_element * index.n_element == 0:
        return []
    width = _row_element(target, dim)
    n_target = target.n_element // width
    n_row = n_target // target.shape[dim] * index.n_element
    return _added(op, Scatter(n_row, width, n_target, target.format))


@rule("aten.bincount", "aten.histc")
def _count(op: Op) -> list[Work]:
    """Clear the counts, then add to them."""
    n, out = op.inputs[0].n_element, op.out
    return [Move(out.byte, "fill"), Scatter(n, 1, out.n_element, out.format)]


@rule("aten.embedding_dense_backward")
def _embedding_backward(op: Op) -> list[Work]:
    """Clear the gradient of the whole table, then add the rows that were looked up."""
    grad = op.tensor("grad_output")
    width = grad.shape[-1]
    clear = Move(op.out.byte, "fill")
    if grad.n_element == 0:
        return [clear]
    return [clear, Scatter(grad.n_element // width, width, op.out.n_element // width, grad.format)]


@rule("core.segment_sum")
def _segment_sum(op: Op) -> list[Work]:
    source = op.tensor("x")
    width = _row_element(source, 0)
    if source.n_element == 0:
        return []
    return [
        Scatter(source.n_element // width, width, max(1, op.out.n_element // width), source.format)
    ]


@rule("core.group_rows")
def _group_rows(op: Op) -> list[Work]:
    """Count the rows of each group, then place each row."""
    index, (ptr, order) = op.tensor("index"), op.outputs
    n_row, n_group = index.n_element, ptr.n_element - 1
    if n_row == 0:
        return []
    return [Scatter(n_row, 1, n_group, ptr.format), Scatter(n_row, 1, n_row, order.format)]


@rule("core.pass_messages", "core.pass_messages_backward")
def _messages(op: Op) -> list[Work]:
    """Rows to the edges, there perhaps an edge's own row and relu, and into rows again.

    Sums that begin with the row of the target itself add it in a pass over the rows.
    """
    is_forward = op.name == "core.pass_messages"
    rows, out = op.tensor("x" if is_forward else "g"), op.outputs[0]
    n_edge, width = op.tensor("source" if is_forward else "target").n_element, rows.shape[1]
    if n_edge * width == 0:
        return []
    items: list[Work] = [Gather(n_edge, width, rows.shape[0], rows.format)]
    n_input = 1 + (op.args.get("edge") is not None)
    n_flop = (n_input > 1) + bool(op.args["relu"])
    if n_flop:
        items.append(
            Pointwise(n_edge * width, "arithmetic", rows.format, rows.format, n_input, n_flop)
        )
    items.append(Scatter(n_edge, width, out.shape[0], out.format))
    if op.args["own"]:
        items.append(Pointwise(out.n_element, "arithmetic", out.format, out.format, 2, 1))
    return items
