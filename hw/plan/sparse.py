"""Products with a static block-sparse matrix: the pattern is known when the plan is made.

Columns of the matrix are cut into bands with equal numbers of live blocks; the tiles of a band
take its rows in order, each the same number of blocks. The dense operand's columns are split too.
Search, ranking and vertex cycles follow poplibs, lib/popsparse/StaticMatMulPartitioner.cpp: it
ranks a gather of few rows out of a band as if the whole band were sent, and knows no syncs. The
plan is chosen by that ranking, as the compiler does, and then charged with all its costs; blocks,
rows and columns per tile are counted on the real pattern where there is one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hw.formats import FORMAT_BYTE
from hw.item import ItemCost
from hw.machine import TileMachine
from hw.plan.dense import matrix_cycles, vertex_cycles
from hw.plan.formats import compute_format, stored_byte, substitutes
from hw.plan.phases import Array, Candidates
from hw.work import SparseContraction

#: Splits searched, as in the vendor's planner.
N_DENSE_SPLIT, N_BAND = 32, 128
#: Tiles that share an exchange bus are given out together.
TILE_GRAIN = 2
#: Bytes that say where one live block lies (a 16-bit offset).
META_BYTE = 2
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


@dataclass(frozen=True)
class Spread:
    """Candidate spreads over the tiles, one entry of each array for each candidate.

    `n_split` splits of the dense columns, `n_band` column bands, `n_tile` tiles for each band and
    split; on the fullest tile: dense columns `n_l`, live blocks, block rows, and block columns of
    its band.
    """

    n_split: Array
    n_band: Array
    n_tile: Array
    n_l: Array
    block: Array
    row: Array
    col: Array
    n_partial: Array
    """Tiles that hold a partial sum of the same row."""

    def take(self, index: int) -> Spread:
        """Return one candidate alone."""
        values = {key: value[index : index + 1] for key, value in vars(self).items()}
        return Spread(**values)


def plan_static(item: SparseContraction, machine: TileMachine) -> ItemCost:
    """Return the cost of the spread of a static block-sparse product that its compiler picks."""
    spread = _expected_spreads(item, machine)
    c = _charge(item, machine, spread)
    winner, fits, memory_binds = c.choose(_vendor_rank(c))
    text = (
        f"static, {int(spread.n_band[winner])} column bands, n split {int(spread.n_split[winner])}"
    )
    if item.row_index is not None and item.col_index is not None:
        row, col = item.row_index, item.col_index
        if item.product == "spmm_t":
            row, col = col, row
        spread = spread.take(winner)
        counts = count_on_pattern(row, col, int(spread.n_band[0]), int(spread.n_tile[0]))
        counted = [np.array([float(count)]) for count in counts]
        spread = Spread(
            spread.n_split,
            spread.n_band,
            spread.n_tile,
            spread.n_l,
            *counted,
        )
        c, winner = _charge(item, machine, spread), 0
        fits = fits and bool(c.temporary_byte[0] <= c.memory_bound())
    text += f", {int(spread.block[winner])} blocks a tile"
    text += substitutes(machine, item.weight_format, item.dense_format, item.out_format)
    return c.item_cost(winner, n_mac=item.n_mac, plan=text, fits=fits, memory_binds=memory_binds)


def count_on_pattern(
    row_index: NDArray[np.int64], col_index: NDArray[np.int64], n_band: int, n_tile: int
) -> tuple[int, int, int, int]:
    """Count a real pattern as it is spread over bands and tiles.

    Parameters
    ----------
    row_index, col_index : NDArray, int64 [block]
        Coordinates of the live blocks.
    n_band : int
        Column bands, cut so that each holds nearly the same number of live blocks.
    n_tile : int
        Tiles per band; each takes an equal run of the band's blocks in row order.

    Returns
    -------
    tuple of int
        Most blocks and most distinct block rows on a tile, most live block columns in a band,
        most tiles that hold a part of the same row.
    """
    n_block = row_index.size
    if n_block == 0:
        return 0, 0, 0, 1
    by_col = np.bincount(col_index)
    before = np.cumsum(by_col) - by_col
    band_of_col = np.minimum(before * n_band // n_block, n_band - 1)
    band = band_of_col[col_index]
    order = np.lexsort((col_index, row_index, band))
    band, row = band[order], row_index[order]
    in_band = np.bincount(band, minlength=n_band)
    start = np.cumsum(in_band) - in_band
    share = np.maximum(-(-in_band // n_tile), 1)
    tile = band * n_tile + (np.arange(n_block) - start[band]) // share[band]
    n_row = int(row.max()) + 1
    pairs = np.unique(tile * n_row + row)
    return (
        int(np.bincount(tile).max()),
        int(np.bincount(pairs // n_row).max()),
        int(np.bincount(band_of_col[by_col > 0]).max()),
        int(np.bincount(pairs % n_row).max()),
    )


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
        others = np.maximum(np.ceil(n_block / rows) - 1, 0)
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
    n_block = rows * np.ceil(n_block / rows)
    return once + n_block * cover * (LIVE_BLOCK_CYCLE + load + columns)


def oriented(item: SparseContraction) -> tuple[int, int, tuple[int, int]]:
    """Return rows, columns and block of the matrix as it acts (transposed for ``spmm_t``)."""
    if item.product == "spmm_t":
        return item.cols, item.rows, (item.block[1], item.block[0])
    return item.rows, item.cols, item.block


def reduction_cycles(machine: TileMachine, n_out: Array, n_partial: Array) -> Array:
    """Return a tile's cycles to add `n_partial` partial sums into each of `n_out` results.

    Source: poplibs, StaticMatMulPartitioner.cpp, its estimate for strided reduction.
    """
    vector = 8
    loops = np.ceil(np.ceil(n_out / machine.n_worker) / vector)
    cycles: Array = machine.n_worker * (16 + loops * (14 + n_partial - 1))
    return np.where(n_partial > 1, cycles, 0.0)


def _expected_spreads(item: SparseContraction, machine: TileMachine) -> Spread:
    """Return all spreads, with the counts that a random pattern of the same density leads to."""
    rows, cols, (br, bc) = oriented(item)
    n_row, n_col = -(-rows // br), -(-cols // bc)
    density = min(item.n_block / (n_row * n_col), 1.0)
    grain = max(1, int(machine.load_byte_per_cycle / stored_byte(machine, item.dense_format)))
    n_grain = -(-item.n // grain)
    col_grain = 1 if (br, bc) == (1, 1) else grain
    bands = np.arange(1.0, min(-(-n_col // col_grain), N_BAND) + 1)
    choices = _dense_splits(n_grain, machine.n_tile)
    n_split, n_band = (a.ravel() for a in np.meshgrid(choices[:, 0], bands, indexing="ij"))
    n_l, tiles = (np.repeat(choices[:, i], bands.size) for i in (1, 2))
    n_tile = np.maximum(TILE_GRAIN * np.floor(np.floor(tiles / n_band) / TILE_GRAIN), 1)
    inside = n_split * n_band * n_tile <= machine.n_tile
    n_split, n_band, n_l, n_tile = (a[inside] for a in (n_split, n_band, n_l * grain, n_tile))
    band_block = np.maximum(item.n_block / n_band, 1e-9)
    block = np.ceil(band_block / n_tile)
    needed = TILE_GRAIN * np.ceil(np.ceil(band_block / block) / TILE_GRAIN)
    n_tile = np.minimum(n_tile, needed)
    block = np.ceil(band_block / n_tile)
    row = np.ceil(n_row / n_tile)
    band_col = np.ceil(n_col / n_band)
    col = np.where(row == 1, np.minimum(np.ceil(band_block / max(density, 1e-12)), n_col), band_col)
    hit_row, spread = _at_least_one(density, col)
    row = np.minimum(np.ceil(hit_row * row + spread(row)), row)
    n_partial = np.ceil((hit_row * n_band + spread(n_band)) * band_col / np.maximum(col, 1))
    return Spread(n_split, n_band, n_tile, n_l, block, row, col, np.maximum(n_partial, 1))


def _dense_splits(n_grain: int, n_tile: int) -> Array:
    """Return for each split of the dense columns: splits, grains in one, tiles for the worst one.

    Tiles are given out in pairs, rounded up, so that the last split may be left with few; a split
    that is left with none is no choice.
    """
    pairs = max(1, n_tile // TILE_GRAIN)
    choices = []
    for wanted in range(1, min(n_grain, N_DENSE_SPLIT) + 1):
        share = -(-n_grain // wanted)
        n_split = -(-n_grain // share)
        last_share = n_grain - (n_split - 1) * share
        given = max(-(-pairs // n_split), -(-pairs * share // (n_grain + 1)) - 1)
        last = pairs - (n_split - 1) * given
        if last > 0:
            worst = min(given, last) if last_share == share else given
            choices.append((n_split, share, min(TILE_GRAIN * worst, n_tile)))
    return np.array(sorted(set(choices)), dtype=np.float64)


def _at_least_one(density: float, n: Array):  # type: ignore[no-untyped-def]
    """Return the chance that at least one of `n` is live, and its deviation over `x` such draws."""
    p = 1 - (1 - density) ** n

    def deviation(x: Array) -> Array:
        result: Array = np.ceil(np.sqrt(np.maximum(p * (1 - p) * x, 0.0)))
        return result

    return p, deviation


def _vendor_rank(c: Candidates) -> Array:
    """Return the cycles by which the vendor's planner ranks: no start, no sync, no fragments."""
    rank = np.zeros(c.n)
    for phase in c.phases:
        if phase.part in ("compute", "exchange"):
            rank = rank + phase.cycles
    return rank


