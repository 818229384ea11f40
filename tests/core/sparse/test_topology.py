"""First patterns against entry-by-entry definitions."""

import pytest
import torch

from core.errors import PatternError
from core.sparse.pattern import BlockPattern
from core.sparse.topology import attention_blocks, banded, erdos_renyi_densities, grid_neighbours


def same(a, b):
    return torch.equal(a.row_index, b.row_index) and torch.equal(a.col_index, b.col_index)


@pytest.mark.parametrize("reach", [0, 1, 5, 100])
@pytest.mark.parametrize("block", [(1, 1), (4, 4), (3, 2)])
def test_a_band_holds_every_entry_within_reach(block, reach):
    i = torch.arange(26)
    near = (i[:, None] - i).abs() <= reach
    assert same(banded((26, 26), block, reach), BlockPattern.from_mask(near, block))


def test_a_band_of_a_wide_matrix_runs_from_corner_to_corner():
    pattern = banded((10, 40), (2, 2), 2)
    i, j = torch.arange(10.0), torch.arange(40.0)
    mask = pattern.mask()
    assert mask[(i[:, None] * 39 / 9 - j).abs() <= 2].all()
    assert mask[0, 0]
    assert mask[-1, -1]
    assert not mask[0, -1]
    # A block is 2 wide, a row step 39/9: no live entry is further from the diagonal than that.
    assert ((i[:, None] * 39 / 9 - j).abs()[mask] <= 2 + 2 + 39 / 9).all()


def test_grid_neighbours_wrap_in_longitude_and_end_in_latitude():
    mask = grid_neighbours(4, 6, 1, (1, 1)).mask()
    for p in range(24):
        (i, j), near = divmod(p, 6), set()
        for di in (-1, 0, 1):
            for dj in (-1, 0, 1):
                if 0 <= i + di < 4:
                    near.add((i + di) * 6 + (j + dj) % 6)
        assert set(mask[p].nonzero().flatten().tolist()) == near


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize(("window", "n_global"), [(0, 0), (1, 0), (4, 0), (5, 3), (9, 1)])
def test_attention_blocks_hold_every_pair_in_sight(window, n_global, is_causal):
    i = torch.arange(22)
    sees = (i[:, None] - i).abs() <= window
    first = i < -(-n_global // 4) * 4  # whole blocks are global
    sees |= first[:, None] | first
    wanted = BlockPattern.from_mask(sees, (4, 4))
    pattern = attention_blocks(22, 4, window=window, n_global=n_global, is_causal=is_causal)
    if is_causal:
        past = wanted.row_index >= wanted.col_index
        wanted = BlockPattern.from_index(
            (22, 22), (4, 4), wanted.row_index[past], wanted.col_index[past]
        )
    assert same(pattern, wanted)


def test_erdos_renyi_shares_a_density_between_layers():
    shapes = [(10, 1000), (1000, 1000), (300, 700), (2, 3)]
    out = erdos_renyi_densities(shapes, 0.1)
    kept = sum(d * r * c for d, (r, c) in zip(out, shapes, strict=True))
    assert kept == pytest.approx(0.1 * sum(r * c for r, c in shapes), rel=1e-12)
    assert out[0] == out[3] == 1.0
    assert out[1] / out[2] == pytest.approx((2000 / 1e6) / (1000 / 210_000), rel=1e-12)
    assert erdos_renyi_densities(shapes, 1.0) == pytest.approx([1.0] * 4)


def test_clear_errors():
    with pytest.raises(PatternError, match=r"reach must be 0 or more columns, got -1"):
        banded((4, 4), (2, 2), -1)
    with pytest.raises(PatternError, match=r"window and n_global .* got -2 and 0"):
        attention_blocks(8, 2, window=-2)
    with pytest.raises(PatternError, match=r"density must lie in \(0, 1\], got 0"):
        erdos_renyi_densities([(2, 2)], 0)
