"""How patterns begin, where something is known about them: bands, grids, attention, layer sizes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from core.errors import PatternError
from core.sparse.pattern import BlockPattern


def banded(shape: tuple[int, int], block: tuple[int, int], reach: int) -> BlockPattern:
    """Return the blocks that hold an entry within `reach` of the diagonal.

    Parameters
    ----------
    shape, block : tuple of int
        Of the matrix and of one block, in entries. In a matrix that is not square the diagonal
        runs from corner to corner.
    reach : int
        Columns to either side of the diagonal; 0 keeps the diagonal alone.

    Raises
    ------
    PatternError
        If `reach` is negative.

    Examples
    --------
    >>> from core.sparse import banded
    >>> banded((16, 16), (4, 4), 4).n_block
    10
    """
    if reach < 0:
        raise PatternError(f"banded: reach must be 0 or more columns, got {reach}; 0 is a diagonal")
    (rows, cols), (br, bc) = shape, block
    slope = (cols - 1) / max(rows - 1, 1)
    top = torch.arange(0, rows, br, dtype=torch.float64)
    low = (top * slope - reach).ceil().clamp(min=0).long() // bc
    high = ((top + br - 1).clamp(max=rows - 1) * slope + reach).floor().clamp(max=cols - 1)
    return _from_ranges(shape, block, low, high.long() // bc)


def grid_neighbours(n_lat: int, n_lon: int, reach: int, block: tuple[int, int]) -> BlockPattern:
    """Return the pattern that couples each point of a latitude-longitude grid to its neighbours.

    Parameters
    ----------
    n_lat, n_lon : int
        Points; point (i, j) is row and column ``i * n_lon + j`` of the matrix.
    reach : int
        Steps along either axis, diagonals included; longitude closes on itself, latitude ends.
    block : tuple of int
        In entries; a block lives as a whole as soon as two of its points are neighbours.

    Examples
    --------
    >>> from core.sparse import grid_neighbours
    >>> pattern = grid_neighbours(4, 8, 1, (4, 4))
    >>> pattern.shape, round(pattern.density, 3)
    ((32, 32), 0.625)
    """
    lat, lon = torch.arange(n_lat), torch.arange(n_lon)
    near_lat = (lat[:, None] - lat).abs() <= reach
    apart = (lon[:, None] - lon).abs()
    near_lon = torch.minimum(apart, n_lon - apart) <= reach
    return BlockPattern.from_mask(torch.kron(near_lat.byte(), near_lon.byte()), block)


def attention_blocks(
    n_token: int, block: int, *, window: int, n_global: int = 0, is_causal: bool = False
) -> BlockPattern:
    """Return a pattern of attention: queries are rows, keys are columns.

    Parameters
    ----------
    n_token, block : int
        Tokens, and the edge of a square block of them.
    window : int
        Each query sees keys up to `window` tokens away.
    n_global : int
        The first tokens that see all and are seen by all (Beltagy et al. 2020, arXiv 2004.05150).
    is_causal : bool
        Leave out blocks that lie wholly in a query's future; `core.sparse.attention` masks the
        future inside the blocks that remain.

    Examples
    --------
    >>> from core.sparse import attention_blocks
    >>> attention_blocks(64, 16, window=1).density
    0.625
    >>> attention_blocks(64, 16, window=1, is_causal=True).density
    0.4375
    """
    if window < 0 or n_global < 0:
        raise PatternError(
            f"attention_blocks: window and n_global must be 0 or more tokens, "
            f"got {window} and {n_global}"
        )
    n = -(-n_token // block)
    i = torch.arange(n)
    # Nearest tokens of two blocks d > 0 apart are (d - 1) * block + 1 tokens apart.
    distance = (i[:, None] - i).abs()
    live = (distance - 1).clamp(min=-1) * block + 1 <= window
    live |= distance == 0
    is_global = i * block < n_global
    live |= is_global[:, None] | is_global
    if is_causal:
        live &= i[:, None] >= i
    row, col = live.nonzero().unbind(1)
    return BlockPattern.from_index((n_token, n_token), (block, block), row, col)


def erdos_renyi_densities(shapes: Sequence[tuple[int, int]], density: float) -> list[float]:
    """Share a density between layers so that wide ones become sparser.

    Parameters
    ----------
    shapes : sequence of (int, int)
        Rows and columns of each layer's matrix.
    density : float
        Of all layers together, in (0, 1].

    Returns
    -------
    list of float
        One density a layer, in proportion to (rows + cols) / (rows * cols), at most 1; the entries
        they keep add up to `density` of all.

    Raises
    ------
    PatternError
        If `density` lies outside (0, 1].

    Notes
    -----
    Source: Mocanu et al. 2018, doi 10.1038/s41467-018-04316-3, eq. 1; the cap at 1 with the rest
    shared anew as in Evci et al. 2020, arXiv 1911.11134, section 3.

    Examples
    --------
    >>> from core.sparse import erdos_renyi_densities
    >>> [round(d, 3) for d in erdos_renyi_densities([(64, 64), (256, 256)], 0.1)]
    [0.34, 0.085]
    """
    if not 0 < density <= 1:
        raise PatternError(
            f"erdos_renyi_densities: density must lie in (0, 1], got {density}; 1 is dense"
        )
    size = [rows * cols for rows, cols in shapes]
    weight = [rows + cols for rows, cols in shapes]
    is_full = [False] * len(size)
    while True:
        left = density * sum(size) - sum(s for s, f in zip(size, is_full, strict=True) if f)
        share = sum(w for w, f in zip(weight, is_full, strict=True) if not f)
        out = [
            1.0 if f else left * w / (share * s)
            for s, w, f in zip(size, weight, is_full, strict=True)
        ]
        over = [d > 1 for d in out]
        if not any(over):
            return out
        is_full = [f or o for f, o in zip(is_full, over, strict=True)]


def _from_ranges(
    shape: tuple[int, int], block: tuple[int, int], low: Tensor, high: Tensor
) -> BlockPattern:
    """Build a pattern whose block row i lives from block column ``low[i]`` to ``high[i]``."""
    count = high - low + 1
    row = torch.arange(len(low)).repeat_interleave(count)
    start = (count.cumsum(0) - count).repeat_interleave(count)
    col = torch.arange(len(row)) - start + low.repeat_interleave(count)
    return BlockPattern.from_index(shape, block, row, col)