def _charge(item: SparseContraction, machine: TileMachine, s: Spread) -> Candidates:
    """Charge the phases of each spread."""
    rows, _, (br, bc) = oriented(item)
    format = compute_format(machine, item.weight_format, item.dense_format)
    weight_byte = stored_byte(machine, item.weight_format)
    dense_byte = stored_byte(machine, item.dense_format)
    partial_byte = stored_byte(machine, format)
    n_used = s.n_split * s.n_band * s.n_tile
    c = Candidates(machine, s.n_split.size)
    c.n_tile = n_used
    traffic = machine.load_interleaved_byte_per_cycle + machine.store_byte_per_cycle
    local_byte = item.n_mac / machine.mac_per_cycle[format] * traffic
    pj = item.n_mac * machine.mac_pj[format]
    c.compute("start", machine.product_start_cycle, part="launch")

    # the tiles of a band receive it together: each pair over its common bus
    gathered = s.col * bc * s.n_l * dense_byte
    c.exchange(
        "dense rows to the tiles",
        gathered,
        gathered * n_used,
        shared=1.0,
        n_fragment=np.minimum(s.col, s.block),
    )
    values = s.block * br * bc * weight_byte
    all_values = item.n_block * br * bc * weight_byte
    if item.product == "sddmm":
        other = s.row * br * s.n_l * dense_byte
        c.exchange("gradient rows to the tiles", other, other * n_used, n_fragment=s.row)
        one = matrix_cycles(machine, format, np.asarray(float(bc)), s.n_l, np.asarray(float(br)))
        cycles = machine.sparse_vertex_factor * (vertex_cycles(machine) + s.block * one)
        c.compute("products", cycles, local_byte=local_byte, pj=pj)
        c.exchange(
            "partial sums", values * (1 - 1 / s.n_split), all_values * (s.n_split - 1),
            n_fragment=s.n_split,
        )  # fmt: skip
        n_out = values / weight_byte / s.n_split
        c.compute("reduction", reduction_cycles(machine, n_out, s.n_split))
        c.temporary_byte = gathered + other + 2 * values * (s.n_split > 1)
        return c

    c.exchange(
        "live blocks to the tiles",
        np.where(s.n_split > 1, values, 0.0),
        all_values * (s.n_split - 1),
    )
    cycles = block_cycles(machine, format, (br, bc), s.block, s.row, s.n_l)
    c.compute("products", machine.sparse_vertex_factor * cycles, local_byte=local_byte, pj=pj)
    partial = s.row * br * s.n_l * partial_byte
    n_result = rows * item.n
    c.exchange(
        "partial sums",
        partial * (1 - 1 / s.n_partial),
        n_result * partial_byte * (s.n_partial - 1),
        n_fragment=4 * (s.n_partial - 1),
    )
    n_reduced = np.ceil(partial / partial_byte / s.n_partial)
    c.compute(
        "reduction",
        reduction_cycles(machine, n_reduced, s.n_partial),
        local_byte=np.where(s.n_partial > 1, n_result * partial_byte * (s.n_partial + 1), 0.0),
        pj=n_result * (s.n_partial - 1) * machine.vector_pj[format],
    )
    out = n_result * stored_byte(machine, item.out_format)
    c.exchange("result to its place", out / machine.n_tile, out)
    c.compute(
        "arrange the result",
        machine.scatter_cycle_per_byte * out / machine.n_tile,
        local_byte=2 * out,
        part="move",
    )
    position = META_BYTE * s.block
    c.temporary_byte = np.maximum(
        gathered + np.where(s.n_split > 1, values, 0.0) + position + partial,
        partial * (2 - 1 / s.n_partial),
    )
    return c
