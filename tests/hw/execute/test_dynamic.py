"""Dynamic products run bucket by bucket: the right product, the bytes and cycles charged."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw.execute import execute
from hw.execute.dynamic import fill_buckets
from hw.plan.dynamic import bucket_size, column_shares, propagation_steps
from hw.targets import cost_item
from hw.work import SparseContraction

#: One rounding to the format.
UNIT = {"fp32": 2.0**-24}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=12).filter(lambda n: sum(n) > 0))
def test_blocks_travel_as_far_as_the_plan_counts(count):
    belongs = np.repeat(np.arange(len(count)), count)
    room = int(bucket_size(belongs.size, len(count)))
    place, distance = fill_buckets(belongs, len(count), room)
    assert place.min() >= 0
    assert np.bincount(place).max() <= room
    assert distance.max() == propagation_steps(np.array(count))


@settings(max_examples=25, deadline=None)
@given(
    grid=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    side=st.sampled_from([1, 4, 8, 16]),
    n=st.integers(1, 40),
    density=st.floats(0.05, 1.0),
    product=st.sampled_from(["spmm", "spmm_t"]),
    n_tile=st.sampled_from([4, 24]),
    seed=st.integers(0, 99),
)
def test_random_patterns_agree_with_numpy_and_count_as_charged(
    grid, side, n, density, product, n_tile, seed, tiles, assert_counted_is_charged
):
    draw = np.random.default_rng(seed)
    live = draw.random(grid) < density
    live[draw.integers(grid[0]), draw.integers(grid[1])] = True
    row, col = np.nonzero(live)
    rows, cols = grid[0] * side, grid[1] * side
    item = SparseContraction(
        *(product, rows, cols, n, (side, side), row.size, "fp16", "fp16", "fp32", "dynamic"),
        *(row.astype(np.int64), col.astype(np.int64)),
    )
    values = draw.uniform(-1, 1, (row.size, side, side)).astype(np.float16).astype(np.float64)
    height = cols if product == "spmm" else rows
    x = draw.uniform(-1, 1, (height, n)).astype(np.float16).astype(np.float64)
    machine = tiles(n_tile)
    done = execute(item, machine, values, x)
    assert_counted_is_charged(done, cost_item(item, machine))
    matrix = np.zeros((rows, cols))
    for r, c, block in zip(row, col, values, strict=True):
        matrix[r * side : (r + 1) * side, c * side : (c + 1) * side] = block
    wanted = matrix @ x if product == "spmm" else matrix.T @ x
    bound = (row.size + n_tile + 2) * UNIT["fp32"] * (np.abs(matrix).sum() + 1)
    assert np.abs(done.result - wanted).max() <= bound


def test_a_lopsided_pattern_propagates(tiles):
    row, col = (i.ravel().astype(np.int64) for i in np.indices((16, 16)))  # one corner of four
    item = SparseContraction(
        *("spmm", 512, 512, 1, (16, 16), 256, "fp16", "fp16", "fp16", "dynamic"),
        *(row, col),
    )
    cost = cost_item(item, tiles(24))
    assert "0 propagation steps" not in cost.plan
    done = execute(item, tiles(24), np.ones((256, 16, 16)), np.ones((512, 1)))
    assert (done.result[:256] == 256).all()
    assert (done.result[256:] == 0).all()
    assert any(s.label == "propagation" for s in done.supersteps)


@pytest.mark.parametrize("product", ["spmm", "spmm_t"])
def test_columns_pass_in_serial_steps_where_memory_binds(product, tiles, assert_counted_is_charged):
    rows, cols = np.nonzero(np.arange(64).reshape(8, 8) % 3 > 0)
    item = SparseContraction(
        *(product, 128, 128, 100, (16, 16), rows.size, "fp16", "fp16", "fp32", "dynamic"),
        *(rows.astype(np.int64), cols.astype(np.int64)),
    )
    draw = np.random.default_rng(0)
    values = draw.uniform(-1, 1, (rows.size, 16, 16)).astype(np.float16).astype(np.float64)
    x = draw.uniform(-1, 1, (128, 100)).astype(np.float16).astype(np.float64)
    machine = tiles(4, memory_byte=50_000)
    shares = column_shares(item, machine)
    assert len(shares) > 2
    assert shares[-1] < shares[0], "the last step should be a short one"
    done = execute(item, machine, values, x)
    assert "serial steps" in done.plan
    assert_counted_is_charged(done, cost_item(item, machine))
    whole = execute(item, tiles(4), values, x)
    np.testing.assert_allclose(done.result, whole.result, atol=1e-4)
    assert len(column_shares(item, tiles(4))) == 1
