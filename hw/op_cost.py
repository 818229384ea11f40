"""What one op of a program costs on one machine: its items put together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from hw.rules import Task
from hw.targets import ItemCost, Superstep
from hw.work import Attention, Contraction, SparseContraction

PRODUCTS = (Contraction, SparseContraction, Attention)


@dataclass(frozen=True)
class OpCost:
    """One op of the program on one machine; times in seconds, energies in joule, dynamic only.

    `memory_byte` is what the fullest tile holds while the op runs (the whole memory, on a machine
    without tiles): all that is live, the op's temporaries, code. `i_op` is its place in the
    program.
    """

    name: str
    module: str
    phase: str
    time_s: float
    parts_s: dict[str, float]
    energy_j: dict[str, float]
    n_mac: int
    exchange_byte: float
    off_chip_byte: float
    memory_byte: float
    plan: str
    binds: str
    i_op: int
    supersteps: tuple[Superstep, ...] = field(default=(), repr=False)
    runner_up: str = field(default="", repr=False)


def op_cost(task: Task, costs: list[ItemCost], memory_byte: float) -> OpCost:
    """Return the cost of a task by those of its items, and what the fullest tile holds."""
    longest = max(costs, key=lambda c: c.time_s)
    return OpCost(
        name=task.op.name,
        module=task.op.module,
        phase=task.op.phase,
        time_s=sum(c.time_s for c in costs),
        parts_s=sum_parts(c.parts_s for c in costs),
        energy_j=sum_parts(c.energy_j for c in costs),
        n_mac=sum(item.n_mac for item in task.items if isinstance(item, PRODUCTS)),
        exchange_byte=sum(c.exchange_byte for c in costs),
        off_chip_byte=sum(c.off_chip_byte for c in costs),
        memory_byte=memory_byte,
        plan="; ".join(c.plan for c in costs),
        binds=longest.binds,
        i_op=task.i_op,
        supersteps=tuple(s for c in costs for s in c.supersteps),
        runner_up="; ".join(
            f"{c.runner_up[0]} {c.runner_up[1] / c.time_s - 1:+.1%}" for c in costs if c.runner_up
        ),
    )


def sum_parts(tables: Iterable[dict[str, float]]) -> dict[str, float]:
    """Return tables added up, key by key."""
    total: dict[str, float] = defaultdict(float)
    for table in tables:
        for part, value in table.items():
            total[part] += value
    return dict(total)
