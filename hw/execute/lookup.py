"""Rows picked, and rows added up, by an index, tile by tile, as planned."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hw.execute.ledger import Array, Execution, Ledger, Moved, Pieces, rounded
from hw.machine import TileMachine
from hw.plan.dense import vertex_cycles
from hw.plan.formats import compute_format, stored_byte
from hw.plan.lookup import Splits, choose_gather, choose_scatter, look_up_cycles
from hw.work import Gather, Scatter

Index = NDArray[np.int64]


class _Spread:
    """Rows of a table, look-ups and entries of a row, each in equal runs over the tiles."""

    def __init__(self, splits: Splits, n_table: int, n_row: int, row_element: int) -> None:
        sizes = (n_table, n_row, row_element)
        self.rows, self.lookups, self.columns = (
            np.array_split(np.arange(size), p) for size, p in zip(sizes, splits, strict=True)
        )
        self.tile = np.arange(np.prod(splits)).reshape(splits)

    def owner(self, index: Index) -> Index:
        """Return which run of table rows each index falls into."""
        return np.searchsorted([run[-1] for run in self.rows], index)


def _send_indices(ledger: Ledger, spread: _Spread) -> None:
    """Bring the indices of each share of look-ups to all its tiles; they come from all tiles."""
    received, sent = np.zeros((2, ledger.machine.n_tile))
    for j, share in enumerate(spread.lookups):
        received[spread.tile[:, j].ravel()] = share.size * 4
    sent[: spread.tile.size] = received.sum() / spread.tile.size
    ledger.exchange("indices to the tiles", received, sent, shared=1.0)


def execute_gather(item: Gather, machine: TileMachine, index: Index, x: Array) -> Execution:
    """Pick the rows of x[n_source, row_element] that the index names.

    Tiles serve the look-ups that fall into their rows: counts equal the charged ones if the index
    falls evenly on them, as the plan expects, and are larger otherwise.
    """
    splits, cost = choose_gather(item, machine)
    p_row, p_index, _ = splits
    format, byte = compute_format(machine, item.in_format), stored_byte(machine, item.in_format)
    x = rounded(x, item.in_format, format)
    spread = _Spread(splits, item.n_source, item.n_row, item.row_element)
    ledger = Ledger(machine)
    _send_indices(ledger, spread)
    moved, table = Moved(machine), {}
    for i, rows in enumerate(spread.rows):
        for k, columns in enumerate(spread.columns):
            block = Pieces(x[np.ix_(rows, columns)], p_index)
            table[i, k] = block.assemble(spread.tile[i, :, k], byte, *moved.counts)
    ledger.exchange("table to the tiles", *moved.counts, shared=float(p_index % 2 == 0))
    owner = spread.owner(index)
    home = np.concatenate(
        [np.repeat(np.arange(p_row), [len(r) for r in np.array_split(share, p_row)])
         for share in spread.lookups]
    )  # fmt: skip
    result = np.zeros((item.n_row, item.row_element))
    moved, pieces, cycles = Moved(machine), np.zeros(machine.n_tile), np.zeros(machine.n_tile)
    for (i, j, k), tile in np.ndenumerate(spread.tile):
        share, columns = spread.lookups[j], spread.columns[k]
        hits = share[owner[share] == i]
        result[np.ix_(hits, columns)] = table[i, k][index[hits] - spread.rows[i][0]]
        row_byte = columns.size * byte
        cycles[tile] = look_up_cycles(machine, share.size, hits.size, row_byte, adds=False)
        for end in home[hits][home[hits] != i]:
            moved.move(int(tile), int(spread.tile[end, j, k]), row_byte)
            pieces[spread.tile[end, j, k]] += 1
    ledger.compute("gather", cycles)
    ledger.exchange("rows to their place", *moved.counts, n_fragment=pieces)
    return ledger.execution(result, cost.plan, spread.tile.size)


def execute_scatter(item: Scatter, machine: TileMachine, index: Index, x: Array) -> Execution:
    """Add the rows of x[n_row, row_element] into n_target rows, each at its index.

    Tiles work on the updates that fall into their rows: counts equal the charged ones if the index
    falls evenly on them, as the plan expects, and are larger otherwise.
    """
    splits, cost = choose_scatter(item, machine)
    p_index = splits[1]
    format, byte = compute_format(machine, item.in_format), stored_byte(machine, item.in_format)
    x = rounded(x, item.in_format, format)
    spread = _Spread(splits, item.n_target, item.n_row, item.row_element)
    targets, lookups, columns, tile_at = spread.rows, spread.lookups, spread.columns, spread.tile
    ledger = Ledger(machine)
    _send_indices(ledger, spread)
    moved, pieces, cycles = Moved(machine), np.zeros(machine.n_tile), np.zeros(machine.n_tile)
    partial = np.zeros((p_index, item.n_target, item.row_element))
    owner = spread.owner(index)
    for (i, j, k), tile in np.ndenumerate(tile_at):
        hits = lookups[j][owner[lookups[j]] == i]
        for n, row in enumerate(hits):
            byte_row = columns[k].size * byte
            moved.move(int(tile + 1 + n) % tile_at.size, int(tile), byte_row)
            place = np.ix_([j], [index[row]], columns[k])
            partial[place] = rounded(partial[place] + x[row, columns[k]], format)
        pieces[tile] = hits.size
        cycles[tile] = look_up_cycles(
            machine, lookups[j].size, hits.size, columns[k].size * byte, adds=True
        )
    ledger.exchange("rows to the tiles", *moved.counts, n_fragment=pieces)
    ledger.compute("scatter", cycles)
    total = partial[0]
    for other in partial[1:]:
        total = rounded(total + other, format)
    if p_index > 1:
        received, added = np.zeros(machine.n_tile), np.zeros(machine.n_tile)
        for (i, _, k), tile in np.ndenumerate(tile_at):
            table = targets[i].size * columns[k].size * byte
            received[tile] = table * (1 - 1 / p_index)
            added[tile] = vertex_cycles(machine) + table / machine.load_byte_per_cycle
        ledger.exchange("partial sums", received, received, n_fragment=float(p_index))
        ledger.compute("reduction", added)
    return ledger.execution(total, cost.plan, tile_at.size)
