"""Where the live blocks of a real pattern lie: counts for each tile, shared by charge and run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Placement:
    """Live blocks on the slots (one tile each) of one split of the dense columns.

    A slot is ``band * n_tile + place``; each further split has slots of its own with the same
    blocks.

    Attributes
    ----------
    row, col : NDArray, int64 [block]
        Block coordinates.
    slot : NDArray, int64 [block]
    band_of_col : NDArray, int64 [block column]
        Up to the last live one.
    n_band, n_tile : int
        Bands, and slots in each.
    """

    row: Index
    col: Index
    slot: Index
    band_of_col: Index
    n_band: int
    n_tile: int

    @property
    def n_slot(self) -> int:
        """Slots in all."""
        return self.n_band * self.n_tile

    @cached_property
    def n_block(self) -> Index:
        """Live blocks of each slot."""
        return np.bincount(self.slot, minlength=self.n_slot)

    @cached_property
    def parts(self) -> tuple[Index, Index]:
        """Slot and block row of each partial sum, by slot and then by row."""
        n_row = int(self.row.max(initial=0)) + 1
        pairs = np.unique(self.slot * n_row + self.row)
        return pairs // n_row, pairs % n_row

    @cached_property
    def n_row(self) -> Index:
        """Distinct block rows of each slot."""
        return np.bincount(self.parts[0], minlength=self.n_slot)

    @cached_property
    def n_col(self) -> Index:
        """Live block columns in the band of each slot; none for a slot without blocks."""
        live = np.unique(self.col)
        of_band = np.bincount(self.band_of_col[live], minlength=self.n_band)
        return np.where(self.n_block > 0, np.repeat(of_band, self.n_tile), 0)

    @cached_property
    def n_holder(self) -> Index:
        """Slots that hold a part of the row, for each of `parts`."""
        row = self.parts[1]
        return np.bincount(row)[row] if row.size else row

    @cached_property
    def n_partial(self) -> Index:
        """Most parts that any row of a slot is added up from; one where there is none."""
        most = np.ones(self.n_slot, dtype=np.int64)
        np.maximum.at(most, self.parts[0], self.n_holder)
        return most

    def shares(self, n_entry: int) -> tuple[Index, Index]:
        """Return for each slot the entries it adds up, and those it receives for it.

        The slots that hold a part of a row of `n_entry` entries add up equal runs of these, the
        first ones one entry more where it does not divide; a row on one slot is not added up.
        """
        slot, row = self.parts
        order = np.lexsort((slot, row))
        place = np.empty(row.size, dtype=np.int64)
        first = np.searchsorted(row[order], row[order])
        place[order] = np.arange(row.size) - first
        run = n_entry // self.n_holder + (place < n_entry % self.n_holder)
        run = np.where(self.n_holder > 1, run, 0)
        added = np.bincount(slot, weights=run, minlength=self.n_slot)
        taken = np.bincount(slot, weights=run * (self.n_holder - 1), minlength=self.n_slot)
        return added.astype(np.int64), taken.astype(np.int64)


def place_blocks(row_index: Index, col_index: Index, n_band: int, n_tile: int) -> Placement:
    """Spread the live blocks of a pattern over bands and tiles.

    Parameters
    ----------
    row_index, col_index : NDArray, int64 [block]
        Coordinates of the live blocks.
    n_band : int
        Column bands, cut so that each holds nearly the same number of live blocks.
    n_tile : int
        Tiles per band; each takes an equal run of the band's blocks in row order.
    """
    row_index, col_index = row_index.astype(np.int64), col_index.astype(np.int64)
    n_block = row_index.size
    by_col = np.bincount(col_index)
    before = np.cumsum(by_col) - by_col
    band_of_col = np.minimum(before * n_band // max(n_block, 1), n_band - 1)
    band = band_of_col[col_index]
    order = np.lexsort((col_index, row_index, band))
    in_band = np.bincount(band, minlength=n_band)
    start = np.cumsum(in_band) - in_band
    share = np.maximum(-(-in_band // n_tile), 1)
    slot = np.empty(n_block, dtype=np.int64)
    sorted_band = band[order]
    place = (np.arange(n_block) - start[sorted_band]) // share[sorted_band]
    slot[order] = sorted_band * n_tile + place
    return Placement(row_index, col_index, slot, band_of_col, n_band, n_tile)


def live_share(is_live: NDArray[np.bool_], n_column: int, n_tile: int) -> Index:
    """Return how many entries of live rows fall to each tile, all rows spread evenly in order.

    Parameters
    ----------
    is_live : NDArray, bool [row]
    n_column : int
        Entries of a row.
    n_tile : int
    """
    n_entry = is_live.size * n_column
    size = np.full(n_tile, n_entry // n_tile) + (np.arange(n_tile) < n_entry % n_tile)
    end = np.cumsum(size)
    before = np.concatenate([[0], np.cumsum(is_live)])
    row, rest = end // n_column, end % n_column
    live_here = np.append(is_live, False)[row]
    return np.diff(before[row] * n_column + live_here * rest, prepend=0)
