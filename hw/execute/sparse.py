"""A static block-sparse product, tile by tile, as `hw.plan.sparse` spreads it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.errors import ConfigError
from hw.execute.ledger import Array, Execution, Ledger, Moved, rounded
from hw.machine import TileMachine
from hw.plan.dense import BLOCK, matrix_cycles, vertex_cycles
from hw.plan.formats import compute_format, stored_byte
from hw.plan.sparse import (
    StaticPlan,
    choose_static,
    dense_grain,
    oriented,
)
from hw.plan.sparse_vertex import block_cycles, placing_cycles, reduction_cycles
from hw.work import SparseContraction


@dataclass
class _Run:
    """One product under way: what is the same in all its phases."""

    item: SparseContraction
    ledger: Ledger
    plan: StaticPlan
    format: str
    dense_byte: float
    weight_byte: float
    partial_byte: float

    @property
    def machine(self) -> TileMachine:
        return self.ledger.machine

    def splits(self) -> list[tuple[int, slice]]:
        """Return for each split of the dense columns its first tile and its columns."""
        plan, start, out = self.plan, 0, []
        grain = dense_grain(self.item, self.machine)
        for i, width in enumerate(plan.columns(-(-self.item.n // grain) * grain)):
            out.append((i * plan.placement.n_slot, slice(start, start + width)))
            start += width
        return out

    def blocks_of(self) -> list[NDArray[np.int64]]:
        """Return the live blocks of each slot, in the order of their rows, then columns."""
        placement = self.plan.placement
        order = np.lexsort((placement.col, placement.row, placement.slot))
        return np.split(order, np.cumsum(placement.n_block)[:-1])


def execute_static(
    item: SparseContraction, machine: TileMachine, left: Array, right: Array
) -> Execution:
    """Run the plan of a product with a static pattern.

    `left` are the live blocks (the dense rows, in ``sddmm``), `right` the dense columns. Operands
    are rounded to their formats and to the machine's; a running sum is rounded after each block,
    partial sums are added in the order of their tiles and rounded after each.
    """
    plan, cost = choose_static(item, machine)
    if plan is None:
        raise ConfigError("execute: the item has no pattern; give row_index and col_index")
    format = compute_format(machine, item.weight_format, item.dense_format)
    run = _Run(
        item,
        Ledger(machine),
        plan,
        format,
        stored_byte(machine, item.dense_format),
        stored_byte(machine, item.weight_format),
        stored_byte(machine, format),
    )
    rows, cols, (br, bc) = oriented(item)
    columns = run.splits()[-1][1].stop
    dense = _padded(rounded(right, item.dense_format, format), -(-cols // bc) * bc, columns)
    if item.product == "sddmm":
        run.ledger.compute("start", machine.product_start_cycle, part="launch")
    _gather(run, dense, bc)
    if item.product == "sddmm":
        other = _padded(rounded(left, item.dense_format, format), -(-rows // br) * br, columns)
        result = _sampled(run, other, dense)
    else:
        values = rounded(left, item.weight_format, format)
        if item.product == "spmm_t":
            values = values.transpose(0, 2, 1)
        result = _multiplied(run, values, dense)
    n_used = plan.n_split * int(np.count_nonzero(plan.placement.n_block))
    return run.ledger.execution(result, cost.plan, n_used)


def _padded(x: Array, rows: int, columns: int) -> Array:
    return np.pad(x, ((0, rows - x.shape[0]), (0, columns - x.shape[1])))


def _gather(run: _Run, dense: Array, bc: int) -> None:
    """Bring the rows of each band's live columns to every tile of the band that has blocks."""
    moved, pieces = Moved(run.machine), np.zeros(run.machine.n_tile)
    placement = run.plan.placement
    live = np.unique(placement.col)
    for first, columns in run.splits():
        for slot, blocks in enumerate(run.blocks_of()):
            if blocks.size == 0:
                continue
            wanted = live[placement.band_of_col[live] == slot // placement.n_tile]
            for j in wanted:
                size = dense[j * bc : (j + 1) * bc, columns].size * run.dense_byte
                moved.move(int(j) % run.machine.n_tile, first + slot, size)
            pieces[first + slot] = min(wanted.size, blocks.size)
    run.ledger.exchange("dense rows to the tiles", *moved.counts, shared=1.0, n_fragment=pieces)


def _multiplied(run: _Run, values: Array, dense: Array) -> Array:
    """Multiply the live blocks of each tile with the rows it has, then add and place the sums."""
    machine, placement, item = run.machine, run.plan.placement, run.item
    rows, _, (br, bc) = oriented(item)
    n_row = -(-rows // br)
    moved, cycles = Moved(machine), np.zeros(machine.n_tile)
    partial: dict[tuple[int, int], list[tuple[int, Array]]] = {}
    for i, (first, columns) in enumerate(run.splits()):
        n_l = float(columns.stop - columns.start)
        for slot, blocks in enumerate(run.blocks_of()):
            tile = first + slot
            sums: dict[int, Array] = {}
            if first:
                moved.move(slot, tile, values[blocks].size * run.weight_byte)
            for block in blocks:
                row, col = int(placement.row[block]), int(placement.col[block])
                x = dense[col * bc : (col + 1) * bc, columns]
                before = sums.get(row, np.zeros((br, x.shape[1])))
                sums[row] = rounded(before + values[block] @ x, run.format)
            if not sums:
                continue
            cycles[tile] = block_cycles(
                machine, run.format, (br, bc), np.array(float(blocks.size)),
                np.array(float(len(sums))), np.array(n_l),
            )  # fmt: skip
            for row, total in sums.items():
                partial.setdefault((i, row), []).append((tile, total))
    run.ledger.exchange("live blocks to the tiles", *moved.counts)
    run.ledger.compute("products", machine.sparse_vertex_factor * cycles)

    result = np.zeros((n_row * br, dense.shape[1]))
    owner = np.full(result.shape, -1)
    adder = _Adder(run)
    for (i, row), parts in partial.items():
        total, tiles = adder.add(parts)
        place = np.ix_(
            np.arange(row * br, (row + 1) * br),
            np.arange(*run.splits()[i][1].indices(result.shape[1])),
        )
        result[place], owner[place] = total, tiles
    adder.close()
    return _placed(run, result[:rows, : item.n], owner[:rows, : item.n])


def _placed(run: _Run, result: Array, owner: NDArray[np.int64]) -> Array:
    """Spread the results evenly over the machine, in order; rows without live blocks are zero."""
    machine = run.machine
    byte = stored_byte(machine, run.item.out_format)
    moved = Moved(machine)
    for tile, owners in enumerate(np.array_split(owner.ravel(), machine.n_tile)):
        for source, n_entry in zip(
            *np.unique(owners[owners >= 0], return_counts=True), strict=True
        ):
            moved.move(int(source), tile, n_entry * byte)
    run.ledger.exchange("result to its place", *moved.counts)
    cycles = placing_cycles(machine, moved.received / byte, moved.received)
    run.ledger.compute("arrange the result", cycles, part="move")
    return rounded(result, machine.native(run.item.out_format))


def _sampled(run: _Run, other: Array, dense: Array) -> Array:
    """Multiply row by row where a block is live; the splits of the columns add their parts."""
    machine, placement = run.machine, run.plan.placement
    _, _, (br, bc) = oriented(run.item)
    moved, cycles, pieces = Moved(machine), np.zeros(machine.n_tile), np.zeros(machine.n_tile)
    parts: dict[int, list[tuple[int, Array]]] = {}
    for first, columns in run.splits():
        n_l = float(columns.stop - columns.start)
        one = matrix_cycles(machine, run.format, *(np.array(float(x)) for x in (bc, n_l, br)))
        for slot, blocks in enumerate(run.blocks_of()):
            tile, done = first + slot, []
            for row in np.unique(placement.row[blocks]):
                size = other[row * br : (row + 1) * br, columns].size * run.dense_byte
                moved.move(int(row) % machine.n_tile, tile, size)
                pieces[tile] += 1
            for block in blocks:
                row, col = placement.row[block], placement.col[block]
                y = other[row * br : (row + 1) * br, columns]
                x = dense[col * bc : (col + 1) * bc, columns]
                total = np.zeros((br, bc))
                for start in range(0, y.shape[1], BLOCK):
                    some = slice(start, start + BLOCK)
                    total = rounded(total + y[:, some] @ x[:, some].T, run.format)
                done.append(total)
            if done:
                cycles[tile] = vertex_cycles(machine) + len(done) * one
                parts.setdefault(slot, []).append((tile, np.stack(done)))
    run.ledger.exchange("gradient rows to the tiles", *moved.counts, n_fragment=pieces)
    run.ledger.compute("products", machine.sparse_vertex_factor * cycles)
    result = np.zeros((placement.row.size, br, bc))
    adder = _Adder(run)
    for slot, of_slot in parts.items():
        result[run.blocks_of()[slot]] = adder.add(of_slot)[0]
    adder.close()
    return result


class _Adder:
    """Partial sums of several tiles, each tile adding an equal run of the entries."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._moved = Moved(run.machine)
        self._added = np.zeros(run.machine.n_tile)
        self._n_part = np.ones(run.machine.n_tile)

    def add(self, parts: list[tuple[int, Array]]) -> tuple[Array, NDArray[np.int64]]:
        """Return the sum of parts in the order of their tiles, and the tile that has each entry."""
        parts = sorted(parts, key=lambda part: part[0])
        tiles = [tile for tile, _ in parts]
        shape = parts[0][1].shape
        runs = [np.array_split(part.ravel(), len(parts)) for _, part in parts]
        done, owner = [], []
        for i, tile in enumerate(tiles):
            total = runs[0][i]
            for source in range(1, len(parts)):
                total = rounded(total + runs[source][i], self._run.format)
            done.append(total)
            owner.append(np.full(total.size, tile))
            if len(parts) > 1:
                byte = self._byte * total.size
                for source in tiles:
                    if source != tile:
                        self._moved.move(source, tile, byte)
                self._added[tile] += total.size
            self._n_part[tile] = max(self._n_part[tile], len(parts))
        return np.concatenate(done).reshape(shape), np.concatenate(owner).reshape(shape)

    @property
    def _byte(self) -> float:
        run = self._run
        return run.weight_byte if run.item.product == "sddmm" else run.partial_byte

    def close(self) -> None:
        """Enter the exchange and the additions of all sums."""
        ledger = self._run.ledger
        ledger.exchange("partial sums", *self._moved.counts, n_fragment=self._n_part - 1)
        cycles = reduction_cycles(self._run.machine, self._added, self._n_part)
        ledger.compute("reduction", cycles)
