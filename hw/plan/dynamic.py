"""Products with a dynamic block-sparse matrix: only a bound on its density is known when planning.

Tiles form a grid over rows, columns and the dense operand's columns. Each holds a bucket of equal
size, larger than the mean share of the live blocks by a slack; blocks that find their bucket full
spill into later ones, and buckets then travel around the grid, one step at a time, until each
block has met its rows and columns. The vendor's planner (poplibs, lib/popsparse/FullyConnected.cpp
and SparsePartitionerImpl.cpp) charges nothing for these steps; here they are counted on the
pattern, or on a random one where only the number of blocks is known, and charged.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw.item import ItemCost, joined
from hw.machine import TileMachine
from hw.plan.dense import vertex_cycles
from hw.plan.formats import compute_format, stored_byte, substitutes
from hw.plan.phases import Array, Candidates
from hw.plan.sparse_vertex import block_cycles, evened
from hw.work import SparseContraction

#: Oversize of a bucket (poplibs, metaInfoBucketOversizeProportion).
SLACK = 0.3
#: Candidates whose propagation steps are counted at a time.
N_COUNTED = 12
#: Serial steps that the dense columns are cut into where memory binds.
SERIAL = (2, 4, 8, 16, 32, 64, 128, 256)
#: Bytes of position data for each live block (two 16-bit words).
META_BYTE = 4
#: Supervisor cycles to test and enter one sub-group of a bucket (poplibs: 26 to 46).
GROUP_CYCLE = 40
#: Partial sums are fp32 (poplibs, popsparse default).
PARTIAL_BYTE = 4
#: Seed of the random pattern that stands for an unknown one.
PATTERN_SEED = 0


def plan_dynamic(item: SparseContraction, machine: TileMachine) -> ItemCost:
    """Return the cost of the quickest grid for a dynamic block-sparse product that fits.

    Where none fits, the dense columns pass in serial steps, as few as make one fit.
    """
    shares = column_shares(item, machine)
    costs = [choose_dynamic(replace(item, n=n), machine)[1] for n in dict.fromkeys(shares)]
    if len(shares) == 1:
        return costs[0]
    steps = [costs[0]] * (len(shares) - 1) + [costs[-1]]
    text = f"{costs[0].plan}, {len(shares)} serial steps of the dense columns"
    return replace(joined(steps), plan=text, binds="memory")


def column_shares(item: SparseContraction, machine: TileMachine) -> list[int]:
    """Return the dense columns of each serial step: as few steps as let their grids fit.

    All of them in one where no number of steps helps.
    """
    if choose_dynamic(item, machine)[1].fits:
        return [item.n]
    for n_step in SERIAL:
        share = math.ceil(item.n / n_step)
        if share * (n_step // 2) >= item.n:
            break
        if choose_dynamic(replace(item, n=share), machine)[1].fits:
            n_full, rest = divmod(item.n, share)
            return [share] * n_full + [rest] * (rest > 0)
    return [item.n]


def choose_dynamic(
    item: SparseContraction, machine: TileMachine
) -> tuple[tuple[int, int, int], ItemCost]:
    """Return the quickest grid (rows, columns, dense columns) that fits, and its cost."""
    br, bc = item.block
    grid = _grids(-(-item.rows // br), -(-item.cols // bc), item.n, machine.n_tile)
    c = _candidates(item, machine, grid, np.zeros(grid[0].size))
    bound = machine.temporary_fraction * machine.tile_memory_byte
    outside = c.temporary_byte > bound
    rank = np.where(outside, c.temporary_byte, c.rank())
    order = np.lexsort((rank, outside))
    counted, best = [], math.inf
    for start in range(0, order.size, N_COUNTED):
        # Steps only add: behind a grid that is worse without any, none is better.
        if start and (outside[order[start]] or rank[order[start]] >= best):
            break
        some = order[start : start + N_COUNTED]
        part = (grid[0][some], grid[1][some], grid[2][some])
        counted.append([
            propagation_steps(_bucket_counts(item, int(x), int(y)))
            for x, y in zip(*part[:2], strict=True)
        ])  # fmt: skip
        whole = _candidates(item, machine, part, np.array(counted[-1], dtype=np.float64))
        best = min(best, *whole.rank()[~outside[some]], math.inf)
    steps = np.array([n for some in counted for n in some], dtype=np.float64)
    kept = order[: steps.size]
    grid = (grid[0][kept], grid[1][kept], grid[2][kept])
    c = _candidates(item, machine, grid, steps)
    note = substitutes(machine, item.weight_format, item.dense_format, item.out_format)

    def words(index: int) -> str:
        p_x, p_y, p_z = (int(p[index]) for p in grid)
        text = f"dynamic, grid {p_x} rows x {p_y} columns x {p_z}, "
        return text + f"{int(steps[index])} propagation steps{note}"

    best = c.choose()[0]
    chosen = (int(grid[0][best]), int(grid[1][best]), int(grid[2][best]))
    return chosen, c.best_cost(words, n_mac=item.n_mac)


def propagation_steps(count: NDArray[np.int64]) -> int:
    """Return how many steps the buckets must travel until every spilled block is home.

    Parameters
    ----------
    count : NDArray, int64 [bucket]
        Live blocks that belong to each bucket, in the order in which buckets travel.

    Notes
    -----
    A bucket holds ``ceil((1 + SLACK) * mean)`` blocks. What does not fit moves to the next bucket
    with room; the longest such run of full buckets is the number of steps.
    """
    capacity = bucket_size(int(count.sum()), count.size)
    excess = np.cumsum(np.concatenate([count, count]) - capacity)
    carry = excess - np.minimum.accumulate(np.concatenate([[0], excess]))[1:]
    spilling = carry > 0
    rest = np.arange(spilling.size)
    last_free = np.maximum.accumulate(np.where(spilling, -1, rest))
    return int((rest - last_free).max())


def bucket_size(n_block: int, n_bucket: Any) -> Any:
    """Return the blocks that a bucket has room for; of an array of bucket numbers, an array."""
    return np.ceil((1 + SLACK) * n_block / n_bucket)


def home(item: SparseContraction, p_x: int, p_y: int) -> NDArray[np.int64]:
    """Return the bucket that each block of a real pattern belongs to."""
    assert item.row_index is not None
    assert item.col_index is not None
    n_row, n_col = -(-item.rows // item.block[0]), -(-item.cols // item.block[1])
    return (item.row_index * p_x // n_row) * p_y + item.col_index * p_y // n_col


def _bucket_counts(item: SparseContraction, p_x: int, p_y: int) -> NDArray[np.int64]:
    """Return live blocks by bucket, on the real pattern or on a random one."""
    if item.row_index is None or item.col_index is None:
        generator = np.random.default_rng(PATTERN_SEED)
        return generator.multinomial(item.n_block, np.full(p_x * p_y, 1 / (p_x * p_y)))
    return np.bincount(home(item, p_x, p_y), minlength=p_x * p_y)


def _candidates(
    item: SparseContraction, machine: TileMachine, grid: tuple[Array, Array, Array], steps: Array
) -> Candidates:
    p_x, p_y, p_z = grid
    rows, cols, (br, bc) = item.rows, item.cols, item.block
    if item.product == "spmm_t":
        rows, cols, br, bc, p_x, p_y = cols, rows, bc, br, p_y, p_x
    format = compute_format(machine, item.weight_format, item.dense_format)
    dense_byte = stored_byte(machine, item.dense_format)
    partial_byte = PARTIAL_BYTE
    n_l = np.ceil(item.n / p_z)
    capacity = bucket_size(item.n_block, p_x * p_y)
    bucket = capacity * (br * bc * stored_byte(machine, item.weight_format) + META_BYTE)
    c = Candidates(machine, p_x.size)
    c.n_tile = p_x * p_y * p_z

    c.compute("start", machine.product_start_cycle, part="launch")
    gathered = np.ceil(np.ceil(cols / bc) / p_y) * bc * n_l * dense_byte
    c.exchange("dense rows to the tiles", gathered, gathered * c.n_tile)
    # the owner of a bucket sends it to one tile after the other: the receivers' addresses are
    # not known when the exchange is planned, so that nothing can be multicast
    c.exchange("buckets to the tiles", bucket * (p_z - 1), bucket * p_x * p_y * (p_z - 1))
    held = np.ceil(np.ceil(rows / br) / p_x) * br
    partial = held * n_l * partial_byte
    traffic = machine.load_interleaved_byte_per_cycle + machine.store_byte_per_cycle
    c.compute(
        "zero the partial sums",
        partial / machine.store_byte_per_cycle,
        local_byte=partial * c.n_tile,
    )
    rows_l = np.minimum(np.ceil(rows / br / p_x), capacity)
    cycles = block_cycles(machine, format, (br, bc), evened(capacity, rows_l), rows_l, n_l)
    one = block_cycles(machine, format, (br, bc), np.ones(c.n), np.ones(c.n), n_l)
    c.compute(
        "products",
        machine.sparse_vertex_factor * (GROUP_CYCLE + cycles),
        local_byte=item.n_mac / machine.mac_per_cycle[format] * traffic,
        pj=item.n_mac * machine.mac_pj[format],
    )
    c.exchange("propagation", steps * bucket, steps * bucket * c.n_tile, n_phase=steps)
    c.compute("propagated blocks", steps * (GROUP_CYCLE + one))
    reduced = np.ceil(held / p_y) * n_l * partial_byte
    c.exchange(
        "partial sums",
        reduced * (p_y - 1),
        reduced * (p_y - 1) * c.n_tile,
        n_fragment=p_y,
    )
    c.compute(
        "reduction",
        np.where(
            p_y > 1, reduced * p_y / machine.load_byte_per_cycle + vertex_cycles(machine), 0.0
        ),
        local_byte=np.where(p_y > 1, rows * item.n * partial_byte * (p_y + 1), 0.0),
        pj=rows * item.n * (p_y - 1) * machine.vector_pj[format],
    )
    c.temporary_byte = gathered + 3 * bucket + partial + reduced * (p_y > 1)
    return c


def _grids(n_row: int, n_col: int, n: int, n_tile: int) -> tuple[Array, Array, Array]:
    """Return grids (rows, columns, batch) that use at most `n_tile` tiles."""
    xs = np.unique(np.rint(np.geomspace(1, min(n_row, n_tile), 30)))
    zs = np.unique(np.rint(np.geomspace(1, min(n, 64), 12)))
    p_x, p_z = (a.ravel() for a in np.meshgrid(xs, zs, indexing="ij"))
    inside = p_x * p_z <= n_tile
    p_x, p_z = p_x[inside], p_z[inside]
    most = np.clip(n_tile // (p_x * p_z), 1, n_col)
    grids = [np.stack([p_x, np.maximum(1, most // f), p_z]) for f in (1, 2, 4, 8, 16)]
    x, y, z = np.unique(np.concatenate(grids, axis=1), axis=1)
    return x, y, z
