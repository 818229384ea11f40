"""Work outside the matrix unit on a tile machine: pointwise, reductions, row operations, moves."""

from __future__ import annotations

import math

import numpy as np

from hw.item import ItemCost
from hw.machine import TileMachine
from hw.plan.dense import vertex_cycles
from hw.plan.formats import compute_format, stored_byte, substitutes
from hw.plan.phases import Array, Candidates
from hw.work import (
    Fused,
    HostRead,
    Move,
    Pointwise,
    Reduction,
    Softmax,
)

#: Entries that one worker takes at least: one vector access of the narrowest format.
GRAIN = 8
#: Numbers of tiles for one result that are tried: neighbours differ by a sixth at most.
N_SPLIT = 48


def plan_pointwise(item: Pointwise, machine: TileMachine) -> ItemCost:
    """Spread the results evenly; operands lie where the results go."""
    return plan_fused(Fused((item,)), machine)


def plan_fused(item: Fused, machine: TileMachine) -> ItemCost:
    """Run all steps on each entry before the next entry; a reduction at the end takes it up."""
    if item.reduction is not None:
        return _plan_reduction(item.reduction, machine, item)
    _, in_byte, pj = _of_steps(machine, item.steps)
    last = item.steps[-1]
    n_tile = tiles_for(last.n_element, machine)
    n_l = math.ceil(last.n_element / n_tile)
    c = Candidates(machine, 1)
    c.n_tile = np.array([n_tile])
    c.compute(
        "pointwise",
        chain_cycles(machine, item, n_l),
        local_byte=last.n_element * (in_byte + _written_byte(machine, item)),
        pj=last.n_element * pj,
    )
    text = f"{n_l} entries on each of {n_tile} tiles"
    return c.item_cost(
        0, n_mac=0, plan=text + substitutes(machine, *(step.in_format for step in item.steps))
    )


def chain_cycles(machine: TileMachine, chain: Fused, n_l: Array | float) -> Array:
    """Return a tile's cycles for all steps on each of `n_l` entries, and to sum them."""
    slots, in_byte, _ = _of_steps(machine, chain.steps)
    if chain.reduction is not None:
        format = compute_format(machine, chain.reduction.in_format)
        slots += 1 / machine.vector_per_cycle[format]
    one = _entry_cycles(machine, slots, in_byte, _written_byte(machine, chain))
    return np.asarray(vertex_cycles(machine) + n_l * one)


def _written_byte(machine: TileMachine, chain: Fused) -> float:
    """Return the bytes written for each entry; what a reduction takes up stays in registers."""
    last = () if chain.reduction is not None else (chain.steps[-1].out_format,)
    return sum(stored_byte(machine, format) for format in (*last, *chain.kept))


def plan_reduction(item: Reduction, machine: TileMachine) -> ItemCost:
    """Reduce on the tiles, then exchange the partial results and reduce those."""
    return _plan_reduction(item, machine)


def _plan_reduction(item: Reduction, machine: TileMachine, chain: Fused | None = None) -> ItemCost:
    return choose_reduction(item, machine, chain)[1]


def choose_reduction(
    item: Reduction, machine: TileMachine, chain: Fused | None = None
) -> tuple[int, ItemCost]:
    """Return how many tiles share a result in the best plan, and its cost."""
    c, splits = _reduction(item, machine, compute_format(machine, item.in_format), chain)
    note = substitutes(machine, item.in_format)
    cost = c.best_cost(lambda i: f"each result from {int(splits[i])} tiles{note}")
    return int(splits[c.choose()[0]]), cost


def plan_softmax(item: Softmax, machine: TileMachine) -> ItemCost:
    """Two reductions along each row and two pointwise passes, the row kept where it is."""
    return choose_softmax(item, machine)[1]


#: Behind the labels of a row operation's second reduction.
AGAIN = ", second"
#: Passes over all entries of a row operation: label, kind, operations on each entry.
ROW_PASSES = {
    "softmax": (("exponential", "transcendental", 1.0), ("scale", "arithmetic", 1.0)),
    "layer_norm": (
        ("centre and square", "arithmetic", 2.0),
        ("scale and shift", "arithmetic", 2.0),
    ),
}


