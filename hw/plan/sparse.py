"""Products with a static block-sparse matrix: the pattern is known when the plan is made.

Columns of the matrix are cut into bands with equal numbers of live blocks; the tiles of a band
take its rows in order, each the same number of blocks. The dense operand's columns are split too.
Scheme and vertex cycles follow poplibs, lib/popsparse/StaticMatMulPartitioner.cpp; the number of
distinct rows and columns that a tile touches is counted on the real pattern where there is one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hw.item import ItemCost
from hw.machine import TileMachine
from hw.plan.dense import matrix_cycles, vertex_cycles
from hw.plan.formats import compute_format, stored_byte, substitutes
from hw.plan.phases import Array, Candidates
from hw.work import SparseContraction

#: Splits searched, as in the vendor's planner.
N_DENSE_SPLIT, N_BAND = 32, 128
#: Candidates whose distinct rows and columns are counted on the real pattern.
N_COUNTED = 4


def plan_static(item: SparseContraction, machine: TileMachine) -> ItemCost:
    """Return the cost of the quickest spread of a static block-sparse product that fits."""
    rows, cols, (br, bc) = _oriented(item)
    n_block_row, n_block_col = -(-rows // br), -(-cols // bc)
    p_n, p_k = _splits(item.n, n_block_col, item.n_block, machine.n_tile)
    tiles = np.floor(machine.n_tile / (p_n * p_k))
    blocks = np.ceil(item.n_block / (p_k * tiles))
    distinct_col = _expected_distinct(n_block_col / p_k, blocks)
    distinct_row = np.minimum(np.minimum(n_block_row / tiles + 1, n_block_row), blocks)
    c = _candidates(item, machine, p_n, p_k, blocks, distinct_row, distinct_col)
    if item.row_index is not None and item.col_index is not None:
        row, col = item.row_index, item.col_index
        if item.product == "spmm_t":
            row, col = col, row
        bound = machine.temporary_fraction * machine.tile_memory_byte
        rank = np.where(c.temporary_byte <= bound, 0.0, 1e12) + c.cycles()
        kept = np.argsort(rank, kind="stable")[:N_COUNTED]
        p_n, p_k, tiles = p_n[kept], p_k[kept], tiles[kept]
        counts = [
            count_on_pattern(row, col, int(k), int(q)) for k, q in zip(p_k, tiles, strict=True)
        ]
        blocks, distinct_row, distinct_col = np.array(counts, dtype=np.float64).T
        c = _candidates(item, machine, p_n, p_k, blocks, distinct_row, distinct_col)
    winner, fits, memory_binds = c.choose()
    text = f"static, {int(p_k[winner])} column bands, n split {int(p_n[winner])}"
    text += f", {int(blocks[winner])} blocks a tile"
    text += substitutes(machine, item.weight_format, item.dense_format, item.out_format)
    return c.item_cost(winner, n_mac=item.n_mac, plan=text, fits=fits, memory_binds=memory_binds)


def count_on_pattern(
    row_index: NDArray[np.int64], col_index: NDArray[np.int64], n_band: int, n_tile: int
) -> tuple[int, int, int]:
    """Return the most blocks, distinct block rows and distinct block columns on any tile.

    Parameters
    ----------
    row_index, col_index : NDArray, int64 [block]
        Coordinates of the live blocks.
    n_band : int
        Column bands, cut so that each holds nearly the same number of live blocks.
    n_tile : int
        Tiles per band; each takes an equal run of the band's blocks in row order.
    """
    n_block = row_index.size
    if n_block == 0:
        return 0, 0, 0
    by_col = np.bincount(col_index)
    before = np.cumsum(by_col) - by_col
    band_of_col = np.minimum(before * n_band // n_block, n_band - 1)
    band = band_of_col[col_index]
    order = np.lexsort((col_index, row_index, band))
    band, row, col = band[order], row_index[order], col_index[order]
    in_band = np.bincount(band, minlength=n_band)
    start = np.cumsum(in_band) - in_band
    share = -(-in_band // n_tile)
    tile = band * n_tile + (np.arange(n_block) - start[band]) // np.maximum(share, 1)[band]

    def most_distinct(index: NDArray[np.int64]) -> int:
        pairs = np.unique(tile * (int(index.max()) + 1) + index)
        return int(np.bincount(pairs // (int(index.max()) + 1)).max())

    return int(np.bincount(tile).max()), most_distinct(row), most_distinct(col)


def block_cycles(machine: TileMachine, format: str, block: tuple[int, int], n_l: Array) -> Array:
    """Return a tile's cycles for one live block against `n_l` columns.

    Single entries run on the vector unit: three cycles for each group of columns that one access
    holds twice over, the six workers in turn. Blocks run on the matrix unit; smaller ones than
    16 fill it only partly. Source: poplibs, StaticMatMulPartitioner.cpp.
    """
    br, bc = block
    n_worker = machine.n_worker
    byte = 2 if machine.mac_per_cycle[format] > machine.mac_per_cycle.get("fp32", 0) else 4
    if br * bc == 1:
        group = 16 / byte
        return 3 * np.ceil(n_l / group)
    b = 4 if min(br, bc) < 8 else 8 if min(br, bc) < 16 else 16
    n_part = np.ceil(br / b) * np.ceil(bc / b)
    per_column = {4: 1, 8: 2, 16: 4}[b] * byte / 2
    entry = {4: 13, 8: 12, 16: 15}[b]
    load = 16 + b * b * byte / machine.load_byte_per_cycle
    streams = np.ceil(n_l / n_worker)
    cycles: Array = n_part * (load + n_worker * (entry + per_column * streams))
    return cycles


def _oriented(item: SparseContraction) -> tuple[int, int, tuple[int, int]]:
    """Return rows, columns and block of the matrix as it acts (transposed for ``spmm_t``)."""
    if item.product == "spmm_t":
        return item.cols, item.rows, (item.block[1], item.block[0])
    return item.rows, item.cols, item.block


def _candidates(
    item: SparseContraction,
    machine: TileMachine,
    p_n: Array,
    p_k: Array,
    blocks: Array,
    distinct_row: Array,
    distinct_col: Array,
) -> Candidates:
    rows, cols, (br, bc) = _oriented(item)
    format = compute_format(machine, item.weight_format, item.dense_format)
    weight_byte = stored_byte(machine, item.weight_format)
    dense_byte = stored_byte(machine, item.dense_format)
    partial_byte = stored_byte(machine, format)
    tiles = np.floor(machine.n_tile / (p_n * p_k))
    n_l = np.ceil(item.n / p_n)
    n_used = p_n * p_k * tiles
    c = Candidates(machine, p_n.size)
    c.n_tile = n_used
    block_col_band = cols / bc / p_k

    gathered = distinct_col * bc * n_l * dense_byte
    c.exchange(
        "dense rows to the tiles",
        gathered,
        gathered * n_used,
        shared=np.clip(2 * distinct_col / block_col_band - 1, 0, 1),
        n_fragment=distinct_col,
    )
    values = blocks * br * bc * weight_byte
    if item.product == "sddmm":
        other = distinct_row * br * n_l * dense_byte
        c.exchange("gradient rows to the tiles", other, other * n_used, n_fragment=distinct_row)
        out_tile = values
        one = matrix_cycles(machine, format, np.asarray(bc), n_l, np.asarray(float(br)))
        c.compute("products", vertex_cycles(machine) + blocks * one, **_work(item, machine, format))
        c.exchange(
            "partial sums",
            out_tile * (1 - 1 / p_n),
            item.n_block * br * bc * weight_byte * (p_n - 1),
        )
        c.compute("reduction", np.where(p_n > 1, out_tile / machine.load_byte_per_cycle, 0.0))
        c.temporary_byte = gathered + other + out_tile * (p_n > 1)
        return c
    c.exchange(
        "non-zero blocks to the tiles",
        np.where(p_n > 1, values * (1 - 1 / p_n), 0.0),
        item.n_block * br * bc * weight_byte * (p_n - 1),
    )
    partial = distinct_row * br * n_l * partial_byte
    zero = partial / machine.store_byte_per_cycle
    c.compute("zero the partial sums", zero, local_byte=partial * n_used)
    one = block_cycles(machine, format, (br, bc), n_l)
    c.compute("products", vertex_cycles(machine) + blocks * one, **_work(item, machine, format))
    reduced = rows / tiles * n_l * partial_byte
    c.exchange(
        "partial sums",
        reduced * (1 - 1 / p_k),
        rows * item.n * partial_byte * (p_k - 1),
        n_fragment=p_k,
    )
    c.compute(
        "reduction",
        np.where(p_k > 1, reduced / machine.load_byte_per_cycle + vertex_cycles(machine), 0.0),
        local_byte=np.where(p_k > 1, rows * item.n * partial_byte * (p_k + 1), 0.0),
        pj=rows * item.n * (p_k - 1) * machine.vector_pj[format],
    )
    out = rows * item.n * stored_byte(machine, item.out_format)
    c.exchange("result to its place", out / n_used, out)
    c.temporary_byte = gathered + np.where(p_n > 1, values, 0.0) + partial + reduced * (p_k > 1)
    return c


def _work(item: SparseContraction, machine: TileMachine, format: str) -> dict[str, float]:
    """Tile memory traffic and arithmetic energy of the products."""
    traffic = machine.load_interleaved_byte_per_cycle + machine.store_byte_per_cycle
    return {
        "local_byte": item.n_mac / machine.mac_per_cycle[format] * traffic,
        "pj": item.n_mac * machine.mac_pj[format],
    }


def _splits(n: int, n_block_col: int, n_block: int, n_tile: int) -> tuple[Array, Array]:
    """Return all pairs of splits of the dense columns and of the matrix columns."""
    ns = np.arange(1, min(n, N_DENSE_SPLIT) + 1)
    bands = np.arange(1, min(n_block_col, N_BAND, max(n_block, 1)) + 1)
    p_n, p_k = (a.ravel().astype(np.float64) for a in np.meshgrid(ns, bands, indexing="ij"))
    inside = p_n * p_k <= n_tile
    return p_n[inside], p_k[inside]


def _expected_distinct(n_bin: Array, n_ball: Array) -> Array:
    """Return how many of `n_bin` bins `n_ball` balls hit at random, plus one deviation."""
    n_bin = np.maximum(n_bin, 1.0)
    miss = (1 - 1 / n_bin) ** n_ball
    mean = n_bin * (1 - miss)
    deviation = np.sqrt(np.maximum(n_bin * miss * (1 - miss), 0.0))
    distinct: Array = np.minimum(np.minimum(mean + deviation, n_bin), n_ball)
    return distinct
