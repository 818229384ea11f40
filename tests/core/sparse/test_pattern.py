"""Block patterns: constructors, counts and refusals."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import IndexRangeError, PatternError, ShapeError
from core.sparse import BlockPattern

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))
BLOCKS = st.tuples(st.integers(1, 9), st.integers(1, 9))


@settings(deadline=None, max_examples=60)
@given(SIZES, BLOCKS, st.floats(0.01, 1), st.integers(0, 2**31))
def test_random_pattern_has_the_count_and_reaches_every_row_and_column(shape, block, density, seed):
    p = BlockPattern.random(shape, block, density, torch.Generator().manual_seed(seed))
    n_row, n_col = p.grid
    assert p.n_block == max(1, round(density * n_row * n_col))
    assert p.density == p.n_block / (n_row * n_col)
    n_reached_row, n_reached_col = p.row_index.unique().numel(), p.col_index.unique().numel()
    assert n_reached_row == min(n_row, p.n_block)
    assert n_reached_col == min(n_col, p.n_block)
    assert p.nnz == int(p.mask().sum())
    # Both orders list the same blocks.
    key = p.row_index * n_col + p.col_index
    assert (key.diff() > 0).all()
    counts = p.col_ptr.diff()
    col_t = torch.arange(n_col).repeat_interleave(counts)
    assert torch.equal(p.row_index[p.order_t], p.row_index_t)
    assert torch.equal(p.col_index[p.order_t], col_t.int())
    assert torch.equal(p.row_ptr.diff(), torch.bincount(p.row_index, minlength=n_row).int())
    again = BlockPattern.from_mask(p.mask(), block)
    assert torch.equal(again.row_index, p.row_index)
    assert torch.equal(again.col_index, p.col_index)


def test_same_generator_state_gives_the_same_pattern():
    a, b = (
        BlockPattern.random((64, 64), (4, 4), 0.3, torch.Generator().manual_seed(9))
        for _ in range(2)
    )
    assert torch.equal(a.col_index, b.col_index)


def test_a_block_lives_if_one_entry_of_the_mask_does():
    mask = torch.zeros(5, 6, dtype=torch.bool)
    mask[4, 5] = mask[0, 1] = True
    p = BlockPattern.from_mask(mask, (2, 4))
    assert p.grid == (3, 2)
    assert list(zip(p.row_index.tolist(), p.col_index.tolist(), strict=True)) == [(0, 0), (2, 1)]
    assert p.nnz == 2 * 4 + 1 * 2
    assert p.row_index.dtype == p.col_ptr.dtype == torch.int32


def test_dense_pattern():
    p = BlockPattern.dense((5, 6), (2, 4))
    assert p.n_block == 6
    assert p.density == 1
    assert p.nnz == 30


def test_clear_errors():
    g = torch.Generator()
    i = torch.tensor([0, 1, 0])
    with pytest.raises(PatternError, match=r"density must lie in \(0, 1\], got 0"):
        BlockPattern.random((4, 4), (2, 2), 0, g)
    with pytest.raises(PatternError, match=r"block must be two positive sizes .* got \(0, 2\)"):
        BlockPattern.dense((4, 4), (0, 2))
    with pytest.raises(PatternError, match=r"block \(0, 1\) occurs twice"):
        BlockPattern.from_index((4, 4), (2, 2), i, torch.tensor([1, 0, 1]))
    with pytest.raises(IndexRangeError, match=r"row_index\[1\] = 2 but there are 2 block rows"):
        BlockPattern.from_index((4, 4), (2, 2), i * 2, i)
    with pytest.raises(ShapeError, match=r"col_index must have shape \[3\], got \[2\]"):
        BlockPattern.from_index((4, 4), (2, 2), i, i[:2])
    with pytest.raises(ShapeError, match=r"mask must have shape \[any, any\], got \[4\]"):
        BlockPattern.from_mask(torch.ones(4), (2, 2))
