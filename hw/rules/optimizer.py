"""Multi-tensor optimizer ops: one item over a list of tensors."""

from __future__ import annotations

from typing import Literal

from hw.program import Op, TensorInfo
from hw.rules.registry import rule
from hw.work import Move, Pointwise, Reduction, Work

Kind = Literal["arithmetic", "divide", "transcendental"]

_FOREACH: dict[tuple[Kind, int], str] = {
    ("arithmetic", 1): "add sub mul neg abs maximum minimum clamp_max clamp_min sign round",
    ("arithmetic", 2): "addcmul lerp",
    ("divide", 1): "div sqrt rsqrt reciprocal",
    ("divide", 3): "addcdiv",
    ("transcendental", 1): "exp log tanh sigmoid",
    ("transcendental", 2): "pow",
}


def _list_item(op: Op, kind: Kind, flop: float) -> list[Work]:
    tensors = [t for t in op.args["self"] if isinstance(t, TensorInfo)]
    n_list = sum(isinstance(value, tuple) for value in op.args.values())
    n = sum(t.n_element for t in tensors)
    if n == 0:
        return []
    f = tensors[0].format
    return [Pointwise(n, kind, f, f, n_list, flop)]


for (kind, flop), names in _FOREACH.items():

    def _foreach(op: Op, kind: Kind = kind, flop: int = flop) -> list[Work]:
        return _list_item(op, kind, flop)

    rule(*(f"aten._foreach_{name}" for name in names.split()))(_foreach)


@rule("aten._foreach_copy", "aten._foreach_zero")
def _foreach_move(op: Op) -> list[Work]:
    n_byte = sum(t.byte for t in op.args["self"])
    return [Move(n_byte, "copy" if op.name.startswith("aten._foreach_copy") else "fill")]


@rule("aten._foreach_norm")
def _foreach_norm(op: Op) -> list[Work]:
    tensors = op.args["self"]
    n = sum(t.n_element for t in tensors)
    f = tensors[0].format
    return [Reduction(len(tensors), max(1, n // len(tensors)), f, f)]


@rule("aten._fused_adam", "aten._fused_adamw")
def _fused_adam(op: Op) -> list[Work]:
    """Two moving averages, bias correction, root, division, decay: about 12 operations, 2 slow."""
    n = sum(t.n_element for t in op.args["self"])
    f = op.args["self"][0].format
    return [Pointwise(n, "arithmetic", f, f, 4, 12), Pointwise(n, "divide", f, f, 1, 2)]


@rule("aten._fused_sgd")
def _fused_sgd(op: Op) -> list[Work]:
    n = sum(t.n_element for t in op.args["self"])
    f = op.args["self"][0].format
    return [Pointwise(n, "arithmetic", f, f, 3, 4)]
