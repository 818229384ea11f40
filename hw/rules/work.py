"""A whole program -> work items, op by op."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace

from core.errors import UnknownOpError
from hw.program import Op, Program
from hw.rules import contraction, index, move, normalise, optimizer, pointwise, reduction, sparse
from hw.rules.registry import find_rule
from hw.work import Pointwise, Work

#: Modules whose import registers rules.
RULE_MODULES = (contraction, index, move, normalise, optimizer, pointwise, reduction, sparse)


@dataclass(frozen=True)
class Task:
    """An op and the work it asks for; `i_op` is its place in the program."""

    i_op: int
    op: Op
    items: tuple[Work, ...]


def tasks_of(program: Program, free: Collection[str] = ()) -> list[Task]:
    """Return the work of each op that has any; views and bookkeeping have none.

    Element-wise optimizer ops that differ only in their parameter are joined into one item, as
    multi-tensor optimizers run them.

    Parameters
    ----------
    program : Program
    free : collection of str
        Names of ops to take as costless, as in ``{"aten.cummax"}``.

    Raises
    ------
    UnknownOpError
        Names every op without a rule, with its number of calls.
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
    return _join_optimizer(tasks)


def _join_optimizer(tasks: list[Task]) -> list[Task]:
    joined: list[Task] = []
    place: dict[tuple[str, Pointwise], int] = {}
    for task in tasks:
        item = task.items[0]
        if task.op.phase != "optimizer" or len(task.items) > 1 or not isinstance(item, Pointwise):
            joined.append(task)
            continue
        key = (task.op.name, replace(item, n_element=0))
        if key not in place:
            place[key] = len(joined)
            joined.append(task)
            continue
        first = joined[place[key]]
        total = first.items[0]
        assert isinstance(total, Pointwise)
        total = replace(total, n_element=total.n_element + item.n_element)
        joined[place[key]] = replace(first, items=(total,))
    return joined
