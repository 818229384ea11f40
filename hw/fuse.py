"""Chains of element-wise ops run as one: what a compiler for any of the machines does.

Without this a plain PyTorch step is charged a launch, a sync and a round trip through memory for
each small op, which XLA, inductor and a fused vertex avoid alike. An op joins the ops that
made its operands if, for each of these,

- both are element-wise (or the last one a plain reduction) and in the same phase,
- the result has as many entries as the op that reads it works on,
- no other op touches it in between, and nothing but order-keeping views of the whole stands
  between them (a slice, a transpose, an expansion is a hazard),
- nothing that the earlier op reads is written before the later one.

A result that outlives the chain (read again, saved for the backward pass, optimizer state) is
still written, but not read back; until the chain's end nobody else may read it. Optimizer chains
of several parameters are one multi-tensor pass, as without fusing.
Matrix products, look-ups, scans and copies stay apart.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace

from hw.program import Op, Program, TensorInfo
from hw.rules.pointwise import BY_ENTRY
from hw.rules.work import Task
from hw.work import Fused, Pointwise, Reduction

#: Views of all entries in their order.
_SAME_ENTRIES = {
    f"aten.{name}"
    for name in (
        *("view", "_unsafe_view", "detach", "alias", "unsqueeze", "squeeze", "reshape"),
        "_reshape_alias",
    )
}
_REDUCTIONS = {
    f"aten.{name}" for name in ("sum", "mean", "amax", "amin", "max", "min", "prod", "any", "all")
}


@dataclass(frozen=True)
class _Group:
    """Tasks that run as one, in order; the last one's place is the place of all."""

    tasks: tuple[Task, ...]

    @property
    def last(self) -> Task:
        return self.tasks[-1]


def fuse(program: Program, tasks: list[Task]) -> tuple[Program, list[Task], int]:
    """Return program and tasks with element-wise chains joined, and how many ops vanished.

    The storages of values that are no longer written are gone from the program; what a chain
    reads is live until the chain's last op.
    """
    touches, writes = _touches_and_writes(program)
    open_groups: dict[int, _Group] = {}  # by storage of the result
    kept: dict[int, _Group] = {}  # by place of the last op
    for task in tasks:
        group = _Group((task,))
        if _n_entry(task) is not None:
            for storage in dict.fromkeys(t.storage for t in task.op.inputs):
                source = open_groups.get(storage)
                if source is None or not _may_join(source, task, touches, writes):
                    continue
                del kept[source.last.i_op]
                group = _Group((*source.tasks, *group.tasks))
        group = _Group(tuple(sorted(group.tasks, key=lambda t: t.i_op)))
        kept[task.i_op] = group
        if task.op.outputs:
            open_groups.pop(task.op.out.storage, None)
        if isinstance(task.items[0], Pointwise) and _n_entry(task) is not None:
            open_groups[task.op.out.storage] = group
    groups = [kept[i_op] for i_op in sorted(kept)]
    n_fused = sum(len(group.tasks) - 1 for group in groups)
    return _without_inner(program, groups), [_joined(program, group) for group in groups], n_fused


def _n_entry(task: Task) -> int | None:
    """Return the entries that a task which may be part of a chain works on, else None."""
    op, item = task.op, task.items[0]
    if len(task.items) > 1 or len(op.outputs) != 1:
        return None
    name = op.name.removesuffix("_")
    if isinstance(item, Pointwise) and name in BY_ENTRY:
        return item.n_element
    if isinstance(item, Reduction) and name in _REDUCTIONS:
        return item.n_out * item.n_reduced
    return None


def _may_join(
    source: _Group,
    task: Task,
    touches: dict[int, list[int]],
    writes: dict[int, list[int]],
) -> bool:
    last = task.i_op
    if source.last.op.phase != task.op.phase or _n_entry(source.last) != _n_entry(task):
        return False
    members = {part.i_op for part in source.tasks}
    return not any(
        part.i_op < i < last and i not in members
        for part in source.tasks
        for i in (
            *touches[part.op.out.storage],
            *(i for t in part.op.inputs for i in writes[t.storage]),
        )
    )


def _dies_inside(program: Program, group: _Group, storage: int) -> bool:
    """Tell whether no one needs a value once the chain is done."""
    kept = program.storages[storage]
    return kept.role == "activation" and kept.last_op in {task.i_op for task in group.tasks}


def _touches_and_writes(program: Program) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
    """Return by storage the ops that use it, order-keeping views apart, and those that write it."""
    touches: dict[int, list[int]] = defaultdict(list)
    writes: dict[int, list[int]] = defaultdict(list)
    for i_op, op in enumerate(program.ops):
        if op.name in _SAME_ENTRIES:
            continue
        for storage in {t.storage for t in (*op.inputs, *op.outputs)}:
            touches[storage].append(i_op)
        if op.name.endswith("_"):
            for storage in _written(op):
                writes[storage].append(i_op)
    return touches, writes


def _written(op: Op) -> set[int]:
    target = op.args.get("self", ())
    targets = target if isinstance(target, tuple) else (target,)
    return {t.storage for t in (*targets, *op.outputs) if isinstance(t, TensorInfo)}


def _joined(program: Program, group: _Group) -> Task:
    """Return the task of a whole group, its steps reading only what comes from memory."""
    if len(group.tasks) == 1:
        return group.last
    made: set[int] = set()
    read: set[int] = set()
    steps, kept, reduction = [], {}, None
    for task in group.tasks:
        item, out = task.items[0], task.op.out
        if isinstance(item, Reduction):
            reduction = item
            continue
        assert isinstance(item, Pointwise)
        n_known = 0
        for t in task.op.inputs:
            if t.n_element > 1:
                n_known += t.storage in made or t.storage in read
                if t.byte == program.storages[t.storage].byte:
                    read.add(t.storage)
        steps.append(replace(item, n_input=max(0, item.n_input - n_known)))
        made.add(out.storage)
        if not _dies_inside(program, group, out.storage):
            kept[out.storage] = out.format
    kept.pop(group.last.op.out.storage, None)
    names = "+".join(task.op.name.split(".")[-1].removesuffix("_") for task in group.tasks)
    op = replace(group.last.op, name=f"fused {names}")
    item = Fused(tuple(steps), reduction, tuple(kept.values()))
    return Task(group.last.i_op, op, (item,), tuple(task.i_op for task in group.tasks))


def _without_inner(program: Program, groups: list[_Group]) -> Program:
    """Return the program without values inside chains, other operands live to the chain's end."""
    storages = dict(program.storages)
    for group in groups:
        for task in group.tasks[:-1]:
            inner = task.op.out.storage
            made_here = program.storages[inner].first_op == task.i_op
            is_result = inner == group.last.op.out.storage
            if made_here and not is_result and _dies_inside(program, group, inner):
                del storages[inner]
        for storage in {t.storage for task in group.tasks[:-1] for t in task.op.inputs}:
            if storage in storages:
                old = storages[storage]
                storages[storage] = replace(old, last_op=max(old.last_op, group.last.i_op))
    return Program(program.ops, storages)
