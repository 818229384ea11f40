"""Many entries to one: sums, extremes, norms, sorting."""

from __future__ import annotations

import math

from hw.program import Op
from hw.rules.pointwise import pointwise
from hw.rules.registry import rule
from hw.work import HostRead, Move, Pointwise, Reduction, Work


def reduce(op: Op, n_out: int | None = None, format: str | None = None) -> list[Work]:
    """Return the reduction of the op's first tensor to `n_out` entries, none if nothing shrinks."""
    source = op.inputs[0]
    n_out = op.out.n_element if n_out is None else n_out
    n_reduced = source.n_element // max(n_out, 1)
    if n_reduced <= 1:
        return []
    return [Reduction(n_out, n_reduced, source.format, format or op.out.format)]


@rule(
    """aten.sum aten.mean aten.amax aten.amin aten.max aten.min aten.argmax aten.argmin aten.prod
    aten.any aten.all aten.nansum aten.count_nonzero aten.aminmax aten.norm aten.median
    aten.linalg_vector_norm"""
)
def _reduction(op: Op) -> list[Work]:
    tensors = [t for t in op.inputs if t.n_element > 1]
    if op.name in ("aten.max", "aten.min") and len(tensors) > 1:
        return [pointwise(op, "arithmetic", 1)]
    return reduce(op)


@rule("aten.var", "aten.std", "aten.var_mean", "aten.std_mean")
def _variance(op: Op) -> list[Work]:
    """Mean, squared deviation, mean again."""
    source = op.inputs[0]
    deviation = Pointwise(source.n_element, "arithmetic", source.format, source.format, 1, 2)
    return [*reduce(op), deviation, *reduce(op)]


@rule("aten.logsumexp")
def _logsumexp(op: Op) -> list[Work]:
    source = op.inputs[0]
    exponential = Pointwise(source.n_element, "transcendental", source.format, source.format)
    return [*reduce(op), exponential, *reduce(op)]


@rule("aten.mse_loss", "aten.l1_loss", "aten.huber_loss", "aten.binary_cross_entropy")
def _loss(op: Op) -> list[Work]:
    source = op.inputs[0]
    kind = "transcendental" if "entropy" in op.name else "arithmetic"
    term = Pointwise(source.n_element, kind, source.format, source.format, 2, 2)  # type: ignore[arg-type]
    return [term, *reduce(op)]


@rule("aten.binary_cross_entropy_with_logits")
def _logit_loss(op: Op) -> list[Work]:
    source = op.inputs[0]
    return [
        Pointwise(source.n_element, "transcendental", source.format, source.format, 2, 2),
        *reduce(op),
    ]


@rule("aten.nll_loss_forward", "aten.nll_loss_backward")
def _nll(op: Op) -> list[Work]:
    """Charge an entry of each row; backwards all others are cleared first."""
    source = op.tensor("self")
    n_row = source.shape[0] if len(source.shape) > 1 else 1
    picked = Pointwise(n_row, "arithmetic", source.format, source.format, 2, 1)
    if op.name == "aten.nll_loss_backward":
        return [Move(op.out.byte, "fill"), picked]
    return [picked]


@rule("aten.sort", "aten.topk", "aten.argsort", "aten.kthvalue")
def _sort(op: Op) -> list[Work]:
    """Compare and exchange in a sorting network: log2(n) (log2(n) + 1) / 2 stages."""
    source = op.inputs[0]
    dim = op.args.get("dim", -1)
    length = source.shape[dim] if source.shape and isinstance(dim, int) else source.n_element
    depth = math.ceil(math.log2(max(length, 2)))
    flop = depth * (depth + 1) / 2
    return [Pointwise(source.n_element, "arithmetic", source.format, source.format, 1, flop)]


@rule("aten._local_scalar_dense", "aten.equal", "aten.is_nonzero")
def _host_read(op: Op) -> list[Work]:
    return [HostRead(max(1, op.inputs[0].byte if op.name != "aten.equal" else 1))]


@rule(
    """aten.nonzero aten.masked_select aten._unique2 aten.unique_dim aten._to_sparse
    aten._to_sparse_csr aten._to_sparse_csc aten._to_sparse_bsr aten._to_sparse_bsc"""
)
def _data_dependent(op: Op) -> list[Work]:
    """One pass, and the host must learn the size of the result."""
    source = op.inputs[0]
    return [
        Pointwise(source.n_element, "arithmetic", source.format, source.format, 1, 2),
        HostRead(8),
    ]
