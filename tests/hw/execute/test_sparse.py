"""Static sparse plans run tile by tile: the right product, and what was charged for it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import ConfigError, ShapeError
from hw.execute import Execution, execute
from hw.machine import TileMachine
from hw.plan.sparse import choose_static
from hw.targets import cost_item
from hw.work import SparseContraction

#: Half the distance of neighbours at 1, and half the least number: one rounding to the format.
UNIT = {"fp16": 2.0**-11, "fp32": 2.0**-24}
TINY = {"fp16": 2.0**-25, "fp32": 2.0**-150}


def make(product: str, mask: np.ndarray, b: int, n: int, format: str = "fp16"):
    row, col = np.nonzero(mask)
    order = np.random.default_rng(3).permutation(row.size)
    return SparseContraction(
        product,  # type: ignore[arg-type]
        *(b * np.array(mask.shape)).tolist(),
        n,
        (b, b),
        row.size,
        *(format, format, format),
        row_index=row[order],
        col_index=col[order],
    )


def run(item: SparseContraction, machine: TileMachine) -> tuple[Execution, np.ndarray, np.ndarray]:
    """Return the run, what torch gives in float64, and the same product of absolute values."""
    draw = np.random.default_rng(item.n)
    values = draw.uniform(-1, 1, (item.n_block, *item.block))
    x, y = draw.uniform(-1, 1, (item.cols, item.n)), draw.uniform(-1, 1, (item.rows, item.n))
    left, right = {"spmm": (values, x), "spmm_t": (values, y), "sddmm": (y, x)}[item.product]
    done = execute(item, machine, left, right)
    return done, reference(item, left, right), reference(item, np.abs(left), np.abs(right))


def reference(item: SparseContraction, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    assert item.row_index is not None
    assert item.col_index is not None
    br, bc = item.block
    shape = (item.rows // br, item.cols // bc, br, bc)
    if item.product == "sddmm":
        dense = torch.from_numpy(left) @ torch.from_numpy(right).T
        blocks = dense.reshape(shape[0], br, shape[1], bc).transpose(1, 2)
        return blocks[item.row_index, item.col_index].numpy()
    blocks = torch.zeros(shape, dtype=torch.float64)
    blocks[item.row_index, item.col_index] = torch.from_numpy(left)
    matrix = blocks.transpose(1, 2).reshape(item.rows, item.cols)
    matrix = matrix.T if item.product == "spmm_t" else matrix
    return (matrix @ torch.from_numpy(right)).numpy()


def most_roundings(item: SparseContraction, machine: TileMachine) -> int:
    """Each block of a row (each run of 16 columns), each part of a sum, and the operands' own."""
    plan, _ = choose_static(item, machine)
    assert plan is not None
    if item.product == "sddmm":
        return -(-plan.n_l // 16) + plan.n_split + 2
    by_row = np.bincount(plan.placement.row, minlength=1)
    return int(by_row.max()) + int(plan.placement.n_partial.max()) + 3


def assert_right(item: SparseContraction, machine: TileMachine) -> Execution:
    done, exact, size = run(item, machine)
    n_round, u = most_roundings(item, machine), UNIT[item.dense_format]
    # float64 products and sums, in the run and in the reference
    grown = (1 + u) ** n_round - 1 + 2 * max(item.cols, item.rows, item.n) * 2.0**-53
    bound = grown * size + n_round * TINY[item.dense_format]
    assert done.result.shape == exact.shape
    assert (np.abs(done.result - exact) <= bound).all()
    return done


@settings(max_examples=25, deadline=None)
@given(
    product=st.sampled_from(["spmm", "spmm_t", "sddmm"]),
    b=st.sampled_from([1, 4, 16]),
    rows=st.integers(1, 9),
    cols=st.integers(1, 9),
    n=st.integers(1, 40),
    density=st.floats(0.05, 1.0),
    n_tile=st.integers(2, 48),
    format=st.sampled_from(["fp16", "fp32"]),
    seed=st.integers(0, 99),
)
def test_product_bytes_and_cycles(
    product, b, rows, cols, n, density, n_tile, format, seed, tiles, assert_counted_is_charged
):
    mask = np.random.default_rng(seed).random((rows, cols)) < density
    mask[rows // 2, cols // 2] = True
    item, machine = make(product, mask, b, n, format), tiles(n_tile)
    assert_counted_is_charged(assert_right(item, machine), cost_item(item, machine))


@pytest.mark.parametrize("product", ["spmm", "spmm_t", "sddmm"])
def test_all_phases_take_part(product, tiles, assert_counted_is_charged):
    """A case with sums over tiles, split columns and an empty row, so that no phase is missing."""
    mask = np.random.default_rng(0).random((12, 12)) < 0.4
    mask[5], mask[:, 7] = False, False
    item, machine = make(product, mask, 4, 101), tiles(48)
    plan, cost = choose_static(item, machine)
    assert plan is not None
    assert plan.n_split > 1
    labels = {step.label for step in cost.supersteps}
    assert {"dense rows to the tiles", "partial sums", "reduction"} <= labels
    if product != "sddmm":
        assert "live blocks to the tiles" in labels
        assert plan.placement.n_partial.max() > 1
    assert_counted_is_charged(assert_right(item, machine), cost)


def test_empty_pattern_gives_zeros(tiles, assert_counted_is_charged):
    item = make("spmm", np.zeros((3, 3), dtype=bool), 4, 10)
    done = execute(item, tiles(8), np.zeros((0, 4, 4)), np.ones((12, 10)))
    assert not done.result.any()
    assert done.received_byte.sum() == 0
    assert_counted_is_charged(done, cost_item(item, tiles(8)))


def test_int8_blocks_travel_in_one_byte(tiles, assert_counted_is_charged):
    mask = np.random.default_rng(1).random((6, 6)) < 0.5
    item = replace(make("spmm", mask, 16, 64), weight_format="int8")
    codes = np.random.default_rng(2).integers(-127, 128, (item.n_block, 16, 16)).astype(float)
    x = np.random.default_rng(3).uniform(-1, 1, (item.cols, item.n))
    done = execute(item, tiles(48), codes, x)
    assert_counted_is_charged(done, cost_item(item, tiles(48)))
    exact = reference(item, codes, x)
    assert np.abs(done.result - exact).max() < 0.01 * np.abs(exact).max()


def test_slips(tiles):
    item = make("spmm", np.ones((2, 2), dtype=bool), 4, 6)
    good = np.ones((4, 4, 4)), np.ones((8, 6))
    with pytest.raises(ShapeError, match=r"left must be \(4, 4, 4\), got \(8, 8\)"):
        execute(item, tiles(4), np.ones((8, 8)), good[1])
    for mode in ("static", "dynamic"):
        with pytest.raises(ConfigError, match="the item has no pattern; give row_index"):
            execute(replace(item, row_index=None, mode=mode), tiles(4), *good)
