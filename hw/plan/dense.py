"""Dense products on a tile machine: split m, n, k and the batch over the tiles.

One operand (m x k) is held: its blocks are loaded as weights into the matrix unit, one after the
other. The columns of the other operand (k x n) stream through, six workers in turn. The larger
operand is held; if they are of a kind, both ways are tried. Terms follow the published planner of
the vendor (poplibs, lib/poplin/ConvModel.cpp), plus what that planner leaves out: a sync per
exchange, the workers' entry for each block, and the start of the whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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


@dataclass(frozen=True)
class DensePlan:
    """How a dense product is spread: `p_batch` x `p_m` x `p_n` x `p_k` tiles, shares balanced.

    ``m`` belongs to the held operand, ``n`` to the one whose columns stream (exchanged when
    `swapped`). Each tile's columns pass in steps of `step_column`, the last step taking the rest.
    """

    swapped: bool
    p_batch: int
    p_m: int
    p_n: int
    p_k: int
    step_column: int
    n_step: int

    def __str__(self) -> str:
        text = f"split m {self.p_m}, n {self.p_n}, k {self.p_k}"
        text += f", batch {self.p_batch}" if self.p_batch > 1 else ""
        text += f", {self.n_step} serial steps" if self.n_step > 1 else ""
        return text + (", operands swapped" if self.swapped else "")


def plan_contraction(item: Contraction, machine: TileMachine) -> ItemCost:
    """Return the cost of the quickest spread of a dense product that fits."""
    return choose_dense(item, machine)[1]


def choose_dense(item: Contraction, machine: TileMachine) -> tuple[DensePlan, ItemCost]:
    """Return the quickest spread of a dense product that fits, and its cost."""
    ranked: list[tuple[float, Candidates, int, bool, bool, DensePlan]] = []
    for swapped in (False, True):
        held, other = (item.n, item.m) if swapped else (item.m, item.n)
        if held < min(other, HELD_LEAST) and (item.split is None or swapped):
            continue
        candidates, splits = dense_candidates(item, machine, swapped=swapped)
        winner, fits, memory_binds = candidates.choose()
        by = candidates.rank()
        for i in (winner, candidates.second(winner)):
            if i is not None:
                plan = DensePlan(swapped, *(int(a[i]) for a in splits))
                rank = float(by[i]) + (0.0 if fits else np.inf)
                ranked.append((rank, candidates, i, fits, memory_binds, plan))
    ranked.sort(key=lambda entry: entry[0])
    (_, candidates, winner, fits, memory_binds, plan), *others = ranked
    text = str(plan) + substitutes(machine, item.a_format, item.b_format, item.out_format)
    return plan, candidates.item_cost(
        winner,
        n_mac=item.n_mac,
        plan=text,
        fits=fits,
        memory_binds=memory_binds,
        runner_up=(str(others[0][5]), float(others[0][1].cycles()[others[0][2]]))
        if others and others[0][3]
        else None,
    )


def dense_candidates(
    item: Contraction, machine: TileMachine, *, swapped: bool
) -> tuple[Candidates, tuple[Array, Array, Array, Array, Array, Array]]:
    """Return all candidate spreads and what a `DensePlan` holds of each.

    `swapped` streams the columns of A through blocks of B instead. Charged is the tile with the
    largest share. What several tiles need is held in equal pieces among them.
    """
    m, n = (item.n, item.m) if swapped else (item.m, item.n)
    a_format = item.b_format if swapped else item.a_format
    b_format = item.a_format if swapped else item.b_format
    k, batch = item.k, item.batch
    p_batch, p_m, p_n, p_k, serial = _splits(batch, m, n, k, machine.n_tile)
    if item.split is not None:
        p_m, p_n, p_k = (np.full(len(SERIAL), float(p)) for p in item.split)
        if swapped:
            p_m, p_n = p_n, p_m
        p_batch, serial = np.ones(len(SERIAL)), np.array(SERIAL, dtype=np.float64)
    format = compute_format(machine, item.a_format, item.b_format)
    a_byte, b_byte = stored_byte(machine, a_format), stored_byte(machine, b_format)
    if swapped:
        a_byte /= item.window
    else:
        b_byte /= item.window
    partial_byte = stored_byte(machine, format)

    batch_l = np.ceil(batch / p_batch)
    m_l, k_l, column = np.ceil(m / p_m), np.ceil(k / p_k), np.ceil(n / p_n)
    n_l = np.ceil(column / serial)
    n_full, rest = np.floor(column / n_l), column % n_l
    n_step = n_full + (rest > 0)
    n_tile = p_batch * p_m * p_n * p_k

    def over_steps(of_columns: Callable[[Array], Array]) -> Array:
        total: Array = n_full * of_columns(n_l) + np.where(rest > 0, of_columns(rest), 0.0)
        return total

    def reduced(columns: Array) -> Array:
        """Return the results whose partial sums one tile adds up."""
        share: Array = np.ceil(batch_l * m_l * columns / p_k)
        return share

    c = Candidates(machine, p_m.size)
    c.n_tile = n_tile
    vertex = vertex_cycles(machine)
    c.compute("start", machine.product_start_cycle, part="launch")
    c.exchange(
        "weights to the tiles",
        received(batch_l * m_l * k_l, p_n) * a_byte,
        batch * m * k * a_byte * (p_n - 1),
        shared=p_n % 2 == 0,
    )
    c.exchange(
        "inputs to the tiles",
        over_steps(lambda columns: received(batch_l * k_l * columns, p_m)) * b_byte,
        batch * n * k * b_byte * (p_m - 1),
        shared=p_m % 2 == 0,
        n_phase=n_step,
    )
    width = machine.load_interleaved_byte_per_cycle
    c.compute(
        "arrange the inputs",
        over_steps(lambda columns: vertex + batch_l * k_l * columns * b_byte / width),
        local_byte=2 * batch_l * k_l * column * b_byte * n_tile,
        part="move",
    )
    traffic = machine.load_interleaved_byte_per_cycle + machine.store_byte_per_cycle
    mac = batch * m * k * n
    c.compute(
        "products",
        over_steps(
            lambda columns: vertex + batch_l * matrix_cycles(machine, format, m_l, k_l, columns)
        ),
        local_byte=mac / machine.mac_per_cycle[format] * traffic,
        pj=mac * machine.mac_pj[format],
    )
    reduces = p_k > 1
    n_out = batch * m * n
    c.exchange(
        "partial sums",
        over_steps(reduced) * (p_k - 1) * partial_byte,
        n_out * partial_byte * (p_k - 1),
        n_phase=n_step,
        n_fragment=p_k - 1,
    )
    width = machine.load_byte_per_cycle
    c.compute(
        "reduction",
        np.where(
            reduces,
            over_steps(lambda columns: vertex + reduced(columns) * p_k * partial_byte / width),
            0.0,
        ),
        local_byte=np.where(reduces, n_out * partial_byte * (p_k + 1), 0.0),
        pj=n_out * (p_k - 1) * machine.vector_pj[format],
    )
    c.compute(
        "arrange the result",
        over_steps(lambda columns: vertex + reduced(columns) * partial_byte / width),
        local_byte=2 * n_out * partial_byte,
        part="move",
    )
    a_tile, b_tile = batch_l * m_l * k_l * a_byte, batch_l * k_l * n_l * b_byte
    out_tile = batch_l * m_l * n_l * partial_byte
    c.temporary_byte = (
        np.where(p_n > 1, a_tile, 0.0) + np.where(p_m > 1, b_tile, 0.0) + out_tile * (1 + reduces)
    )
    return c, (p_batch, p_m, p_n, p_k, n_l, n_step)


def received(n_entry: Array, n_holder: Array) -> Array:
    """Return the entries that the tile with the smallest piece of a shared block receives."""
    missing: Array = n_entry - np.floor(n_entry / n_holder)
    return missing


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
