"""Dense products on a tile machine: split m, n, k and the batch over the tiles.

One operand (m x k) is held: its blocks are loaded as weights into the matrix unit, one after the
other. The columns of the other operand (k x n) stream through, six workers in turn. The larger
operand is held; if they are of a kind, both ways are tried. Terms follow the published planner of
the vendor (poplibs, lib/poplin/ConvModel.cpp), plus what that planner leaves out: a sync per
exchange, the workers' entry for each block, and the start of the whole.
"""

from __future__ import annotations

import numpy as np

from hw.formats import FORMAT_BYTE
from hw.item import ItemCost
from hw.machine import TileMachine
from hw.plan.formats import compute_format, stored_byte, substitutes
from hw.plan.phases import Array, Candidates
from hw.work import Contraction

#: Inputs of the weight block that the matrix unit holds (poplibs: 16 inputs by 16 outputs of
#: 2 byte, by 8 outputs of 4 byte), and its size.
BLOCK, BLOCK_BYTE = 16, 512
#: Columns that fill the matrix unit's pipeline (poplibs, StaticMatMulPartitioner.cpp: 19 cycles
#: for the first column of a 2-byte block and 4 for each further one, 37 and 8 of a 4-byte block).
PIPELINE_COLUMN = 3.7
#: The smaller operand is held as well as the larger one if it has at least this many columns.
#: Measured on Bow: 8192 x 8192 x 256 takes the time of the larger operand held, and
#: 1024 x 1024 x 32768 that of the smaller one.
HELD_LEAST = 1024
#: Serial splits that are tried when temporaries have to shrink.
SERIAL = (1, 2, 4, 8, 16, 32, 64)
#: Distinct values tried for each split; geometric, so that any best split has a near neighbour.
N_SPLIT = 36


def plan_contraction(item: Contraction, machine: TileMachine) -> ItemCost:
    """Return the cost of the quickest spread of a dense product that fits."""
    best: tuple[float, Candidates, int, bool, bool, str] | None = None
    for swapped in (False, True):
        held, other = (item.n, item.m) if swapped else (item.m, item.n)
        if held < min(other, HELD_LEAST):
            continue
        candidates, splits = dense_candidates(item, machine, swapped=swapped)
        winner, fits, memory_binds = candidates.choose()
        rank = candidates.cycles()[winner] + (0.0 if fits else np.inf)
        if best is None or rank < best[0]:
            b, m, n, k, s = (int(a[winner]) for a in splits)
            text = f"split m {m}, n {n}, k {k}"
            text += f", batch {b}" if b > 1 else ""
            text += f", {s} serial steps" if s > 1 else ""
            text += ", operands swapped" if swapped else ""
            best = (rank, candidates, winner, fits, memory_binds, text)
    assert best is not None
    _, candidates, winner, fits, memory_binds, text = best
    text += substitutes(machine, item.a_format, item.b_format, item.out_format)
    return candidates.item_cost(
        winner, n_mac=item.n_mac, plan=text, fits=fits, memory_binds=memory_binds
    )


