"""Reductions, row operations, attention, convolutions: run as planned."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from core.errors import ConfigError, ShapeError
from hw.execute import execute, execute_attention
from hw.machine import load_machine
from hw.targets import cost_item
from hw.work import Attention, Contraction, Reduction, Softmax

#: One rounding to the format.
UNIT = {"fp16": 2.0**-11, "fp32": 2.0**-24}
SIZES = st.integers(1, 70)
FORMATS = st.sampled_from(["fp16", "fp32"])


def draw(shape, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, shape)


@settings(max_examples=25, deadline=None)
@given(
    n_out=SIZES, n_reduced=st.integers(2, 3000), format=FORMATS, n_tile=st.sampled_from([1, 7, 64])
)
def test_reductions_sum_and_count_as_charged(
    n_out, n_reduced, format, n_tile, tiles, assert_counted_is_charged
):
    item, machine = Reduction(n_out, n_reduced, format, format), tiles(n_tile)
    x = draw((n_out, n_reduced))
    done = execute(item, machine, x)
    assert_counted_is_charged(done, cost_item(item, machine))
    # the operand's rounding, one for each of at most n_tile pieces and for each addition of them
    bound = UNIT[format] * (2 + n_tile) * (np.abs(x).sum(1) + 1)
    assert np.all(np.abs(done.result - x.sum(1)) <= bound)


@settings(max_examples=20, deadline=None)
@given(n_row=SIZES, n_col=st.integers(2, 400), kind=st.sampled_from(["softmax", "layer_norm"]),
       n_tile=st.sampled_from([4, 32]))  # fmt: skip
def test_row_operations_agree_with_torch_and_count_as_charged(
    n_row, n_col, kind, n_tile, tiles, assert_counted_is_charged
):
    item, machine = Softmax(n_row, n_col, "fp32", kind), tiles(n_tile)
    x = 3 * draw((n_row, n_col))
    done = execute(item, machine, x)
    assert_counted_is_charged(done, cost_item(item, machine))
    t = torch.from_numpy(x)
    wanted = t.softmax(1) if kind == "softmax" else F.layer_norm(t, (n_col,))
    # a dozen roundings of values up to 3, a root's reciprocal up to 1 / sqrt(1e-5)
    bound = 64 * UNIT["fp32"] * (1 if kind == "softmax" else 1e3)
    assert np.abs(done.result - wanted.numpy()).max() <= bound


def test_a_softmax_of_large_scores_does_not_overflow(tiles):
    """Of exp only differences to the greatest are taken: exp(88.8) is no number of fp32."""
    x = np.array([[500.0, 499.0, -500.0]])
    done = execute(Softmax(1, 3, "fp32"), tiles(4), x)
    assert done.result[0] == pytest.approx([1 / (1 + np.exp(-1)), 1 / (1 + np.e), 0.0])


@pytest.mark.parametrize("sizes", [(2, 5, 7, 4, 3), (3, 16, 16, 8, 8)])
def test_attention_agrees_with_torch_and_its_parts_count_as_charged(
    sizes, tiles, assert_counted_is_charged
):
    batch, n_query, n_key, d, d_value = sizes
    machine = tiles(48)
    q, k, v = (
        draw((batch, n_query, d)),
        draw((batch, n_key, d), 1),
        draw((batch, n_key, d_value), 2),
    )
    result, parts = execute_attention(machine, "fp32", q, k, v)
    wanted = F.scaled_dot_product_attention(*(torch.from_numpy(a) for a in (q, k, v)))
    assert np.abs(result - wanted.numpy()).max() <= 64 * (d + n_key) * UNIT["fp32"]
    item = Attention(batch, n_query, n_key, d, d_value, "fp32")
    for part, of_part in zip(parts, item.parts, strict=True):
        assert_counted_is_charged(part, cost_item(of_part, machine))
    done = execute(item, machine, q, k, v)
    assert np.array_equal(done.result, result)
    assert_counted_is_charged(done, cost_item(item, machine))
    with pytest.raises(ConfigError, match="a Attention has nothing to compute, or is run by its"):
        execute(replace(item, is_backward=True), machine, q, k, v)


@pytest.mark.parametrize(("groups", "stride"), [(1, 1), (1, 2), (2, 1)])
def test_a_convolution_is_the_product_of_its_windows(groups, stride, tiles):
    x, w = torch.from_numpy(draw((2, 4, 9, 9))), torch.from_numpy(draw((6, 4 // groups, 3, 3), 1))
    wanted = F.conv2d(x, w, stride=stride, padding=1, groups=groups)
    windows = F.unfold(x, 3, padding=1, stride=stride)  # [image, channel x tap, position]
    b = windows.transpose(0, 1).reshape(groups, -1, 2 * wanted[0, 0].numel())
    a = w.reshape(groups, 6 // groups, -1)
    window = max(1.0, b.numel() / x.numel())
    item = Contraction(*(groups, a.shape[1], a.shape[2], b.shape[2]), *["fp32"] * 3,
                       n_group=groups, window=window)  # fmt: skip
    machine = tiles(24)
    done, cost = execute(item, machine, a.numpy(), b.numpy()), cost_item(item, machine)
    out = done.result.reshape(6, 2, *wanted.shape[2:]).transpose(1, 0, 2, 3)
    assert np.abs(out - wanted.numpy()).max() <= 64 * 36 * UNIT["fp32"]
    for counted, charged in zip(done.supersteps, cost.supersteps, strict=True):
        assert counted.cycles == pytest.approx(charged.cycles, rel=1e-12)
        # entries of overlapping windows are counted in fractions
        assert counted.received_byte == pytest.approx(charged.received_byte, rel=1e-12)


def test_operands_that_do_not_fit_the_item():
    machine = load_machine("ipu_bow")
    with pytest.raises(ShapeError, match="a Reduction takes 1 operands"):
        execute(Reduction(2, 3, "fp32", "fp32"), machine, np.ones((2, 3)), np.ones(3))
