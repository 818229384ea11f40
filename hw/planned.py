"""A program planned on one machine: each op by its best plan, and the memory they take."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from hw.fuse import fuse as fuse_program
from hw.layout import Layout, lay_out
from hw.machine import Machine
from hw.occupancy import memory_by_task, per_tile
from hw.op_cost import OpCost, op_cost
from hw.program import Program
from hw.rules import Task, join_optimizer, tasks_of
from hw.targets import ItemCost, cost_item, expanded


@dataclass(frozen=True)
class Planned:
    """Tasks of a program with the costs of their items on `machine`, put together op by op."""

    machine: Machine
    layout: Layout
    tasks: list[Task]
    costs: list[list[ItemCost]]
    ops: tuple[OpCost, ...]
    n_fused: int

    @property
    def program(self) -> Program:
        """The program, its fused values left out and its copies in other orders added."""
        return self.layout.program

    @property
    def fits(self) -> bool:
        """Whether every op finds its memory."""
        most = max((op.memory_byte for op in self.ops), default=0.0)
        return most <= per_tile(self.machine)[1]


def plan_program(
    program: Program,
    machine: Machine,
    *,
    free: Collection[str] = (),
    fuse: bool = True,
    whole: bool = True,
    join: bool = True,
) -> Planned:
    """Return a program as planned on a machine.

    Parameters
    ----------
    program : Program
    machine : Machine
    free, fuse, whole
        As of `hw.cost`.
    join : bool
        Run the optimizer's work on all parameters at once, not parameter by parameter.

    Raises
    ------
    UnknownOpError
        If an op has no rule.
    """
    tasks, n_fused = tasks_of(program, free), 0
    tasks = [replace(task, items=expanded(task.items, machine)) for task in tasks]
    if fuse:
        program, tasks, n_fused = fuse_program(program, tasks)
    layout = lay_out(program, tasks, machine, whole=whole)
    tasks = join_optimizer(layout.tasks) if join else layout.tasks
    costs = [[cost_item(item, machine) for item in task.items] for task in tasks]
    memory = memory_by_task(layout.program, tasks, costs, machine)
    ops = tuple(
        op_cost(task, of_task, byte)
        for task, of_task, byte in zip(tasks, costs, memory, strict=True)
    )
    return Planned(machine, layout, tasks, costs, ops, n_fused)
