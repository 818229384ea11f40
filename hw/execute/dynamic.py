"""A dynamic block-sparse product, tile by tile: buckets of one size that travel until all is done.

The program is fixed before the pattern is known. Every tile runs as many block slots, receives as
many rows and hands on as many bytes as the plan provides for, filled or not.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from core.errors import ConfigError
from hw.execute.ledger import Array, Execution, Ledger, Moved, in_turn, rounded
from hw.machine import TileMachine
from hw.plan.dense import vertex_cycles
from hw.plan.dynamic import (
    GROUP_CYCLE,
    META_BYTE,
    PARTIAL_BYTE,
    bucket_size,
    choose_dynamic,
    column_shares,
    home,
)
from hw.plan.formats import compute_format, stored_byte
from hw.plan.sparse_vertex import block_cycles, evened
from hw.work import SparseContraction

#: Partial sums are fp32, see `hw.plan.dynamic`.
PARTIAL = "fp32"


def fill_buckets(
    belongs: NDArray[np.int64], n_bucket: int, room: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the bucket that each block lies in at first, and how far from its own.

    A bucket keeps its own blocks; what finds no room is handed to the next bucket with some, the
    latest first. Blocks that pass the last bucket go on at the first.
    """
    own = [list(np.flatnonzero(belongs == b)) for b in range(n_bucket)]
    place = np.full(belongs.size, -1)
    waiting: list[int] = []
    left = np.array([max(0, room - len(blocks)) for blocks in own])
    for turn in range(2 * n_bucket):
        b = turn % n_bucket
        if turn < n_bucket:
            for i, block in enumerate(own[b]):
                if i < room:
                    place[block] = b
                else:
                    waiting.append(int(block))
        while waiting and left[b]:
            place[waiting.pop()] = b
            left[b] -= 1
    return place, (place - belongs) % n_bucket


def execute_dynamic(
    item: SparseContraction, machine: TileMachine, values: Array, dense: Array
) -> Execution:
    """Run ``S X`` or ``S^T Y`` with the live blocks `values` in buckets.

    Operands are rounded to their formats and to the machine's, running and partial sums to fp32.
    Where memory binds, the dense columns pass in serial steps.
    """
    if item.row_index is None or item.col_index is None:
        raise ConfigError("execute: the item has no pattern; give row_index and col_index")
    shares = column_shares(item, machine)
    ends = np.cumsum(shares)
    done = [
        _one_step(replace(item, n=n), machine, values, dense[:, end - n : end])
        for n, end in zip(shares, ends, strict=True)
    ]
    if len(done) == 1:
        return done[0]
    plan = f"{done[0].plan}, {len(done)} serial steps of the dense columns"
    return in_turn(done, np.concatenate([one.result for one in done], axis=1), plan)


def _one_step(
    item: SparseContraction, machine: TileMachine, values: Array, dense: Array
) -> Execution:
    assert item.row_index is not None
    assert item.col_index is not None
    (p_x, p_y, p_z), cost = choose_dynamic(item, machine)
    format = compute_format(machine, item.weight_format, item.dense_format)
    belongs = home(item, p_x, p_y)
    room = int(bucket_size(item.n_block, p_x * p_y))
    _, distance = fill_buckets(belongs, p_x * p_y, room)
    values = rounded(values, item.weight_format, format)
    dense = rounded(dense, item.dense_format, format)
    rows, cols, (br, bc) = item.rows, item.cols, item.block
    out_index, in_index, p_out, p_in = item.row_index, item.col_index, p_x, p_y
    if item.product == "spmm_t":
        rows, cols, br, bc = cols, rows, bc, br
        out_index, in_index, p_out, p_in = in_index, out_index, p_y, p_x
        values = values.transpose(0, 2, 1)
    n_row, n_col = -(-rows // br), -(-cols // bc)
    dense = np.pad(dense, ((0, n_col * bc - cols), (0, 0)))
    n_tile = p_x * p_y * p_z
    n_l = -(-item.n // p_z)
    ledger = Ledger(machine)
    ledger.compute("start", machine.product_start_cycle, part="launch")

    # every tile receives its share of the dense rows, padded to the largest
    moved = Moved(machine)
    share = -(-n_col // p_in) * bc * n_l * stored_byte(machine, item.dense_format)
    for tile in range(n_tile):
        moved.move((tile + 1) % n_tile, tile, share)
    ledger.exchange("dense rows to the tiles", *moved.counts)
    bucket = room * (br * bc * stored_byte(machine, item.weight_format) + META_BYTE)
    moved = Moved(machine)
    for b, z in product(range(p_x * p_y), range(1, p_z)):
        moved.move(b, z * p_x * p_y + b, bucket)
    ledger.exchange("buckets to the tiles", *moved.counts, by_sender=True)
    held = -(-n_row // p_out) * br
    ledger.compute(
        "zero the partial sums", held * n_l * PARTIAL_BYTE / machine.store_byte_per_cycle
    )

    slots, slot_rows = np.array(float(room)), np.array(float(min(-(-n_row // p_out), room)))
    columns = np.array(float(n_l))
    cycles = block_cycles(machine, format, (br, bc), evened(slots, slot_rows), slot_rows, columns)
    ledger.compute("products", machine.sparse_vertex_factor * (GROUP_CYCLE + cycles))
    one = block_cycles(machine, format, (br, bc), np.ones(()), np.ones(()), columns)
    partial = np.zeros((p_in, n_row * br, item.n))
    for step in range(int(distance.max(initial=0)) + 1):
        if step:
            moved = Moved(machine)
            for tile in range(n_tile):
                moved.move(tile, (tile + 1) % n_tile, bucket)
            ledger.exchange("propagation", *moved.counts)
            ledger.compute("propagated blocks", GROUP_CYCLE + one)
        for block in np.flatnonzero(distance == step):
            r, c = int(out_index[block]), int(in_index[block])
            place = (c * p_in // n_col, slice(r * br, (r + 1) * br))
            x = dense[c * bc : (c + 1) * bc]
            partial[place] = rounded(partial[place] + values[block] @ x, PARTIAL)
    total = partial[0]
    for other in partial[1:]:
        total = rounded(total + other, PARTIAL)
    reduced = -(-held // p_in) * n_l * PARTIAL_BYTE
    if p_in > 1:
        moved = Moved(machine)
        for tile, other in product(range(n_tile), range(1, p_in)):
            moved.move((tile + other) % n_tile, tile, reduced)
        ledger.exchange("partial sums", *moved.counts, n_fragment=float(p_in))
        ledger.compute(
            "reduction", reduced * p_in / machine.load_byte_per_cycle + vertex_cycles(machine)
        )
    result = rounded(total[:rows], machine.native(item.out_format))
    return ledger.execution(result, cost.plan, n_tile)
