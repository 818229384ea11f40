"""The block-sparse products on plain torch: any device, any float dtype, no compiler.

Two routes, chosen by the share of live blocks. Where it is large, blocks are written into a dense
matrix that is multiplied as one, and the weight gradient is computed a strip of rows at a time of
which only the live blocks are kept. Where it is small, live blocks are gathered and multiplied in
chunks whose temporaries stay under `CHUNK_ENTRY` entries.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Parameter

from core.errors import PatternError
from core.kernels import call, copies

#: Bound on the gathered operands of one chunk, in entries.
CHUNK_ENTRY = 1 << 21
#: Strips in which a weight gradient is computed: a strip is at most this part of the matrix.
N_STRIP = 8


def is_thin(n_block: int, grid: tuple[int, int], block: tuple[int, int]) -> bool:
    """Whether gathering live blocks beats one dense product (measured on one core of a Zen 4)."""
    return n_block < (0.05 if block[0] * block[1] >= 16 else 0.01) * grid[0] * grid[1]


def expand(values: Tensor, row_index: Tensor, col_index: Tensor, grid: tuple[int, int]) -> Tensor:
    """Write blocks [n_block, br, bc] into their padded dense matrix [grid rows, grid columns]."""
    _, br, bc = values.shape
    if (kernels := _copying(values, row_index, col_index)) is not None:
        shape = grid[0] * br, grid[1] * bc
        if br == bc == 1 and (mask := copies.mask_of(kernels, row_index, col_index, grid)):
            return copies.write_entries(kernels, mask, values, shape)
        return copies.write_blocks(kernels, values, row_index, col_index, shape)
    dense = values.new_zeros(grid[0], br, grid[1], bc)
    dense[row_index.long(), :, col_index.long(), :] = values
    return dense.view(grid[0] * br, grid[1] * bc)


def spmm(x: Tensor, values: Tensor, row_index: Tensor, col_index: Tensor, n_row: int) -> Tensor:
    """Return ``x @ S^T`` with padded rows: [batch, cols] -> [batch, n_row * br]."""
    n_block, br, bc = values.shape
    n_col = -(-x.shape[1] // bc)
    if not is_thin(n_block, (n_row, n_col), (br, bc)):
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
    grid = -(-dy.shape[1] // br), -(-x.shape[1] // bc)
    out = x.new_empty(n_block, br, bc)
    if is_thin(n_block, grid, block):
        left, right = _blocks(dy, grid[0], br), _blocks(x, grid[1], bc).transpose(1, 2)
        for part in _chunks(n_block, batch * (br + bc)):
            a, b = left.index_select(0, row_index[part]), right.index_select(0, col_index[part])
            torch.bmm(a, b, out=out[part])
        return out
    height = -(-grid[0] // N_STRIP)
    kernels = _copying(x, row_index, col_index)
    if (
        kernels is not None
        and br == bc == 1
        and (mask := copies.mask_of(kernels, row_index, col_index, grid))
    ):
        for top in range(0, grid[0], height):
            strip = dy[:, top : top + height].t() @ x
            copies.read_entries(kernels, mask, strip, top, out)
        return out
    if (row_index.diff() < 0).any():
        raise PatternError("core::sddmm: row_index must ascend; pass the tensors of a BlockPattern")
    edges = torch.arange(0, grid[0] + height, height, dtype=torch.int32, device=x.device)
    ends = torch.searchsorted(row_index, edges).tolist()
    if kernels is None:
        left = _blocks(dy, grid[0], br)
        right = _blocks(x, grid[1], bc).view(grid[1] * bc, batch).t()
    for i, (first, last) in enumerate(itertools.pairwise(ends)):
        top = i * height
        if kernels is not None:
            strip = dy[:, top * br : (top + height) * br].t() @ x
            where = row_index[first:last] - top, col_index[first:last]
            out[first:last] = copies.read_blocks(kernels, strip, *where, block)
            continue
        strip = left[top : top + height].flatten(0, 1) @ right
        rows, cols = row_index[first:last].long() - top, col_index[first:last].long()
        out[first:last] = strip.view(-1, br, grid[1], bc)[rows, :, cols]
    return out


def _copying(x: Tensor, *index: Tensor) -> call.Kernels | None:
    """Return the compiled copies of blocks if they can take these operands."""
    plain = type(x) in (Tensor, Parameter) and x.is_cpu and x.element_size() in (2, 4)
    if not plain or any(not t.is_cpu or t.dtype != torch.int32 for t in index):
        return None
    return call.kernels()


def _blocks(x: Tensor, n: int, width: int) -> Tensor:
    """View columns as zero-padded blocks, feature-major: [batch, cols] -> [n, width, batch]."""
    pad = n * width - x.shape[1]
    x = F.pad(x, (0, pad)) if pad else x
    return x.t().contiguous().view(n, width, -1)


def _chunks(n: int, entry_per_item: int) -> Iterator[slice]:
    step = max(1, CHUNK_ENTRY // max(1, entry_per_item))
    return (slice(i, min(i + step, n)) for i in range(0, n, step))
