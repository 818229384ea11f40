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

from hw.item import ItemCost
from hw.machine import TileMachine
from hw.plan.dense import matrix_cycles, vertex_cycles
from hw.plan.formats import compute_format, stored_byte, substitutes
from hw.plan.phases import Array, Candidates
from hw.plan.placement import Placement, live_share, place_blocks
from hw.plan.sparse_vertex import block_cycles, evened, placing_cycles, reduction_cycles
from hw.work import SparseContraction

#: Splits searched, as in the vendor's planner.
N_DENSE_SPLIT, N_BAND = 32, 128
#: Tiles that share an exchange bus are given out together.
TILE_GRAIN = 2
#: Bytes that say where one live block lies (a 16-bit offset).
META_BYTE = 2


@dataclass(frozen=True)
class Spread:
    """Candidate spreads over the tiles, one entry of each array for each candidate.

    `n_split` splits of the dense columns, `n_band` column bands, `n_tile` tiles for each band and
    split; on the fullest tile: dense columns `n_l`, live blocks, block rows, and block columns of
    its band; tiles that hold a partial sum of the same row, `n_partial`. In entries: live blocks
    `copied` from the first split, partial sums `taken` from other tiles and `added` up, results
    `placed`. The vertex runs through `run` blocks.
    """

    n_split: Array
    n_band: Array
    n_tile: Array
    n_l: Array
    block: Array
    run: Array
    row: Array
    col: Array
    n_partial: Array
    copied: Array
    taken: Array
    added: Array
    placed: Array


@dataclass(frozen=True)
class StaticPlan:
    """How a real pattern is spread: `n_split` runs of `n_l` dense columns, each on all blocks."""

    n_split: int
    n_l: int
    placement: Placement

    def columns(self, n: int) -> list[int]:
        """Return the columns of each split, the last one taking the rest of `n`."""
        return [min(self.n_l, n - i * self.n_l) for i in range(self.n_split)]


def plan_static(item: SparseContraction, machine: TileMachine) -> ItemCost:
    """Return the cost of the spread of a static block-sparse product that its compiler picks."""
    return choose_static(item, machine)[1]


def choose_static(
    item: SparseContraction, machine: TileMachine
) -> tuple[StaticPlan | None, ItemCost]:
    """Return the spread that the compiler picks and its cost; no spread without a real pattern."""
    spread = _expected_spreads(item, machine)
    c = _charge(item, machine, spread)
    rank = _vendor_rank(c) if machine.objective == "time" else c.rank()
    winner, fits, memory_binds = c.choose(rank)
    n_split, n_band = int(spread.n_split[winner]), int(spread.n_band[winner])
    text = _words(spread, winner)
    second = c.second(winner, rank)
    runner_up = None if second is None else (_words(spread, second), float(c.cycles()[second]))
    n_block = int(spread.block[winner])
    plan = None
    if item.row_index is not None and item.col_index is not None:
        row, col = item.row_index, item.col_index
        if item.product == "spmm_t":
            row, col = col, row
        placement = place_blocks(row, col, n_band, int(spread.n_tile[winner]))
        plan = StaticPlan(n_split, int(spread.n_l[winner]), placement)
        c, winner = _charge(item, machine, _on_tiles(item, machine, plan)).of_tiles(), 0
        c.n_tile = np.array([n_split * np.count_nonzero(placement.n_block)])
        fits = fits and bool(c.temporary_byte[0] <= c.memory_bound())
        n_block = int(placement.n_block.max())
    text += f", {n_block} blocks a tile"
    text += substitutes(machine, item.weight_format, item.dense_format, item.out_format)
    return plan, c.item_cost(
        winner,
        n_mac=item.n_mac,
        plan=text,
        fits=fits,
        memory_binds=memory_binds,
        runner_up=runner_up,
    )


def _words(spread: Spread, index: int) -> str:
    n_band, n_split = int(spread.n_band[index]), int(spread.n_split[index])
    return f"static, {n_band} column bands, n split {n_split}"


def dense_grain(item: SparseContraction, machine: TileMachine) -> int:
    """Return the dense columns that lie together in one access; rows are padded to whole ones."""
    return max(1, int(machine.load_byte_per_cycle / stored_byte(machine, item.dense_format)))


