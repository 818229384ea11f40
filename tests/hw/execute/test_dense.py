"""Dense plans run tile by tile: the right product, and the bytes and cycles that were charged."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import ConfigError, ShapeError
from hw.execute import Execution, execute
from hw.machine import TileMachine, load_machine
from hw.plan.dense import choose_dense
from hw.targets import cost_item
from hw.work import Contraction

#: Half the distance of neighbours at 1, and half the least number: one rounding to the format.
UNIT = {"fp16": 2.0**-11, "fp32": 2.0**-24}
TINY = {"fp16": 2.0**-25, "fp32": 2.0**-150}


def run(item: Contraction, machine: TileMachine) -> tuple[Execution, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(item.m + 3 * item.k)
    a = draw.uniform(-1, 1, (item.batch, item.m, item.k))
    b = draw.uniform(-1, 1, (item.batch, item.k, item.n))
    return execute(item, machine, a, b), a, b


def bound(item: Contraction, machine: TileMachine, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the largest error that rounding allows: operands, each block, each partial sum."""
    plan, _ = choose_dense(item, machine)
    n_round = math.ceil(math.ceil(item.k / plan.p_k) / 16) + plan.p_k
    u = UNIT[item.a_format]
    grown = (1 + u) ** (2 + n_round) - 1
    # float64 products and sums, in the run and in the reference
    grown += 2 * item.k * 2.0**-53
    return grown * (np.abs(a) @ np.abs(b)) + n_round * TINY[item.a_format]


@settings(max_examples=25, deadline=None)
@given(
    batch=st.integers(1, 3),
    m=st.integers(1, 80),
    k=st.integers(1, 120),
    n=st.integers(1, 90),
    n_tile=st.integers(1, 40),
    format=st.sampled_from(["fp16", "fp32"]),
)
def test_product_bytes_and_cycles(batch, m, k, n, n_tile, format, tiles, assert_counted_is_charged):
    machine = tiles(n_tile)
    item = Contraction(batch, m, k, n, format, format, format)
    done, a, b = run(item, machine)
    exact = torch.bmm(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    assert (np.abs(done.result - exact) <= bound(item, machine, a, b)).all()
    assert_counted_is_charged(done, cost_item(item, machine))


def test_serial_steps_with_a_rest(tiles, assert_counted_is_charged):
    """Memory of 16 KiB a tile: the columns pass in several steps, the last one narrower."""
    machine = tiles(6, memory_byte=16_384)
    item = Contraction(1, 60, 100, 301, "fp16", "fp16", "fp16")
    plan, cost = choose_dense(item, machine)
    assert plan.n_step > 1
    assert -(-item.n // plan.p_n) % plan.step_column
    done, a, b = run(item, machine)
    assert (np.abs(done.result - a @ b) <= bound(item, machine, a, b)).all()
    assert_counted_is_charged(done, cost)


def test_swapped_operands(tiles, assert_counted_is_charged):
    machine = tiles(12)
    item = Contraction(2, 30, 48, 70, "fp16", "fp16", "fp16")
    plan, cost = choose_dense(item, machine)
    assert plan.swapped
    done, a, b = run(item, machine)
    assert (np.abs(done.result - a @ b) <= bound(item, machine, a, b)).all()
    assert_counted_is_charged(done, cost)


def test_results_are_numbers_of_the_partial_format(tiles):
    done, _, _ = run(Contraction(1, 40, 64, 40, "fp16", "fp16", "fp16"), tiles(8))
    assert (done.result == done.result.astype(np.float16)).all()


def test_missing_format_runs_in_its_substitute(tiles, assert_counted_is_charged):
    """Int8 codes stay one byte while they travel, and are multiplied in fp16."""
    item = Contraction(1, 64, 32, 48, "int8", "fp16", "fp16")
    done, _, _ = run(item, tiles(8))
    assert "int8 as fp16" in done.plan
    assert_counted_is_charged(done, cost_item(item, tiles(8)))


def test_slips(tiles):
    item = Contraction(1, 2, 3, 4, "fp16", "fp16", "fp16")
    with pytest.raises(ConfigError, match="a100 is a gpu machine, not one of tiles"):
        execute(item, load_machine("a100"), np.ones((1, 2, 3)), np.ones((1, 3, 4)))
    with pytest.raises(ShapeError, match=r"right must be \(1, 3, 4\), got \(1, 4, 3\)"):
        execute(item, tiles(4), np.ones((1, 2, 3)), np.ones((1, 4, 3)))
