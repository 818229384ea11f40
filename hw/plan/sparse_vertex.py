"""Cycles of a tile's vertices in a static block-sparse product: blocks, sums, results in place."""

from __future__ import annotations

import numpy as np

from hw.formats import FORMAT_BYTE
from hw.machine import TileMachine
from hw.plan.phases import Array

#: Cycles of the sparse block vertex by block side: once a worker, then for each worker's columns
#: of one block (first column, each further one), for 2-byte and 4-byte entries.
BLOCK_CYCLE = {
    (4, 2): (17, 14, 1),
    (8, 2): (13, 14, 2),
    (16, 2): (13, 19, 4),
    (4, 4): (13, 12, 4),
    (8, 4): (13, 19, 8),
    (16, 4): (16, 74, 16),
}
#: The same for 2-byte blocks of 4 if a worker has at most two columns, each of one cycle more.
SHORT_CYCLE = 7
#: Once a vertex; once a row for each worker; once a row; once a block.
VERTEX_CYCLE, ROW_WORKER_CYCLE, ROW_CYCLE, LIVE_BLOCK_CYCLE = 30, 1, 17, 16


def block_cycles(
    machine: TileMachine,
    format: str,
    block: tuple[int, int],
    n_block: Array,
    n_row: Array,
    n_l: Array,
) -> Array:
    """Return a tile's cycles for `n_block` live blocks in `n_row` block rows against `n_l` columns.

    Single entries run on the vector unit, rows shared among the workers; blocks run on the
    matrix unit, columns shared among the workers. Source: poplibs, StaticMatMulPartitioner.cpp.
    As there, every row counts as the fullest one. A block of another side than 4, 8 and 16 counts
    as the blocks that cover it.
    """
    n_worker: float = machine.n_worker
    columns: Array
    byte = 4 if FORMAT_BYTE[format] >= 4 else 2
    rows = np.maximum(n_row, 1.0)
    if block == (1, 1):
        width = 2 * machine.load_byte_per_cycle / byte
        full, rest = np.floor(n_l / width), n_l % width > 0
        fill = 14 if byte == 2 else 10
        others = np.maximum(n_block / rows - 1, 0)
        per_row = 11 + full * (fill + 3 * others) + rest * (9 + 3 * others)
        cycles: Array = n_worker * (33 + np.ceil(rows / n_worker) * per_row)
        return cycles
    least = min(block)
    side = 4 if least < 8 else 8 if least < 16 else 16
    cover = np.ceil(block[0] / side) * np.ceil(block[1] / side)
    head, first, further = BLOCK_CYCLE[side, byte]
    load = side * side * byte / machine.load_byte_per_cycle
    streamed = np.ceil(n_l / n_worker)
    columns = n_worker * (first + further * (streamed - 1))
    if (side, byte) == (4, 2):
        columns = np.where(streamed <= 2, n_worker * (SHORT_CYCLE + streamed), columns)
    once = VERTEX_CYCLE + head * n_worker + rows * (ROW_WORKER_CYCLE * n_worker + ROW_CYCLE)
    return once + n_block * cover * (LIVE_BLOCK_CYCLE + load + columns)


def evened(n_block: Array, n_row: Array) -> Array:
    """Return `n_block` if every row of a tile had as many as the fullest; for expected counts."""
    rows = np.maximum(n_row, 1.0)
    blocks: Array = rows * np.ceil(n_block / rows)
    return blocks


def reduction_cycles(machine: TileMachine, n_out: Array, n_partial: Array) -> Array:
    """Return a tile's cycles to add `n_partial` partial sums into each of `n_out` results.

    Source: poplibs, StaticMatMulPartitioner.cpp, its estimate for strided reduction.
    """
    vector = 8
    loops = np.ceil(np.ceil(n_out / machine.n_worker) / vector)
    cycles: Array = machine.n_worker * (16 + loops * (14 + n_partial - 1))
    return np.where(n_partial > 1, cycles, 0.0)


def placing_cycles(machine: TileMachine, n_entry: Array, byte: Array) -> Array:
    """Return a tile's cycles to put `n_entry` results that arrive from others into their place.

    A tile's share of the result counts as wide as it is high: the root of its entries is the number
    of pieces that arrive, each with control code of its own, beside a copy of every byte. On the
    published products a cost for each byte alone is too low for few columns and too high for many;
    a machine without a cost for the piece has that.
    """
    if not machine.sparse_piece_cycle:
        return byte * machine.scatter_cycle_per_byte
    cycles: Array = machine.sparse_piece_cycle * np.sqrt(n_entry)
    return cycles + byte / machine.load_byte_per_cycle
