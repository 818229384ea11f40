"""The block-sparse products on plain torch: any device, any float dtype, no compiler.

Two routes, chosen by the share of live blocks. Above `DENSIFY_DENSITY` the blocks are written
into a dense matrix and multiplied as one; below it live blocks are gathered and multiplied in
chunks whose temporaries stay under `CHUNK_ENTRY` entries.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

#: Live share above which one dense product beats gathered blocks (measured, see benchmarks).
DENSIFY_DENSITY = 0.1
#: Bound on the gathered operands of one chunk, in entries.
CHUNK_ENTRY = 1 << 21


def expand(values: Tensor, row_index: Tensor, col_index: Tensor, grid: tuple[int, int]) -> Tensor:
    """Write blocks [n_block, br, bc] into their padded dense matrix [grid rows, grid columns]."""
    _, br, bc = values.shape
    dense = values.new_zeros(grid[0], br, grid[1], bc)
    dense[row_index.long(), :, col_index.long(), :] = values
    return dense.view(grid[0] * br, grid[1] * bc)


def spmm(x: Tensor, values: Tensor, row_index: Tensor, col_index: Tensor, n_row: int) -> Tensor:
    """Return ``x @ S^T`` with padded rows: [batch, cols] -> [batch, n_row * br]."""
    n_block, br, bc = values.shape
    n_col = -(-x.shape[1] // bc)
    if n_block >= DENSIFY_DENSITY * n_row * n_col:
        dense = expand(values, row_index, col_index, (n_row, n_col))
        return x @ dense[:, : x.shape[1]].t()
    blocks = _blocks(x, n_col, bc)
    out = x.new_zeros(n_row, br, x.shape[0])
    for part in _chunks(n_block, x.shape[0] * (br + bc)):
        product = torch.bmm(values[part], blocks.index_select(0, col_index[part]))
        out.index_add_(0, row_index[part], product)
    return out.view(n_row * br, -1).t()


def sddmm(
    dy: Tensor, x: Tensor, row_index: Tensor, col_index: Tensor, block: tuple[int, int]
) -> Tensor:
    """Return the live blocks [n_block, br, bc] of ``dy^T @ x``; no other entry is computed."""
    br, bc = block
    n_block, batch = row_index.numel(), x.shape[0]
    left = _blocks(dy, -(-dy.shape[1] // br), br)
    right = _blocks(x, -(-x.shape[1] // bc), bc).transpose(1, 2)
    out = x.new_empty(n_block, br, bc)
    for part in _chunks(n_block, batch * (br + bc)):
        a, b = left.index_select(0, row_index[part]), right.index_select(0, col_index[part])
        torch.bmm(a, b, out=out[part])
    return out


def _blocks(x: Tensor, n: int, width: int) -> Tensor:
    """View columns as zero-padded blocks, feature-major: [batch, cols] -> [n, width, batch]."""
    pad = n * width - x.shape[1]
    x = F.pad(x, (0, pad)) if pad else x
    return x.t().contiguous().view(n, width, -1)


def _chunks(n: int, entry_per_item: int) -> Iterator[slice]:
    step = max(1, CHUNK_ENTRY // max(1, entry_per_item))
    return (slice(i, min(i + step, n)) for i in range(0, n, step))
