"""Work outside the matrix unit on a tile machine: pointwise, reductions, look-ups, moves."""

from __future__ import annotations

import math

import numpy as np

from hw.item import ItemCost
from hw.machine import TileMachine
from hw.plan.dense import plan_contraction, vertex_cycles
from hw.plan.formats import compute_format, stored_byte, substitutes
from hw.plan.phases import Array, Candidates
from hw.work import (
    Contraction,
    Fourier,
    Fused,
    Gather,
    HostRead,
    Move,
    Pointwise,
    Reduction,
    Scatter,
    Softmax,
)

#: Entries that one worker takes at least: one vector access of the narrowest format.
GRAIN = 8
#: Issue slots to test one index against a tile's range and to address the row that it names.
INDEX_CYCLE = 6


def plan_pointwise(item: Pointwise, machine: TileMachine) -> ItemCost:
    """Spread the results evenly; operands lie where the results go."""
    return plan_fused(Fused((item,)), machine)


def plan_fused(item: Fused, machine: TileMachine) -> ItemCost:
    """Run all steps on each entry before the next entry; a reduction at the end takes it up."""
    if item.reduction is not None:
        return _plan_reduction(item.reduction, machine, item)
    slots, in_byte, pj = _of_steps(machine, item.steps)
    last = item.steps[-1]
    out_byte = sum(stored_byte(machine, format) for format in (last.out_format, *item.kept))
    n_tile = _tiles_for(last.n_element, machine)
    n_l = math.ceil(last.n_element / n_tile)
    c = Candidates(machine, 1)
    c.n_tile = np.array([n_tile])
    c.compute(
        "pointwise",
        vertex_cycles(machine) + n_l * _entry_cycles(machine, slots, in_byte, out_byte),
        local_byte=last.n_element * (in_byte + out_byte),
        pj=last.n_element * pj,
    )
    text = f"{n_l} entries on each of {n_tile} tiles"
    return c.item_cost(
        0, n_mac=0, plan=text + substitutes(machine, *(step.in_format for step in item.steps))
    )


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


def plan_gather(item: Gather, machine: TileMachine) -> ItemCost:
    """Split look-ups and source rows; each tile serves its own rows, then results move home."""
    return _look_up(
        item.n_row, item.row_element, item.n_source, item.in_format, machine, adds=False
    )[1]


def plan_scatter(item: Scatter, machine: TileMachine) -> ItemCost:
    """Split updates and target rows; each tile adds what falls to its own rows."""
    return choose_scatter(item, machine)[1]


def choose_scatter(item: Scatter, machine: TileMachine) -> tuple[tuple[int, int, int], ItemCost]:
    """Return the splits of table rows, look-ups and columns of the best plan, and its cost."""
    return _look_up(item.n_row, item.row_element, item.n_target, item.in_format, machine, adds=True)


def plan_fourier(item: Fourier, machine: TileMachine) -> ItemCost:
    """Take the quicker of a fast transform and a product with the transform's matrix."""
    format = compute_format(machine, item.in_format)
    byte = stored_byte(machine, item.in_format)
    n_tile = min(item.batch, machine.n_tile)
    n_l = math.ceil(item.batch / n_tile)
    flop = 2.5 * item.length * math.log2(max(item.length, 2))
    tile_byte = n_l * item.length * byte
    c = Candidates(machine, 1)
    c.n_tile = np.array([n_tile])
    c.exchange("lines to the tiles", tile_byte, item.batch * item.length * byte)
    passes = max(1, math.ceil(math.log2(max(item.length, 2))))
    c.compute(
        "fast Fourier transform",
        passes * vertex_cycles(machine)
        + max(
            n_l * flop / machine.vector_per_cycle[format],
            2 * passes * tile_byte / machine.load_byte_per_cycle,
        ),
        local_byte=2 * passes * item.batch * item.length * byte,
        pj=item.batch * flop * machine.vector_pj[format],
    )
    c.temporary_byte = np.array([2 * tile_byte])
    fast = c.item_cost(0, n_mac=0, plan=f"fast transform, {n_l} lines on each of {n_tile} tiles")
    product = plan_contraction(
        Contraction(
            1,
            item.length + 2,
            item.length,
            item.batch,
            item.in_format,
            item.in_format,
            item.in_format,
        ),
        machine,
    )
    return fast if fast.time_s <= product.time_s else product


def plan_move(item: Move, machine: TileMachine) -> ItemCost:
    """Copy or fill inside the tiles, or send every byte to another tile and put it in its place."""
    n_tile = _tiles_for(item.n_byte / 4, machine)
    n_l = math.ceil(item.n_byte / n_tile)
    c = Candidates(machine, 1)
    c.n_tile = np.array([n_tile])
    width = machine.store_byte_per_cycle if item.kind == "fill" else machine.load_byte_per_cycle
    if item.kind in ("rearrange", "reorder"):
        c.exchange("rearrange", n_l, item.n_byte)
        c.temporary_byte = np.array([float(n_l)])
        width = 1 / machine.scatter_cycle_per_byte
    traffic = item.n_byte if item.kind == "fill" else 2 * item.n_byte
    c.compute(item.kind, vertex_cycles(machine) + n_l / width, local_byte=traffic, part="move")
    return c.item_cost(0, n_mac=0, plan=f"{item.kind}, {n_l} byte on each of {n_tile} tiles")


