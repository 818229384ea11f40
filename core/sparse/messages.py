"""Message passing along the edges of a graph, without an array of one row per edge.

``core::pass_messages`` gives each target the sum, mean or maximum of f(x[source] + edge) over the
edges that point at it; f is the identity or relu. The edges are sorted once a batch, in both
directions (`EdgeOrder`), so that forward and backward pass each write every row once.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from core.checks import check_dtype, check_shape
from core.errors import ConfigError, DtypeError, IndexRangeError, ShapeError
from core.kernels import call
from core.kernels import messages as compiled
from core.kernels.call import kernels_for
from core.sparse.edges import EdgeOrder
from core.sparse.ops import is_unwatched

_REDUCE = ("sum", "mean", "max")
_LIBRARY = torch.library.Library("core", "FRAGMENT")
_LIBRARY.define(
    "pass_messages(Tensor x, Tensor? edge, Tensor? kind, Tensor target_ptr, Tensor source,"
    " Tensor edge_t, Tensor source_ptr, Tensor target, Tensor edge_s, bool relu, str reduce,"
    " bool own) -> (Tensor, Tensor)"
)
_LIBRARY.define(
    "pass_messages_backward(Tensor g, Tensor? x, Tensor? edge, Tensor? kind, Tensor winner,"
    " Tensor target_ptr, Tensor source_ptr, Tensor target, Tensor edge_s, bool relu, str reduce,"
    " bool own, int n_edge_row)"
    " -> (Tensor, Tensor)"
)


def pass_messages(
    x: Tensor,
    order: EdgeOrder,
    edge: Tensor | None = None,
    *,
    kind: Tensor | None = None,
    activation: Literal["identity", "relu"] = "identity",
    reduce: Literal["sum", "mean", "max"] = "sum",
    own: bool = False,
) -> Tensor:
    """Return for each target the reduction of ``f(x[source] + edge)`` over its edges.

    Parameters
    ----------
    x : Tensor, float [source, feature]
        fp32 and bf16 run on the compiled kernels; sums are float32 in any case (fp64: fp64).
    order : EdgeOrder
    edge : Tensor, same dtype [edge, feature], optional
        In the order of the `edge_index` that `order` was made of.
    kind : Tensor, int32 [edge], optional
        Then `edge` is a table [kind, feature], of which each edge takes the row of its kind:
        where edges are of few kinds (bonds, say), no array of edges exists in either direction.
    activation : {"identity", "relu"}
        The function f.
    reduce : {"sum", "mean", "max"}
        A target without edges comes out as zero. Of equal maxima the first edge takes the gradient.
    own : bool
        Whether each sum begins with the row of the target itself, ``x[target]``, as it is: the
        update of graph isomorphism networks. For sums where sources and targets are the same rows.

    Returns
    -------
    Tensor, same dtype [target, feature]
        Differentiable in `x` and `edge`, any number of times.

    Raises
    ------
    ShapeError, DtypeError, ConfigError
        If the operands do not belong together or a word is unknown.

    Examples
    --------
    >>> import torch, core
    >>> order = core.EdgeOrder.from_index(torch.tensor([[0, 2, 1], [1, 1, 0]]), 3)
    >>> core.pass_messages(torch.tensor([[1.0], [2.0], [5.0]]), order)
    tensor([[2.],
            [6.],
            [0.]])
    """
    who = "pass_messages"
    if activation not in ("identity", "relu") or reduce not in _REDUCE:
        raise ConfigError(
            f"{who}: activation must be 'identity' or 'relu' and reduce 'sum', 'mean' or 'max', "
            f"got {activation!r} and {reduce!r}"
        )
    if own and (reduce != "sum" or order.target_ptr.shape != order.source_ptr.shape):
        raise ConfigError(
            f"{who}: own needs sums over edges whose sources and targets are the same rows, got "
            f"reduce {reduce!r}, {order.source_ptr.numel() - 1} sources and "
            f"{order.target_ptr.numel() - 1} targets"
        )
    arguments: Any = (x, edge, kind, *order.tensors, activation == "relu", reduce, own)
    if not is_unwatched(x):
        return torch.ops.core.pass_messages.default(*arguments)[0]
    needs = x.requires_grad or (edge is not None and edge.requires_grad)
    if torch.is_grad_enabled() and needs:
        out: Tensor = _Messages.apply(*arguments)
        return out
    return _forward(*arguments)[0]


class _Messages(torch.autograd.Function):
    # Saves the 15 us that the gradient of a registered op takes to set up.
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        output = _forward(*inputs)
        _save(ctx, inputs, output)
        return output[0]

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        return _backward(ctx, g, None)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, edge, kind, target_ptr, _, _, source_ptr, target, edge_s, relu, reduce, own = inputs
    ctx.relu, ctx.reduce, ctx.own = relu, reduce, own
    ctx.n_edge_row = 0 if edge is None else edge.shape[0]
    operands = (x, edge) if relu else (None, None)  # all that the mask of relu needs
    ctx.save_for_backward(*operands, kind, output[1], target_ptr, source_ptr, target, edge_s)


def _backward(ctx: Any, g: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    n_edge_row = ctx.n_edge_row if ctx.needs_input_grad[1] else 0
    arguments = (g, *ctx.saved_tensors, ctx.relu, ctx.reduce, ctx.own, n_edge_row)
    if torch.is_grad_enabled():  # to be differentiated again: linear in g, of plain torch
        dx, dedge = _gradients_of_torch(*arguments)
    elif is_unwatched(g):
        dx, dedge = _gradients(*arguments)
    else:
        dx, dedge = torch.ops.core.pass_messages_backward.default(*arguments)
    return dx, dedge if ctx.needs_input_grad[1] else None, *[None] * 10


def _kernels(a: Tensor, b: Tensor) -> call.Kernels | None:
    return kernels_for(a, b, (torch.float32, torch.bfloat16)) if a.dtype == b.dtype else None


def _forward(
    x: Tensor, edge: Tensor | None, kind: Tensor | None, target_ptr: Tensor, source: Tensor,
    edge_t: Tensor, source_ptr: Tensor, target: Tensor, edge_s: Tensor, relu: bool, reduce: str,
    own: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    _check_order((target_ptr, source_ptr), (source, edge_t, target, edge_s))
    _check_operands(x, edge, kind, source_ptr.numel() - 1, source.numel())
    if own and target_ptr.numel() != source_ptr.numel():
        raise IndexRangeError(
            "core::pass_messages: own needs as many rows of x as targets; pass one EdgeOrder"
        )
    if (kernels := _kernels(x, x if edge is None else edge)) is not None:
        index = target_ptr, source, edge_t
        return compiled.pass_messages(
            kernels, x, edge, kind, *index, relu, _REDUCE.index(reduce), own
        )
    message = _wide(x).index_select(0, source)
    if edge is not None:
        message = message + _wide(edge).index_select(0, _edge_rows(kind, edge_t))
    message = message.relu() if relu else message
    n_target, into = target_ptr.numel() - 1, _rows_of(target_ptr, source)
    if reduce == "max":
        return _maximum(message, into, n_target, edge_t, x.dtype)
    start = _wide(x).clone() if own else message.new_zeros(n_target, x.shape[1])
    out = start.index_add_(0, into, message)
    out = out / target_ptr.diff().clamp(min=1)[:, None] if reduce == "mean" else out
    return out.to(x.dtype), target_ptr.new_empty(0)


def _maximum(
    message: Tensor, into: Tensor, n_target: int, edge_t: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    wide = into[:, None].expand_as(message).long()
    best = message.new_zeros(n_target, message.shape[1])
    best = best.scatter_reduce(0, wide, message, "amax", include_self=False)
    of_mine = best.gather(0, wide)
    wins = (message == of_mine) | (message.isnan() & of_mine.isnan())
    n = edge_t.numel()
    place = torch.arange(n, device=wide.device)[:, None].expand_as(wide).where(wins, n)
    first = wide.new_full(best.shape, n).scatter_reduce(0, wide, place, "amin")
    edges = torch.cat([edge_t, edge_t.new_full((1,), -1)])
    return best.to(dtype), edges[first]


def _gradients(
    g: Tensor, x: Tensor | None, edge: Tensor | None, kind: Tensor | None, winner: Tensor,
    target_ptr: Tensor, source_ptr: Tensor, target: Tensor, edge_s: Tensor, relu: bool,
    reduce: str, own: bool, n_edge_row: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    who, n_target, n_edge = "pass_messages", target_ptr.numel() - 1, target.numel()
    _check_order((target_ptr, source_ptr), (target, edge_s))
    _check_kind(kind, n_edge)
    n_feature = None if x is None else x.shape[1]
    check_shape(who, "g", g, (n_target, n_feature), "give one row per target of the order")
    if x is None and relu:
        raise ConfigError(f"{who}: the gradient of relu needs the x of the forward pass; pass it")
    if x is not None:
        _check_operands(x, edge, kind, source_ptr.numel() - 1, n_edge)
    if reduce == "max":
        check_shape(who, "winner", winner, tuple(g.shape), "pass what the forward pass gave")
        check_dtype(who, "winner", winner, (torch.int32,))
    if kind is None and n_edge_row not in (0, n_edge):
        raise ShapeError(
            f"{who}: n_edge_row must be 0 or {n_edge}, the number of edges, got {n_edge_row}; "
            "give the number of rows of edge"
        )
    if (kernels := _kernels(g, g if x is None else x)) is not None:
        index = target_ptr, source_ptr, target, edge_s
        how = relu, _REDUCE.index(reduce), own, n_edge_row
        return compiled.pass_messages_backward(kernels, g, x, edge, kind, winner, *index, *how)
    index = target_ptr, source_ptr, target, edge_s
    return _gradients_of_torch(g, x, edge, kind, winner, *index, relu, reduce, own, n_edge_row)


def _gradients_of_torch(
    g: Tensor, x: Tensor | None, edge: Tensor | None, kind: Tensor | None, winner: Tensor,
    target_ptr: Tensor, source_ptr: Tensor, target: Tensor, edge_s: Tensor, relu: bool,
    reduce: str, own: bool, n_edge_row: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    each, source = _wide(g).index_select(0, target), _rows_of(source_ptr, target)
    if reduce == "mean":
        each = each / target_ptr.diff().index_select(0, target)[:, None]
    if reduce == "max":
        each = each.where(winner.index_select(0, target) == edge_s[:, None], 0.0)
    if relu:
        assert x is not None
        with torch.no_grad():
            message = _wide(x).index_select(0, source)
            if edge is not None:
                message = message + _wide(edge).index_select(0, _edge_rows(kind, edge_s))
            is_cut = message <= 0
        each = each.masked_fill(is_cut, 0.0)
    start = _wide(g) if own else each.new_zeros(source_ptr.numel() - 1, g.shape[1])
    dx = start.index_add(0, source, each).to(g.dtype)
    if not n_edge_row:
        return dx, g.new_empty(0, g.shape[1])
    dedge = each.new_zeros(n_edge_row, g.shape[1])
    return dx, dedge.index_add(0, _edge_rows(kind, edge_s), each).to(g.dtype)


def _edge_rows(kind: Tensor | None, edges: Tensor) -> Tensor:
    return edges if kind is None else kind.index_select(0, edges)


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _rows_of(ptr: Tensor, like: Tensor) -> Tensor:
    rows = torch.arange(ptr.numel() - 1, dtype=torch.int32, device=ptr.device)
    return rows.repeat_interleave(ptr.diff(), output_size=like.numel())


def _check_operands(
    x: Tensor, edge: Tensor | None, kind: Tensor | None, n_source: int, n_edge: int
) -> None:
    who = "pass_messages"
    check_shape(who, "x", x, (n_source, None), "give one row per source of the order")
    if edge is not None:
        n_row = n_edge if kind is None else None
        check_shape(who, "edge", edge, (n_row, x.shape[1]), "give one row per edge, wide as x")
        if edge.dtype != x.dtype:
            raise DtypeError(f"{who}: x is {x.dtype} but edge is {edge.dtype}; convert one of them")
    _check_kind(kind, n_edge)
    if kind is not None and edge is None:
        raise ConfigError(f"{who}: kind needs edge, the table of which it names the rows")


def _check_kind(kind: Tensor | None, n_edge: int) -> None:
    if kind is not None:
        check_shape("pass_messages", "kind", kind, (n_edge,), "give one kind per edge")
        check_dtype("pass_messages", "kind", kind, (torch.int32,))


def _check_order(starts: tuple[Tensor, ...], edges: tuple[Tensor, ...]) -> None:
    order = *starts, *edges
    if any(t.dtype != torch.int32 for t in order):
        raise DtypeError(
            "core::pass_messages: index tensors must be int32; pass those of EdgeOrder"
        )
    if any(t.dim() != 1 or not t.is_contiguous() for t in order):
        raise ShapeError(
            "core::pass_messages: index tensors must be contiguous with one axis; "
            "pass those of EdgeOrder"
        )
    if len({t.numel() for t in edges}) != 1:
        raise IndexRangeError(
            "core::pass_messages: index tensors differ in length; pass those of one EdgeOrder"
        )


_LIBRARY.impl("pass_messages", _forward, "CompositeExplicitAutograd")
_LIBRARY.impl("pass_messages_backward", _gradients, "CompositeExplicitAutograd")


@torch.library.register_fake("core::pass_messages", lib=_LIBRARY)
def _(x, edge, kind, target_ptr, source, edge_t, source_ptr, target, edge_s, relu, reduce, own):  # type: ignore[no-untyped-def]
    _check_operands(x, edge, kind, source_ptr.numel() - 1, source.numel())
    shape = target_ptr.numel() - 1, x.shape[1]
    return x.new_empty(shape), target_ptr.new_empty(shape if reduce == "max" else 0)


@torch.library.register_fake("core::pass_messages_backward", lib=_LIBRARY)
def _(  # type: ignore[no-untyped-def]
    g, x, edge, kind, winner, target_ptr, source_ptr, target, edge_s, relu, reduce, own, n_edge_row
):  # fmt: skip
    n_source, n_feature = source_ptr.numel() - 1, g.shape[1]
    return g.new_empty(n_source, n_feature), g.new_empty(n_edge_row, n_feature)


torch.library.register_autograd("core::pass_messages", _backward, setup_context=_save, lib=_LIBRARY)
