"""Pointwise work, chains with and without a sum, moves: run as planned."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import ConfigError, ShapeError
from hw.execute import execute
from hw.machine import load_machine
from hw.targets import cost_item
from hw.work import Fused, HostRead, Move, Pointwise, Reduction

DTYPE = {"fp16": np.float16, "fp32": np.float32}
UNIT = {"fp16": 2.0**-11, "fp32": 2.0**-24}
FORMATS = st.sampled_from(["fp16", "fp32"])
TILES = st.sampled_from([1, 7, 64])


def draw(shape, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, shape)


def stored(x, format):
    """Round once; torch would round a double to half by way of a float."""
    return torch.from_numpy(np.asarray(x).astype(DTYPE[format]).astype(np.float64))


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 5000), format=FORMATS, n_tile=TILES,
       what=st.sampled_from([("arithmetic", 2, np.add, torch.add),
                             ("divide", 1, np.sqrt, torch.sqrt),
                             ("transcendental", 1, np.tanh, torch.tanh)]))  # fmt: skip
def test_pointwise_work_agrees_with_torch_and_counts_as_charged(
    n, format, n_tile, what, tiles, assert_counted_is_charged
):
    kind, n_input, ours, theirs = what
    item, machine = Pointwise(n, kind, format, format, n_input), tiles(n_tile)
    operands = [draw(n, i) + (1.0 if kind == "divide" else 0.0) for i in range(n_input)]
    done = execute(item, machine, *operands, function=ours)
    assert_counted_is_charged(done, cost_item(item, machine))
    wanted = theirs(*[stored(x, format) for x in operands])
    assert np.array_equal(done.result, stored(wanted, format).numpy())


@settings(max_examples=20, deadline=None)
@given(n=st.integers(1, 3000), n_tile=TILES, format=FORMATS)
def test_a_chain_rounds_after_each_step(n, n_tile, format, tiles, assert_counted_is_charged):
    """GELU's tanh form, as x times a gate, then a sum with a shortcut."""
    steps = (Pointwise(n, "transcendental", format, format),
             Pointwise(n, "arithmetic", format, format, 2, 2.0))  # fmt: skip
    item, machine = Fused(steps), tiles(n_tile)
    x, y, z = draw(n), draw(n, 1), draw(n, 2)
    done = execute(item, machine, x, y, z, function=[np.tanh, lambda t, a, b: t * a + b])
    assert_counted_is_charged(done, cost_item(item, machine))
    x, y, z = (stored(v, format) for v in (x, y, z))
    wanted = stored(x.tanh(), format) * y + z
    assert np.array_equal(done.result, stored(wanted, format).numpy())


@settings(max_examples=20, deadline=None)
@given(n_out=st.integers(1, 40), n_reduced=st.integers(2, 900), n_tile=TILES, format=FORMATS)
def test_a_sum_at_the_end_of_a_chain(
    n_out, n_reduced, n_tile, format, tiles, assert_counted_is_charged
):
    step = Pointwise(n_out * n_reduced, "arithmetic", format, format)
    item = Fused((step,), Reduction(n_out, n_reduced, format, format))
    machine, x = tiles(n_tile), draw((n_out, n_reduced))
    done = execute(item, machine, x, function=np.square)
    assert_counted_is_charged(done, cost_item(item, machine))
    # rounding of entry and square, one for each of at most n_tile pieces and each addition of them
    bound = UNIT[format] * (4 + n_tile) * (np.square(x).sum(1) + 1)
    assert np.all(np.abs(done.result - np.square(x).sum(1)) <= bound)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int64])
@pytest.mark.parametrize("shape", [(64, 128), (256, 64)])
@pytest.mark.parametrize("n_tile", [1, 16, 64])
def test_a_transposition_counts_as_charged(shape, dtype, n_tile, tiles, assert_counted_is_charged):
    x = np.arange(shape[0] * shape[1]).reshape(shape).astype(dtype)
    item, machine = Move(x.nbytes, "rearrange"), tiles(n_tile)
    done = execute(item, machine, x)
    assert_counted_is_charged(done, cost_item(item, machine))
    assert done.result.dtype == dtype
    assert np.array_equal(done.result, torch.from_numpy(x).T.contiguous().numpy())


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(1, 90), columns=st.integers(1, 90), n_tile=st.integers(1, 64))
def test_odd_transpositions_move_about_what_is_charged(rows, columns, n_tile, tiles):
    x = draw((rows, columns)).astype(np.float32)
    item, machine = Move(x.nbytes, "reorder"), tiles(n_tile)
    done, cost = execute(item, machine, x), cost_item(item, machine)
    assert np.array_equal(done.result, x.T)
    assert done.received_byte.sum() == done.sent_byte.sum() <= x.nbytes
    placed = [s.cycles for s in done.supersteps if s.kind == "compute"]
    assert placed == [s.cycles for s in cost.supersteps if s.kind == "compute"]
    if min(rows, columns) > 1 and max(rows, columns) >= 2 * n_tile:
        # rows that do not divide leave the first and last tiles more of their own
        assert done.received_byte.sum() >= 0.6 * cost.exchange_byte


@pytest.mark.parametrize("kind", ["copy", "fill"])
def test_copies_and_fills_stay_on_their_tiles(kind, tiles, assert_counted_is_charged):
    machine, item = tiles(16), Move(4 * 1003, kind)
    x = np.float32(2.5) if kind == "fill" else draw(1003).astype(np.float32)
    done = execute(item, machine, x)
    assert_counted_is_charged(done, cost_item(item, machine))
    assert np.array_equal(done.result, np.full(1003, 2.5) if kind == "fill" else x)
    assert done.received_byte.sum() == 0


def test_operands_that_do_not_fit_the_item():
    machine = load_machine("ipu_bow")
    add = Pointwise(4, "arithmetic", "fp32", "fp32", 2)
    with pytest.raises(ShapeError, match="a Fused takes 2 operands, got 1"):
        execute(add, machine, np.ones(4), function=np.add)
    with pytest.raises(ConfigError, match=r"pointwise work of 1 steps needs .* give function="):
        execute(add, machine, np.ones(4), np.ones(4))
    with pytest.raises(ShapeError, match=r"right must be \(4,\), got \(5,\)"):
        execute(add, machine, np.ones(4), np.ones(5), function=np.add)
    with pytest.raises(ShapeError, match=r"left must have 2 axes for a rearrange, got \(8,\)"):
        execute(Move(64, "rearrange"), machine, np.ones(8))
    with pytest.raises(ShapeError, match=r"left must hold 60 byte, got 64 \(float64\)"):
        execute(Move(60, "copy"), machine, np.ones(8))
    with pytest.raises(ConfigError, match="a HostRead has nothing to compute"):
        execute(HostRead(4), machine)
