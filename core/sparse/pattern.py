"""Where the live blocks of a block-sparse matrix lie, in row order and in transposed order."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from core.checks import check_index, check_shape
from core.errors import PatternError


def transposed_order(row_index: Tensor, col_index: Tensor, n_col_block: int) -> tuple[Tensor, ...]:
    """Sort live blocks by column, then by row.

    Parameters
    ----------
    row_index, col_index : Tensor, int32 [block]
        Block coordinates in row order (sorted by row, then by column).
    n_col_block : int
        Number of block columns.

    Returns
    -------
    col_ptr : Tensor, int32 [n_col_block + 1]
    row_index_t : Tensor, int32 [block]
        Block rows in transposed order.
    order_t : Tensor, int32 [block]
        Position in row order of each block of the transposed order.
    """
    order = torch.sort(col_index, stable=True).indices
    count = torch.bincount(col_index.long(), minlength=n_col_block)
    col_ptr = torch.cat([count.new_zeros(1), count.cumsum(0)]).int()
    return col_ptr, row_index.index_select(0, order), order.int()


@dataclass(frozen=True, eq=False)
class BlockPattern:
    """The live blocks of a matrix cut into equal blocks; everything outside them is zero.

    Shapes need not be multiples of the block: blocks at the right and lower edge then reach over
    the matrix, and their outer entries count as zero padding.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of the matrix, in entries.
    block : tuple of int
        Rows and columns of one block, in entries.
    row_ptr : Tensor, int32 [n_row_block + 1]
        Blocks ``row_ptr[i]`` to ``row_ptr[i + 1]`` lie in block row i.
    col_index, row_index : Tensor, int32 [n_block]
        Block coordinates, sorted by row, then by column, no block twice.
    col_ptr : Tensor, int32 [n_col_block + 1]
        The like of `row_ptr` for the transposed order (by column, then by row).
    row_index_t : Tensor, int32 [n_block]
        Block rows in transposed order.
    order_t : Tensor, int32 [n_block]
        Position in row order of each block of the transposed order.

    Examples
    --------
    >>> import torch
    >>> from core import BlockPattern
    >>> mask = torch.zeros(4, 6, dtype=torch.bool)
    >>> mask[0, 0] = mask[3, 3] = True  # one live entry keeps its block
    >>> pattern = BlockPattern.from_mask(mask, (2, 2))
    >>> pattern.shape, pattern.n_block, round(pattern.density, 3)
    ((4, 6), 2, 0.333)
    """

    shape: tuple[int, int]
    block: tuple[int, int]
    row_ptr: Tensor
    col_index: Tensor
    row_index: Tensor
    col_ptr: Tensor
    row_index_t: Tensor
    order_t: Tensor

    @property
    def grid(self) -> tuple[int, int]:
        """Block rows and block columns, edge blocks included."""
        return _grid(self.shape, self.block)

    @property
    def n_block(self) -> int:
        """Number of live blocks."""
        return self.col_index.numel()

    @functools.cached_property
    def n_all(self) -> int:
        """Number of blocks, live or not."""
        return math.prod(self.grid)

    @property
    def density(self) -> float:
        """Live blocks over all blocks."""
        return self.n_block / self.n_all

    @property
    def nnz(self) -> int:
        """Entries of the matrix inside live blocks, padding not counted."""
        (rows, cols), (br, bc) = self.shape, self.block
        height = (rows - self.row_index.long() * br).clamp(max=br)
        width = (cols - self.col_index.long() * bc).clamp(max=bc)
        return int((height * width).sum())

    @classmethod
    def from_index(
        cls, shape: tuple[int, int], block: tuple[int, int], row_index: Tensor, col_index: Tensor
    ) -> BlockPattern:
        """Build a pattern from block coordinates in any order.

        Parameters
        ----------
        shape, block : tuple of int
            Of the matrix and of one block, in entries.
        row_index, col_index : Tensor, integer [n_block]
            Block coordinates, each pair once.

        Raises
        ------
        PatternError
            If a size is not positive or a block occurs twice.
        ShapeError, IndexRangeError
            If the two indices differ in length, or one points outside the grid of blocks.
        """
        n_row, n_col = _grid(shape, block)
        check_shape("BlockPattern", "row_index", row_index, (None,), "give one entry per block")
        check_shape(
            "BlockPattern", "col_index", col_index, (row_index.numel(),), "give one entry per block"
        )
        check_index("BlockPattern", "row_index", row_index, n_row, "block row")
        check_index("BlockPattern", "col_index", col_index, n_col, "block column")
        key = torch.sort(row_index.long() * n_col + col_index.long()).values
        twice = (key[1:] == key[:-1]).nonzero()
        if twice.numel():
            k = int(key[int(twice[0])])
            raise PatternError(
                f"BlockPattern: block ({k // n_col}, {k % n_col}) occurs twice; "
                "give each live block once"
            )
        row_index, col_index = (key // n_col).int(), (key % n_col).int()
        count = torch.bincount(row_index.long(), minlength=n_row)
        row_ptr = torch.cat([count.new_zeros(1), count.cumsum(0)]).int()
        transposed = transposed_order(row_index, col_index, n_col)
        return cls(shape, block, row_ptr, col_index, row_index, *transposed)

    @classmethod
    def dense(cls, shape: tuple[int, int], block: tuple[int, int]) -> BlockPattern:
        """Return the pattern in which every block lives."""
        n_row, n_col = _grid(shape, block)
        k = torch.arange(n_row * n_col)
        return cls.from_index(shape, block, k // n_col, k % n_col)

    @classmethod
    def from_mask(cls, mask: Tensor, block: tuple[int, int]) -> BlockPattern:
        """Return the pattern of the blocks that hold a true entry of `mask`, bool [rows, cols].

        A live block lives as a whole, also where `mask` is false inside it.
        """
        check_shape("BlockPattern.from_mask", "mask", mask, (None, None), "give a matrix")
        rows, cols = mask.shape
        n_row, n_col = _grid((rows, cols), block)
        padded = mask.new_zeros(n_row * block[0], n_col * block[1], dtype=torch.bool)
        padded[:rows, :cols] = mask != 0
        live = padded.view(n_row, block[0], n_col, block[1]).any(3).any(1).nonzero()
        return cls.from_index((rows, cols), block, live[:, 0], live[:, 1])

    @classmethod
    def random(
        cls,
        shape: tuple[int, int],
        block: tuple[int, int],
        density: float,
        generator: torch.Generator,
    ) -> BlockPattern:
        """Draw ``round(density * all blocks)`` live blocks, at least one.

        The first ones are drawn along a random diagonal, so that every block row and every block
        column has a live block whenever the count allows it; the rest is uniform.

        Raises
        ------
        PatternError
            If `density` lies outside (0, 1].
        """
        if not 0 < density <= 1:
            raise PatternError(
                f"BlockPattern.random: density must lie in (0, 1], got {density}; "
                "1 keeps every block"
            )
        n_row, n_col = _grid(shape, block)
        n_all = n_row * n_col
        n_block = max(1, round(density * n_all))
        if n_block == n_all:
            return cls.dense(shape, block)
        row_of = torch.randperm(n_row, generator=generator)
        col_of = torch.randperm(n_col, generator=generator)
        i = torch.arange(min(n_block, max(n_row, n_col)))
        diagonal = row_of[i % n_row] * n_col + col_of[i % n_col]
        rest = torch.randperm(n_all, generator=generator)
        is_free = torch.ones(n_all, dtype=torch.bool)
        is_free[diagonal] = False
        rest = rest[is_free[rest]][: n_block - len(diagonal)]
        key = torch.cat([diagonal, rest])
        return cls.from_index(shape, block, key // n_col, key % n_col)

    def mask(self) -> Tensor:
        """Return which entries live, bool [rows, cols]."""
        n_row, n_col = self.grid
        live = torch.zeros(n_row, n_col, dtype=torch.bool, device=self.col_index.device)
        live[self.row_index.long(), self.col_index.long()] = True
        full = live.repeat_interleave(self.block[0], 0).repeat_interleave(self.block[1], 1)
        return full[: self.shape[0], : self.shape[1]]


def _grid(shape: tuple[int, int], block: tuple[int, int]) -> tuple[int, int]:
    for name, size in (("shape", shape), ("block", block)):
        if len(size) != 2 or min(size) < 1:
            raise PatternError(
                f"BlockPattern: {name} must be two positive sizes in entries, got {tuple(size)}; "
                "give (rows, columns)"
            )
    return -(-shape[0] // block[0]), -(-shape[1] // block[1])