def plan_host_read(item: HostRead, machine: TileMachine) -> ItemCost:
    """All tiles wait while the host reads and answers."""
    c = Candidates(machine, 1)
    seconds = machine.host_latency_s + item.n_byte / machine.host_byte_per_s
    c.compute("host read", seconds * machine.clock_hz, part="host")
    return c.item_cost(0, n_mac=0, plan=f"{item.n_byte} byte to the host, all tiles wait")


def _tiles_for(n_element: float, machine: TileMachine) -> int:
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
    split = np.unique(np.rint(np.geomspace(1, most, 12)))
    byte = stored_byte(machine, item.in_format)
    n_group = np.minimum(item.n_out, machine.n_tile // split)
    out_l = np.ceil(item.n_out / n_group)
    in_l = out_l * np.ceil(item.n_reduced / split)
    c = Candidates(machine, split.size)
    c.n_tile = n_group * split
    slots, in_byte, pj, kept_byte = 0.0, byte, 0.0, 0.0
    if chain is not None:
        slots, in_byte, pj = _of_steps(machine, chain.steps)
        kept_byte = sum(stored_byte(machine, kept) for kept in chain.kept)
    one = _entry_cycles(machine, slots + 1 / machine.vector_per_cycle[format], in_byte, kept_byte)
    c.compute(
        f"reduce on the tiles{again}",
        vertex_cycles(machine) + in_l * one,
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


def _look_up(
    n_row: int, row_element: int, n_source: int, in_format: str, machine: TileMachine, *, adds: bool
) -> tuple[tuple[int, int, int], ItemCost]:
    """Return splits and cost of picking rows by a run-time index, or of adding rows at one.

    `p_row` tiles share the rows of the table, `p_index` the look-ups, `p_col` each row's entries.
    A tile sees every index of its share, works on those that fall into its rows, and each row of
    the result is exchanged once; if several shares add into one row, they are reduced.
    """
    format = compute_format(machine, in_format)
    byte = stored_byte(machine, in_format)
    powers = 2.0 ** np.arange(0, 12)
    p_row, p_index, p_col = (a.ravel() for a in np.meshgrid(powers, powers, powers, indexing="ij"))
    inside = (p_row * p_index * p_col <= machine.n_tile) & (p_row <= max(n_source, 1))
    inside &= (p_index <= max(n_row, 1)) & (p_col <= max(row_element, 1))
    p_row, p_index, p_col = p_row[inside], p_index[inside], p_col[inside]
    index_l, col_l = np.ceil(n_row / p_index), np.ceil(row_element / p_col)
    hit_l = np.ceil(index_l / p_row)
    table_l = np.ceil(n_source / p_row) * col_l * byte
    c = Candidates(machine, p_row.size)
    c.n_tile = p_row * p_index * p_col
    c.exchange("indices to the tiles", index_l * 4, index_l * 4 * c.n_tile, shared=1.0)
    row_byte = hit_l * col_l * byte
    total = n_row * row_element * byte
    if adds:
        c.exchange("rows to the tiles", row_byte, total, n_fragment=hit_l)
    per_row = col_l * byte / machine.load_byte_per_cycle * (2 if adds else 1)
    c.compute(
        "scatter" if adds else "gather",
        vertex_cycles(machine) + index_l * INDEX_CYCLE + hit_l * (INDEX_CYCLE + per_row),
        local_byte=total * (3 if adds else 2),
        pj=n_row * row_element * machine.vector_pj[format] if adds else 0.0,
    )
    if adds:
        share = table_l * (1 - 1 / p_index)
        c.exchange("partial sums", share, share * c.n_tile, n_fragment=p_index)
        c.compute(
            "reduction",
            np.where(
                p_index > 1, vertex_cycles(machine) + table_l / machine.load_byte_per_cycle, 0
            ),
        )
        c.temporary_byte = row_byte + np.where(p_index > 1, 2 * table_l, 0.0) + index_l * 4
    else:
        c.exchange("rows to their place", total / c.n_tile, total, n_fragment=hit_l)
        c.exchange(
            "table to the tiles",
            table_l * (1 - 1 / p_index),
            n_source * row_element * byte * (p_index - 1),
            shared=p_index % 2 == 0,
        )
        c.temporary_byte = row_byte + np.where(p_index > 1, table_l, 0.0) + index_l * 4
    note = substitutes(machine, in_format)
    cost = c.best_cost(
        lambda i: (
            f"table rows over {int(p_row[i])}, look-ups over {int(p_index[i])}, "
            f"columns over {int(p_col[i])} tiles{note}"
        )
    )
    best = c.choose()[0]
    return (int(p_row[best]), int(p_index[best]), int(p_col[best])), cost
