"""A whole program -> work items, op by op."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace

from core.errors import UnknownOpError
from hw.program import Op, Program
from hw.rules import contraction, index, move, normalise, optimizer, pointwise, reduction, sparse
from hw.rules.registry import find_rule
from hw.work import Fused, Pointwise, Work

#: Modules whose import registers rules.
RULE_MODULES = (contraction, index, move, normalise, optimizer, pointwise, reduction, sparse)


@dataclass(frozen=True)
class Task:
    """An op and the work it asks for; `i_op` is its place in the program.

    `members` are the places of all ops that run in it, where it is a fused one.
    """

    i_op: int
    op: Op
    items: tuple[Work, ...]
    members: tuple[int, ...] = ()

    @property
    def places(self) -> tuple[int, ...]:
        """Places of the ops that run in it."""
        return self.members or (self.i_op,)


def tasks_of(program: Program, free: Collection[str] = ()) -> list[Task]:
    """Return the work of each op that has any; views and bookkeeping have none.

    Parameters
    ----------
    program : Program
    free : collection of str
        Names of ops to take as costless, as in ``{"aten.cummax"}``.

    Raises
    ------
    UnknownOpError
        Names every op without a rule, with its number of calls.

    Examples
    --------
    >>> import torch, hw
    >>> from hw.rules import tasks_of
    >>> program = hw.trace(torch.relu, torch.randn(4))
    >>> [(task.op.name, len(task.items)) for task in tasks_of(program)]
    [('aten.relu', 1)]
    """
    unknown: Counter[str] = Counter()
    tasks: list[Task] = []
    for i_op, op in enumerate(program.ops):
        if op.name in free:
            continue
        function = find_rule(op.name)
        if function is None:
            unknown[op.name] += 1
        elif items := function(op):
            tasks.append(Task(i_op, op, tuple(items)))
    if unknown:
        counts = unknown.most_common()
        names = ", ".join(f"{name} ({n} call{'s' if n > 1 else ''})" for name, n in counts)
        accepted = ", ".join(repr(name) for name, _ in counts)
        raise UnknownOpError(
            f"hw.cost: no rule for {unknown.total()} of {len(program)} ops: {names}; "
            f"add one in hw/rules/ or pass free={{{accepted}}}"
        )
    return tasks


def join_optimizer(tasks: list[Task]) -> list[Task]:
    """Join element-wise optimizer work that differs only in its parameter into one item.

    Multi-tensor optimizers run it so.
    """
    joined: list[Task] = []
    place: dict[tuple[str, Pointwise | Fused], int] = {}
    for task in tasks:
        item = task.items[0]
        if (
            task.op.phase != "optimizer"
            or len(task.items) > 1
            or not isinstance(item, Pointwise | Fused)
        ):
            joined.append(task)
            continue
        n_element, key = _sized(item), (task.op.name, _resized(item, 0))
        if key not in place:
            place[key] = len(joined)
            joined.append(task)
            continue
        first = joined[place[key]]
        total = first.items[0]
        assert isinstance(total, Pointwise | Fused)
        total = _resized(total, _sized(total) + n_element)
        joined[place[key]] = replace(first, items=(total,))
    return joined


def _sized(item: Pointwise | Fused) -> int:
    return item.n_element if isinstance(item, Pointwise) else item.steps[-1].n_element


def _resized(item: Pointwise | Fused, n_element: int) -> Pointwise | Fused:
    if isinstance(item, Pointwise):
        return replace(item, n_element=n_element)
    return replace(item, steps=tuple(replace(s, n_element=n_element) for s in item.steps))
