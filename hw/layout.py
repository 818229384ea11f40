"""Where operands lie between the products of a program, and what it takes to bring them in order.

On a tile machine an operand that a product reads in another order than it lies in (transposed,
split into heads) has to be sent and put in place; a machine with one memory reads it as it is.
Parameters are laid out for their products once; activations lie as the op before left them.

Op by op, each product has its operands brought in order by itself. Over the whole program

- a copy in another order serves every later product that reads the same entries in that order,
  from the forward into the backward pass, as long as they are not written,
- the gradient of a parameter may be computed transposed, when its other operand is the smaller one
  to bring in order: parameters and their gradients are laid alike, in either order.

The forward product, the input's and the weight's gradient of one layer share weights, inputs and
gradients. They are spread over the tiles alike if that is quicker than the best spread of each with
the weights sent from one to the other (so does the vendor's planner, poplibs ConvPlan.cpp).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from hw.machine import Machine, TileMachine
from hw.plan.dense import dense_candidates
from hw.program import Op, Program, Storage, TensorInfo
from hw.rules import Task
from hw.targets import cost_item
from hw.work import Contraction, Move, SparseContraction, Work

#: Spreads of each of three products that are tried for all of them.
N_SHARED = 6
_Key = tuple[int, tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class Layout:
    """A program with its rearrangements, and what planning over the whole of it gained.

    `apart_s` and `planned_s` are the times to bring operands in order op by op and over the whole
    program; `own_s` and `shared_s` those of the products of layers, each with its own spread (and
    weights sent between), and as planned together.
    """

    program: Program
    tasks: list[Task]
    apart_s: float = 0.0
    planned_s: float = 0.0
    own_s: float = 0.0
    shared_s: float = 0.0


def lay_out(program: Program, tasks: list[Task], machine: Machine, *, whole: bool) -> Layout:
    """Return the tasks with their operands' rearrangements and the products of layers joined.

    Parameters
    ----------
    program : Program
    tasks : list of Task
    machine : Machine
        Nothing is done on machines without tiles.
    whole : bool
        Plan rearrangements over the whole program, not op by op.
    """
    if not isinstance(machine, TileMachine):
        return Layout(program, tasks)
    tasks, own_s, shared_s = _share_spreads(program, tasks, machine)
    apart = moves_of(program, tasks, machine, whole=False)[0]
    planned, copies = moves_of(program, tasks, machine, whole=True)
    chosen = planned if whole else apart
    if whole and copies:
        program = Program(program.ops, {**program.storages, **copies})
    moved = [
        replace(task, items=(*(Move(byte, "reorder") for byte in chosen[task.i_op]), *task.items))
        for task in tasks
    ]
    apart_s, planned_s = (
        sum(cost_item(Move(b, "reorder"), machine).time_s for of_op in m.values() for b in of_op)
        for m in (apart, planned)
    )
    return Layout(program, moved, apart_s, planned_s, own_s, shared_s)


# --- rearrangements -----------------------------------------------------------------------------


def moves_of(
    program: Program, tasks: list[Task], machine: TileMachine, *, whole: bool
) -> tuple[dict[int, list[int]], dict[int, Storage]]:
    """Return bytes to rearrange by op, and the copies that are kept, by their storage key."""
    moves: dict[int, list[int]] = defaultdict(list)
    uses: dict[_Key, list[int]] = defaultdict(list)
    copies: dict[int, Storage] = {}
    open_copy: dict[_Key, int] = {}
    keeps = whole and machine.objective != "memory"
    for task in tasks:
        for t in _in_other_order(task, program):
            uses[_key(t)].append(task.i_op)
    gradients = {s.byte for s in program.storages.values() if s.role == "parameter"}
    for task in tasks:
        operands = _in_other_order(task, program)
        for t in operands:
            key = _key(t)
            if keeps and key in open_copy:
                copies[open_copy[key]].last_op = task.i_op
                continue
            byte = t.byte
            if whole and task.op.phase == "backward" and task.op.out.byte in gradients:
                byte = min([byte, *(o.byte for o in _activations(task.op, program))])
            moves[task.i_op].append(byte)
            if keeps and byte == t.byte and uses[key][-1] > task.i_op:
                name = f"copy of {program.storages[t.storage].name} in another order"
                open_copy[key] = -1 - len(copies)
                copies[open_copy[key]] = Storage(byte, "activation", name, task.i_op, task.i_op)
        if task.op.name.endswith("_"):
            written = {t.storage for t in task.op.outputs}
            open_copy = {key: copy for key, copy in open_copy.items() if key[0] not in written}
    return moves, copies


def _key(tensor: TensorInfo) -> _Key:
    return tensor.storage, tensor.shape, tensor.stride


def _activations(op: Op, program: Program) -> list[TensorInfo]:
    return [t for t in op.inputs if program.storages[t.storage].role == "activation"]


def _in_other_order(task: Task, program: Program) -> list[TensorInfo]:
    """Return the activations that a product reads in another order than they lie in."""
    if not any(isinstance(item, Contraction | SparseContraction) for item in task.items):
        return []
    return [
        t
        for t in _activations(task.op, program)
        if not t.is_contiguous and t.n_element > max(t.shape, default=1)
    ]


# --- forward product and gradients of one layer ---------------------------------------------------


def _share_spreads(
    program: Program, tasks: list[Task], machine: TileMachine
) -> tuple[list[Task], float, float]:
    """Return tasks with the three products of each layer spread alike where that is quicker."""
    own_s = shared_s = 0.0
    spread: dict[int, tuple[Work, ...]] = {}
    for members in layers_of(program, tasks):
        items = tuple(product_of(task) for task in members)
        byte = weight_byte(program, members[0])
        own, together, splits = _joint(items, byte, machine)
        own_s += own
        shared_s += min(own, together)
        if together < own:
            for task, split in zip(members, splits, strict=True):
                spread[task.i_op] = tuple(
                    replace(i, split=split) if isinstance(i, Contraction) else i for i in task.items
                )
        else:
            task = members[1]
            spread[task.i_op] = (Move(byte, "rearrange"), *task.items)
    return (
        [replace(task, items=spread.get(task.i_op, task.items)) for task in tasks],
        own_s,
        shared_s,
    )


def weight_byte(program: Program, task: Task) -> int:
    """Return the bytes of a product's parameter."""
    return min(t.byte for t in task.op.inputs if _is_weight(t, program))