def choose_softmax(item: Softmax, machine: TileMachine) -> tuple[int, ItemCost]:
    """Return how many tiles share a row in the best plan, and its cost."""
    format = compute_format(machine, item.in_format)
    reduction = Reduction(item.n_row, item.n_col, item.in_format, item.in_format)
    c, splits = _reduction(reduction, machine, format)
    again, _ = _reduction(reduction, machine, format, again=AGAIN)
    c.phases += again.phases
    c.local_byte = c.local_byte + again.local_byte
    c.arithmetic_pj = c.arithmetic_pj + again.arithmetic_pj
    n_element = item.n_row * item.n_col
    n_l = np.ceil(item.n_row / np.minimum(item.n_row, c.n_tile / splits)) * np.ceil(
        item.n_col / splits
    )
    byte = stored_byte(machine, item.in_format)
    for label, kind, flop in ROW_PASSES[item.kind]:
        c.compute(
            label,
            row_pass_cycles(machine, format, kind, flop, byte, n_l),
            local_byte=2 * n_element * byte,
            pj=n_element * flop * machine.vector_pj[format],
        )
    note = substitutes(machine, item.in_format)
    cost = c.best_cost(lambda i: f"{item.kind}, each row on {int(splits[i])} tiles{note}")
    return int(splits[c.choose()[0]]), cost


def row_pass_cycles(
    machine: TileMachine, format: str, kind: str, flop: float, byte: float, n_l: Array | float
) -> Array:
    """Return a tile's cycles for one pass over `n_l` entries of a row operation."""
    one = _entry_cycles(machine, flop * _slots(machine, format, kind), byte, byte)
    return np.asarray(vertex_cycles(machine) + n_l * one)


def reduce_cycles(machine: TileMachine, format: str, byte: float, n_l: Array | float) -> Array:
    """Return a tile's cycles to reduce `n_l` entries out of its memory."""
    one = _entry_cycles(machine, 1 / machine.vector_per_cycle[format], byte, 0.0)
    return np.asarray(vertex_cycles(machine) + n_l * one)


def combine_cycles(machine: TileMachine, format: str, byte: float, n_entry: float) -> float:
    """Return a tile's cycles to combine `n_entry` partial results that it received or holds."""
    width = min(machine.load_byte_per_cycle / byte, machine.vector_per_cycle[format])
    return vertex_cycles(machine) + n_entry / width


#: Kinds of move that send every byte.
SENT = ("rearrange", "reorder")