def dense_candidates(
    item: Contraction, machine: TileMachine, *, swapped: bool
) -> tuple[Candidates, tuple[Array, Array, Array, Array, Array]]:
    """Return all candidate spreads and their splits (batch, m, n, k, serial).

    `swapped` streams the columns of A through blocks of B instead.
    """
    m, n = (item.n, item.m) if swapped else (item.m, item.n)
    a_format = item.b_format if swapped else item.a_format
    b_format = item.a_format if swapped else item.b_format
    k, batch = item.k, item.batch
    splits = _splits(batch, m, n, k, machine.n_tile)
    p_batch, p_m, p_n, p_k, serial = splits
    format = compute_format(machine, item.a_format, item.b_format)
    a_byte, b_byte = stored_byte(machine, a_format), stored_byte(machine, b_format)
    partial_byte = stored_byte(machine, format)

    batch_l = np.ceil(batch / p_batch)
    m_l, k_l = np.ceil(m / p_m), np.ceil(k / p_k)
    n_l = np.ceil(np.ceil(n / p_n) / serial)
    n_tile = p_batch * p_m * p_n * p_k

    c = Candidates(machine, p_m.size)
    c.n_tile = n_tile
    a_tile = batch_l * m_l * k_l * a_byte
    b_tile = batch_l * n_l * k_l * b_byte
    out_tile = batch_l * m_l * n_l * partial_byte
    c.compute("start", machine.product_start_cycle, part="launch")
    c.exchange(
        "weights to the tiles",
        a_tile * (1 - 1 / p_n),
        batch * m * k * a_byte * (p_n - 1),
        shared=p_n % 2 == 0,
    )
    c.exchange(
        "inputs to the tiles",
        serial * b_tile * (1 - 1 / p_m),
        batch * n * k * b_byte * (p_m - 1),
        shared=p_m % 2 == 0,
        n_phase=serial,
    )
    c.compute(
        "arrange the inputs",
        serial * (vertex_cycles(machine) + b_tile / machine.load_interleaved_byte_per_cycle),
        local_byte=2 * b_tile * n_tile,
        part="move",
    )
    cycles = serial * batch_l * matrix_cycles(machine, format, m_l, k_l, n_l)
    traffic = machine.load_interleaved_byte_per_cycle + machine.store_byte_per_cycle
    mac = batch * m * k * n
    c.compute(
        "products",
        serial * vertex_cycles(machine) + cycles,
        local_byte=mac / machine.mac_per_cycle[format] * traffic,
        pj=mac * machine.mac_pj[format],
    )
    reduces = p_k > 1
    n_out = batch * m * n
    c.exchange(
        "partial sums",
        serial * out_tile * (1 - 1 / p_k),
        n_out * partial_byte * (p_k - 1),
        n_phase=serial,
        n_fragment=p_k,
    )
    c.compute(
        "reduction",
        np.where(
            reduces,
            serial * (out_tile / machine.load_byte_per_cycle + vertex_cycles(machine)),
            0.0,
        ),
        local_byte=np.where(reduces, n_out * partial_byte * (p_k + 1), 0.0),
        pj=n_out * (p_k - 1) * machine.vector_pj[format],
    )
    result_tile = out_tile / p_k
    c.compute(
        "arrange the result",
        serial * (vertex_cycles(machine) + result_tile / machine.load_byte_per_cycle),
        local_byte=2 * n_out * partial_byte,
        part="move",
    )
    c.temporary_byte = (
        np.where(p_n > 1, a_tile, 0.0) + np.where(p_m > 1, b_tile, 0.0) + out_tile * (1 + reduces)
    )
    return c, splits


def vertex_cycles(machine: TileMachine) -> float:
    """Return the cycles to start all workers of a tile on one vertex and to leave it."""
    return machine.supervisor_cycle + machine.n_worker * machine.worker_entry_cycle


def matrix_cycles(machine: TileMachine, format: str, m_l: Array, k_l: Array, n_l: Array) -> Array:
    """Return cycles of one tile for m_l x k_l held weights and n_l streamed columns.

    Each block is loaded once, then the columns pass in six interleaved streams, as long as the
    longest of them, and each worker enters and leaves once.
    """
    n_out = BLOCK_BYTE / BLOCK / FORMAT_BYTE[format]
    n_block = np.ceil(m_l / n_out) * np.ceil(k_l / BLOCK)
    load = BLOCK_BYTE / machine.load_interleaved_byte_per_cycle
    per_column = BLOCK * n_out / machine.mac_per_cycle[format]
    columns = PIPELINE_COLUMN + np.ceil(n_l / machine.n_worker)
    stream = machine.held_block_cycle + per_column * columns
    return n_block * (load + machine.n_worker * stream)


def _splits(
    batch: int, m: int, n: int, k: int, n_tile: int
) -> tuple[Array, Array, Array, Array, Array]:
    """Return arrays of splits (batch, m, n, k, serial) whose product stays within `n_tile`."""
    batches = _some(1, min(batch, n_tile), 4 if batch > 1 else 1)
    ms = _some(1, min(-(-m // BLOCK), n_tile), N_SPLIT)
    ns = _some(1, min(n, n_tile), N_SPLIT)
    p_batch, p_m, p_n = (a.ravel() for a in np.meshgrid(batches, ms, ns, indexing="ij"))
    inside = p_batch * p_m * p_n <= n_tile
    p_batch, p_m, p_n = p_batch[inside], p_m[inside], p_n[inside]
    k_most = np.clip(n_tile // (p_batch * p_m * p_n), 1, max(1, -(-k // BLOCK)))
    columns = [np.stack([p_batch, p_m, p_n, np.maximum(1, k_most // f)]) for f in (1, 2, 4, 8)]
    columns += [np.stack([p_batch, p_m, p_n, np.ones_like(p_m)])]
    grid = np.unique(np.concatenate(columns, axis=1), axis=1).astype(np.float64)
    repeat = [
        np.concatenate([grid, np.full((1, grid.shape[1]), float(s))])[:, np.ceil(n / grid[2]) >= s]
        for s in SERIAL
    ]
    b, p, q, r, s = np.concatenate(repeat, axis=1)
    return b, p, q, r, s


def _some(low: int, high: int, count: int) -> Array:
    """Return about `count` whole numbers from `low` to `high`, evenly spaced in their logarithm."""
    return np.unique(np.rint(np.geomspace(low, high, count)))