def _is_weight(tensor: TensorInfo, program: Program) -> bool:
    return len(tensor.shape) == 2 and program.storages[tensor.storage].role == "parameter"


def product_of(task: Task) -> Contraction:
    """Return the dense product of a task that has one."""
    return next(item for item in task.items if isinstance(item, Contraction))


def layers_of(program: Program, tasks: list[Task]) -> list[tuple[Task, Task, Task]]:
    """Return forward product, input's and weight's gradient of each layer that has all three."""
    forward: dict[int, Task] = {}
    inward: dict[int, Task] = {}
    by_input: dict[int, list[Task]] = defaultdict(list)
    for task in tasks:
        products = [item for item in task.items if isinstance(item, Contraction)]
        if len(products) != 1 or products[0].batch != 1 or products[0].window != 1:
            continue
        weights = [t.storage for t in task.op.inputs if _is_weight(t, program)]
        if task.op.phase == "forward" and len(weights) == 1:
            forward.setdefault(weights[0], task)
        elif task.op.phase == "backward" and len(weights) == 1:
            inward.setdefault(weights[0], task)
        elif task.op.phase == "backward":
            for t in _activations(task.op, program):
                by_input[t.storage].append(task)
    layers = []
    for weight, task in forward.items():
        if weight not in inward:
            continue
        item = product_of(task)
        for t in task.op.inputs:
            for candidate in by_input.get(t.storage, ()):
                grad = product_of(candidate)
                if {grad.m, grad.n} == {item.n, item.k} and grad.k == item.m:
                    layers.append((task, inward[weight], candidate))
                    break
            else:
                continue
            break
    return layers


@lru_cache(maxsize=4096)
def _joint(
    items: tuple[Contraction, ...], weight_byte: int, machine: TileMachine
) -> tuple[float, float, tuple[tuple[int, int, int], ...]]:
    """Return the time of three products spread each by itself, and alike, and the common splits.

    The forward product is [tokens, in] x [in, out], the input's gradient [tokens, out] x [out, in],
    the weight's [out, tokens] x [tokens, in] or its transpose.
    """
    own = sum(cost_item(item, machine).time_s for item in items)
    own += cost_item(Move(weight_byte, "rearrange"), machine).time_s
    best: tuple[float, tuple[tuple[int, int, int], ...]] = (np.inf, ())
    for splits in common_splits(items, machine, N_SHARED):
        costs = [
            cost_item(replace(item, split=split), machine)
            for item, split in zip(items, splits, strict=True)
        ]
        if all(cost.fits for cost in costs):
            best = min(best, (sum(cost.time_s for cost in costs), splits))
    return own, best[0], best[1]


def common_splits(
    items: tuple[Contraction, ...], machine: TileMachine, n_each: int
) -> list[tuple[tuple[int, int, int], ...]]:
    """Return splits of m, n and k for the three products under which operands stay in place.

    They stem from the `n_each` quickest spreads of each product.
    """
    forward, inward, grad = items
    outer_first = grad.m == forward.n
    tried: dict[tuple[int, int, int], None] = {}  # tokens, in, out
    for m, n, k in _quickest(forward, machine, n_each):
        tried.setdefault((m, k, n))
    for m, n, k in _quickest(inward, machine, n_each):
        tried.setdefault((m, n, k))
    for m, n, k in _quickest(grad, machine, n_each):
        tried.setdefault((k, n, m) if outer_first else (k, m, n))
    return [
        (
            (token, outer, inner),
            (token, inner, outer),
            (outer, inner, token) if outer_first else (inner, outer, token),
        )
        for token, inner, outer in tried
    ]


def _quickest(item: Contraction, machine: TileMachine, n_each: int) -> list[tuple[int, int, int]]:
    """Return the splits of m, n and k of the quickest spreads, serial steps apart."""
    found: dict[tuple[int, int, int], None] = {}
    for swapped in (False, True):
        c, (_, p_m, p_n, p_k, _, _) = dense_candidates(item, machine, swapped=swapped)
        if swapped:
            p_m, p_n = p_n, p_m
        for i in np.argsort(c.rank(), kind="stable")[: 4 * n_each]:
            found.setdefault((int(p_m[i]), int(p_n[i]), int(p_k[i])))
            if len(found) >= n_each * (1 + swapped):
                break
    return list(found)