def plan_move(item: Move, machine: TileMachine) -> ItemCost:
    """Copy or fill inside the tiles, or send every byte to another tile and put it in its place."""
    n_tile = tiles_for(item.n_byte / 4, machine)
    n_l = math.ceil(item.n_byte / n_tile)
    c = Candidates(machine, 1)
    c.n_tile = np.array([n_tile])
    if item.kind in SENT:
        # of the bytes that end on a tile, those that it held before stay
        c.exchange("bytes to their tiles", n_l - n_l // n_tile, item.n_byte * (1 - 1 / n_tile))
        c.temporary_byte = np.array([float(n_l)])
    traffic = item.n_byte if item.kind == "fill" else 2 * item.n_byte
    c.compute(item.kind, move_cycles(machine, item.kind, n_l), local_byte=traffic, part="move")
    return c.item_cost(0, n_mac=0, plan=f"{item.kind}, {n_l} byte on each of {n_tile} tiles")


def move_cycles(machine: TileMachine, kind: str, n_byte: float) -> float:
    """Return a tile's cycles to fill, copy, or put in place `n_byte` bytes."""
    width = machine.store_byte_per_cycle if kind == "fill" else machine.load_byte_per_cycle
    if kind in SENT:
        width = 1 / machine.scatter_cycle_per_byte
    return vertex_cycles(machine) + n_byte / width


def plan_host_read(item: HostRead, machine: TileMachine) -> ItemCost:
    """All tiles wait while the host reads and answers."""
    c = Candidates(machine, 1)
    seconds = machine.host_latency_s + item.n_byte / machine.host_byte_per_s
    c.compute("host read", seconds * machine.clock_hz, part="host")
    return c.item_cost(0, n_mac=0, plan=f"{item.n_byte} byte to the host, all tiles wait")


def tiles_for(n_element: float, machine: TileMachine) -> int:
    """Return how many tiles share `n_element` entries without splitting a worker's least share."""
    return max(1, min(machine.n_tile, math.ceil(n_element / (GRAIN * machine.n_worker))))


def _of_steps(machine: TileMachine, steps: tuple[Pointwise, ...]) -> tuple[float, float, float]:
    """Return issue slots, bytes read and picojoule of arithmetic, for each entry."""
    slots = in_byte = pj = 0.0
    for step in steps:
        format = compute_format(machine, step.in_format, step.out_format)
        slots += step.flop_per_element * _slots(machine, format, step.kind)
        in_byte += step.n_input * stored_byte(machine, step.in_format)
        pj += step.flop_per_element * machine.vector_pj[format]
    return slots, in_byte, pj


def _slots(machine: TileMachine, format: str, kind: str) -> float:
    """Return the issue slots of a tile for one operation."""
    return {
        "arithmetic": 1 / machine.vector_per_cycle[format],
        "divide": machine.divide_cycle[format],
        "transcendental": machine.transcendental_cycle[format],
    }[kind]


def _entry_cycles(machine: TileMachine, slots: float, in_byte: float, out_byte: float) -> float:
    """Return cycles for one entry on one tile: the slower of issue slots and memory."""
    memory = in_byte / machine.load_byte_per_cycle + out_byte / machine.store_byte_per_cycle
    return max(slots, memory)


def _reduction(
    item: Reduction,
    machine: TileMachine,
    format: str,
    chain: Fused | None = None,
    again: str = "",
) -> tuple[Candidates, Array]:
    """Return candidates over how many tiles share one result, and those numbers.

    `chain` makes the entries that are reduced; without it these come from memory.
    """
    most = max(1, min(item.n_reduced, machine.n_tile // min(item.n_out, machine.n_tile)))
    split = np.unique(np.rint(np.geomspace(1, most, N_SPLIT)))
    byte = stored_byte(machine, item.in_format)
    n_group = np.minimum(item.n_out, machine.n_tile // split)
    out_l = np.ceil(item.n_out / n_group)
    in_l = out_l * np.ceil(item.n_reduced / split)
    c = Candidates(machine, split.size)
    c.n_tile = n_group * split
    in_byte, pj, kept_byte = byte, 0.0, 0.0
    cycles = reduce_cycles(machine, format, byte, in_l)
    if chain is not None:
        _, in_byte, pj = _of_steps(machine, chain.steps)
        kept_byte = _written_byte(machine, chain)
        cycles = chain_cycles(machine, chain, in_l)
    c.compute(
        f"reduce on the tiles{again}",
        cycles,
        local_byte=item.n_out * item.n_reduced * (in_byte + kept_byte),
        pj=item.n_out * item.n_reduced * (pj + machine.vector_pj[format]),
    )
    width = np.minimum(machine.load_byte_per_cycle / byte, machine.vector_per_cycle[format])
    fan_in, n_group = tree(split)
    for label, n_sent in (("partial results", fan_in), ("second stage", n_group)):
        sent = np.where(n_sent > 1, n_sent - 1, 0.0)
        groups = np.where(label == "second stage", 1.0, n_group)
        total = item.n_out * byte * np.where(groups > 1, split - n_group, sent * groups)
        c.exchange(f"{label}{again}", out_l * byte * sent, total, n_fragment=sent)
        c.compute(
            f"reduce: {label}{again}",
            np.where(sent > 0, vertex_cycles(machine) + out_l * n_sent / width, 0.0),
        )
    c.temporary_byte = out_l * byte * fan_in
    return c, split


def tree(split: Array) -> tuple[Array, Array]:
    """Return how many of `split` tiles send to one, and how many such there are.

    Above four tiles partial results are collected in two stages, of as many as the square root, so
    that the last tile need not receive them all.
    """
    fan_in = np.where(split > 4, np.ceil(np.sqrt(split)), split)
    return fan_in, np.ceil(split / fan_in)