def _on_tiles(item: SparseContraction, machine: TileMachine, plan: StaticPlan) -> Spread:
    """Count a placed pattern on every tile of the machine, split by split."""
    rows, _, (br, bc) = oriented(item)
    placement, n_split = plan.placement, plan.n_split
    grain = dense_grain(item, machine)
    columns = plan.columns(-(-item.n // grain) * grain)

    def on_tiles(by_split: list[NDArray[np.int64]], idle: float = 0.0) -> Array:
        full = np.full(machine.n_tile, idle)
        used = np.concatenate(by_split)
        full[: used.size] = used
        return full

    if item.product == "sddmm":
        n_entry = placement.n_block * (br * bc)
        added = [n_entry // n_split + (i < n_entry % n_split) for i in range(n_split)]
        taken = [(n_split - 1) * run for run in added]
        if n_split == 1:
            added = taken
        placed = np.zeros(machine.n_tile)
    else:
        shares = [placement.shares(br * n_l) for n_l in columns]
        added, taken = [share[0] for share in shares], [share[1] for share in shares]
        is_live = np.zeros(-(-rows // br), dtype=bool)
        is_live[placement.row] = True
        is_live = np.repeat(is_live, br)[:rows]
        placed = live_share(is_live, item.n, machine.n_tile).astype(float)
    every = [placement.n_block] * n_split
    return Spread(
        n_split=np.full(machine.n_tile, float(n_split)),
        n_band=np.full(machine.n_tile, float(placement.n_band)),
        n_tile=np.full(machine.n_tile, float(placement.n_tile)),
        n_l=on_tiles([np.full(placement.n_slot, n_l) for n_l in columns]),
        block=on_tiles(every),
        run=on_tiles(every),
        row=on_tiles([placement.n_row] * n_split),
        col=on_tiles([placement.n_col] * n_split),
        n_partial=on_tiles([placement.n_partial] * n_split, idle=1.0),
        copied=on_tiles([0 * every[0], *every[1:]]) * (br * bc),
        taken=on_tiles(taken),
        added=on_tiles(added),
        placed=placed,
    )


def oriented(item: SparseContraction) -> tuple[int, int, tuple[int, int]]:
    """Return rows, columns and block of the matrix as it acts (transposed for ``spmm_t``)."""
    if item.product == "spmm_t":
        return item.cols, item.rows, (item.block[1], item.block[0])
    return item.rows, item.cols, item.block


def _expected_spreads(item: SparseContraction, machine: TileMachine) -> Spread:
    """Return all spreads, with the counts that a random pattern of the same density leads to."""
    rows, cols, (br, bc) = oriented(item)
    n_row, n_col = -(-rows // br), -(-cols // bc)
    density = min(item.n_block / (n_row * n_col), 1.0)
    grain = dense_grain(item, machine)
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
    n_partial = np.maximum(n_partial, 1)
    held = block * (br * bc)
    n_sum, n_add = (held, n_split) if item.product == "sddmm" else (row * br * n_l, n_partial)
    return Spread(
        *(n_split, n_band, n_tile, n_l, block, evened(block, row), row, col, n_partial),
        copied=np.where(n_split > 1, held, 0.0),
        taken=n_sum * (1 - 1 / n_add),
        added=np.ceil(n_sum / n_add),
        placed=np.full(n_split.size, np.ceil(rows * item.n / machine.n_tile)),
    )


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
    if item.product == "sddmm":
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
        cycles = np.where(s.block > 0, vertex_cycles(machine) + s.block * one, 0.0)
        cycles = machine.sparse_vertex_factor * cycles
        c.compute("products", cycles, local_byte=local_byte, pj=pj)
        c.exchange(
            "partial sums",
            s.taken * weight_byte,
            all_values * (s.n_split - 1),
            n_fragment=s.n_split - 1,
        )
        c.compute("reduction", reduction_cycles(machine, s.added, s.n_split))
        c.temporary_byte = gathered + other + 2 * values * (s.n_split > 1)
        return c

    c.exchange(
        "live blocks to the tiles",
        s.copied * weight_byte,
        all_values * (s.n_split - 1),
    )
    cycles = block_cycles(machine, format, (br, bc), s.run, s.row, s.n_l)
    cycles = np.where(s.block > 0, machine.sparse_vertex_factor * cycles, 0.0)
    c.compute("products", cycles, local_byte=local_byte, pj=pj)
    partial = s.row * br * s.n_l * partial_byte
    n_result = rows * item.n
    c.exchange(
        "partial sums",
        s.taken * partial_byte,
        n_result * partial_byte * (s.n_partial - 1),
        n_fragment=s.n_partial - 1,
    )
    c.compute(
        "reduction",
        reduction_cycles(machine, s.added, s.n_partial),
        local_byte=np.where(s.n_partial > 1, n_result * partial_byte * (s.n_partial + 1), 0.0),
        pj=n_result * (s.n_partial - 1) * machine.vector_pj[format],
    )
    out = n_result * stored_byte(machine, item.out_format)
    out_tile = s.placed * stored_byte(machine, item.out_format)
    c.exchange("result to its place", out_tile, out)
    c.compute(
        "arrange the result",
        placing_cycles(machine, s.placed, out_tile),
        local_byte=2 * out,
        part="move",
    )
    position = META_BYTE * s.block
    c.temporary_byte = np.maximum(
        gathered + np.where(s.n_split > 1, values, 0.0) + position + partial,
        partial * (2 - 1 / s.n_partial),
    )
    return c
