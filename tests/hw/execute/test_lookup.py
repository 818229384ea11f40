"""Rows picked, and rows added up, by an index: run as planned."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import ShapeError
from hw.execute import execute
from hw.machine import load_machine
from hw.plan.lookup import choose_gather, choose_scatter
from hw.targets import cost_item
from hw.work import Gather, Scatter

#: One rounding to the format.
UNIT = {"fp16": 2.0**-11, "fp32": 2.0**-24}


def draw(shape, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, shape)


def even_index(n_table, n_owner, again):
    """Neighbours in the index belong to tiles in turn, so that every share of it falls evenly."""
    return np.tile(np.arange(n_table).reshape(n_owner, -1).T.ravel(), again)


@settings(max_examples=20, deadline=None)
@given(n_source=st.sampled_from([1, 8, 32, 128]), width=st.sampled_from([1, 8, 24, 64]),
       again=st.sampled_from([8, 32, 64]), n_tile=st.sampled_from([1, 16, 64]),
       format=st.sampled_from(["fp16", "fp32"]),
       memory_byte=st.sampled_from([638_976, 8192]))  # fmt: skip
def test_rows_picked_by_an_even_index_count_as_charged(
    n_source, width, again, n_tile, format, memory_byte, tiles, assert_counted_is_charged
):
    item, machine = Gather(n_source * again, width, n_source, format), tiles(n_tile, memory_byte)
    (p_row, p_index, p_col), cost = choose_gather(item, machine)
    index = even_index(n_source, p_row, again)
    x = draw((n_source, width))
    done = execute(item, machine, index, x)
    stored = torch.from_numpy(x.astype(np.float16 if format == "fp16" else np.float32))
    assert np.array_equal(done.result, stored[torch.from_numpy(index)].double().numpy())
    divides = width % p_col == 0 and n_source * width // p_row // p_col % p_index == 0
    if divides and index.size % (p_index * p_row**2) == 0:
        assert_counted_is_charged(done, cost)
    assert done.received_byte.sum() <= cost.exchange_byte * (1 + 1e-12)


@pytest.mark.parametrize("format", ["fp16", "fp32"])
def test_a_table_that_is_shared_out_sends_what_it_finds(format, tiles, assert_counted_is_charged):
    item, machine = Gather(1 << 13, 1, 1 << 13, format), tiles(64, 8192)
    (p_row, _, _), cost = choose_gather(item, machine)
    assert p_row > 1
    x = draw((1 << 13, 1))
    index = even_index(1 << 13, p_row, 1)
    done = execute(item, machine, index, x)
    assert_counted_is_charged(done, cost)
    assert done.received_byte.sum() > 0
    assert np.abs(done.result - x[index]).max() <= UNIT[format]


def test_random_rows_are_picked_and_cost_more_than_the_even_ones_that_are_charged(tiles):
    n_source = 1 << 18  # more than fits on a tile
    item, machine = Gather(4096, 1, n_source, "fp32"), tiles(64)
    assert choose_gather(item, machine)[0][0] > 1
    index = np.random.default_rng(1).integers(0, n_source, 4096)
    x = draw((n_source, 1))
    done, cost = execute(item, machine, index, x), cost_item(item, machine)
    wanted = torch.from_numpy(x).float()[torch.from_numpy(index)]
    assert np.array_equal(done.result, wanted.double().numpy())
    by_label = {s.label: s.cycles for s in done.supersteps}
    charged = {s.label: s.cycles for s in cost.supersteps}
    assert by_label.keys() == charged.keys()
    assert by_label["gather"] > charged["gather"]
    crooked = execute(item, machine, np.zeros(4096), x)
    assert sum(s.cycles for s in crooked.supersteps) > sum(by_label.values())


@settings(max_examples=15, deadline=None)
@given(n_target=st.sampled_from([1, 8, 32]), width=st.integers(1, 40),
       again=st.sampled_from([1, 4, 8]), n_tile=st.sampled_from([1, 16, 64]))  # fmt: skip
def test_sums_by_an_even_index_count_as_charged(n_target, width, again, n_tile, tiles):
    item, machine = Scatter(n_target * again * 8, width, n_target, "fp32"), tiles(n_tile)
    n_owner = choose_scatter(item, machine)[0][0]
    index = even_index(n_target, n_owner, again * 8)
    x = draw((index.size, width))
    done, cost = execute(item, machine, index, x), cost_item(item, machine)
    wanted = torch.zeros(n_target, width, dtype=torch.float64)
    wanted.index_add_(0, torch.from_numpy(index), torch.from_numpy(x))
    assert np.abs(done.result - wanted.numpy()).max() <= 2 * index.size * UNIT["fp32"]
    assert [s.label for s in done.supersteps] == [s.label for s in cost.supersteps]
    for counted, charged in zip(done.supersteps, cost.supersteps, strict=True):
        # shares that do not divide leave the last tiles less
        assert counted.cycles <= charged.cycles * (1 + 1e-12)
        assert counted.received_byte <= charged.received_byte * (1 + 1e-12)
    if width % 8 == 0:
        assert done.received_byte.sum() == pytest.approx(cost.exchange_byte, rel=1e-12)


def test_a_crooked_index_costs_more_than_the_even_one_that_is_charged(tiles):
    item, machine = Scatter(256, 8, 32, "fp32"), tiles(16)
    x = draw((256, 8))
    crooked = execute(item, machine, np.zeros(256), x)
    charged = {s.label: s.cycles for s in cost_item(item, machine).supersteps}
    counted = {s.label: s.cycles for s in crooked.supersteps}
    assert counted["scatter"] > charged["scatter"]
    assert np.abs(crooked.result[0] - x.sum(0)).max() <= 512 * UNIT["fp32"]


def test_an_index_beyond_the_table():
    machine = load_machine("ipu_bow")
    for item, rows in ((Scatter(2, 3, 4, "fp32"), 2), (Gather(2, 3, 4, "fp32"), 4)):
        with pytest.raises(ShapeError, match=r"left must lie in 0..3, got 0 to 4"):
            execute(item, machine, np.array([0, 4]), np.ones((rows, 3)))
