"""What a step asks for, small operands, and short spellings of items in fp32."""

from collections.abc import Callable
from typing import Any, Literal

import torch

from hw.rules import tasks_of
from hw.trace import trace
from hw.work import Contraction, Pointwise, Reduction, Work

X = torch.arange(24.0).reshape(6, 4) + 1
W = torch.ones(4, 8)
ROW = torch.tensor([0, 5, 5])
COMPLEX = torch.ones(3, 8, dtype=torch.complex64)


def items(step: Callable[[], Any]) -> list[Work]:
    """Return the items of a step, in order."""
    return [item for task in tasks_of(trace(step)) for item in task.items]


def contraction(batch: int, m: int, k: int, n: int, **more: Any) -> Contraction:
    return Contraction(batch, m, k, n, "fp32", "fp32", "fp32", **more)


def arithmetic(n: int, n_input: int = 1, flop: float = 1, out: str = "fp32") -> Pointwise:
    return Pointwise(n, "arithmetic", "fp32", out, n_input, flop)


def special(
    n: int,
    n_input: int = 1,
    flop: float = 1,
    kind: Literal["transcendental", "divide"] = "transcendental",
) -> Pointwise:
    return Pointwise(n, kind, "fp32", "fp32", n_input, flop)


def reduction(n_out: int, n_reduced: int, out: str = "fp32") -> Reduction:
    return Reduction(n_out, n_reduced, "fp32", out)
