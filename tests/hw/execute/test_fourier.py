"""Fourier and Legendre transforms: run as planned, agree with torch and with closed forms."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import lpmv

from hw.execute import execute
from hw.execute.fourier import real_transform
from hw.plan.dense import vertex_cycles
from hw.plan.fourier import factors, fast_cycles, passes
from hw.single import parse_op
from hw.targets import cost_item
from hw.work import Contraction, Fourier

UNIT = {"fp16": 2.0**-11, "fp32": 2.0**-24}


def draw(shape, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, shape)


def wanted(x):
    return torch.view_as_real(torch.fft.rfft(torch.from_numpy(x))).numpy()


def bound(length, format):
    """Return the rounding of entries, twiddles and results of each pass, for sums of `length`."""
    return 8 * UNIT[format] * length * (1 + len(factors(length)))


@settings(max_examples=30, deadline=None)
@given(batch=st.integers(1, 80), length=st.integers(1, 120), n_tile=st.sampled_from([1, 8, 64]))
def test_transforms_agree_with_torch(batch, length, n_tile, tiles):
    item, machine, x = Fourier(batch, length, "fp32"), tiles(n_tile), draw((batch, length))
    done, cost = execute(item, machine, x), cost_item(item, machine)
    assert done.result.shape == (batch, length // 2 + 1, 2)
    assert np.abs(done.result - wanted(x)).max() <= bound(length, "fp32")
    assert done.plan == cost.plan
    counted, charged = (
        {s.label: s.cycles for s in of.supersteps if s.kind == "compute"} for of in (done, cost)
    )
    assert counted == pytest.approx(charged, rel=1e-12)


@pytest.mark.parametrize("format", ["fp16", "fp32"])
@pytest.mark.parametrize(
    ("batch", "length", "n_tile", "is_fast"),
    [(64, 64, 16, True), (1024, 256, 64, True), (128, 192, 64, True), (4, 2048, 4, True),
     (64, 32, 64, None), (256, 96, 8, None)],
)  # fmt: skip
def test_even_transforms_count_as_charged(
    batch, length, n_tile, is_fast, format, tiles, assert_counted_is_charged
):
    item, machine, x = Fourier(batch, length, format), tiles(n_tile), draw((batch, length))
    done, cost = execute(item, machine, x), cost_item(item, machine)
    assert_counted_is_charged(done, cost)
    if is_fast:
        assert cost.plan.startswith("fast transform")
    assert cost.runner_up is not None
    assert np.abs(done.result - wanted(x)).max() <= bound(length, format)


def test_many_short_lines_of_prime_length_are_a_product(tiles, assert_counted_is_charged):
    item, machine = Fourier(16384, 13, "fp16"), tiles(64)
    x = draw((16384, 13))
    done, cost = execute(item, machine, x), cost_item(item, machine)
    assert cost.plan.startswith("product with the transform's matrix")
    assert_counted_is_charged(done, cost)
    assert np.abs(done.result - wanted(x)).max() <= bound(13, "fp16")


def test_passes_by_hand():
    """Eight points: four complex ones in two passes of radix 2, split at the end."""
    assert factors(360) == (2, 2, 2, 3, 3, 5)
    assert passes(8) == ((2, 2.5), (2, 2.5), (0, 3.5))
    # complex: two twiddle products, six complex additions, four products, for three entries
    assert passes(3) == ((3, (12 + 12 + 24) / 3),)
    assert passes(2) == ((0, 3.5),)
    assert passes(1) == ((1, 0.0),)
    line = np.cos(2 * np.pi * 3 * np.arange(16) / 16)[None]
    spectrum = real_transform(line, "fp32")[0]
    assert abs(spectrum[3] - 8) <= bound(16, "fp32")
    assert np.abs(np.delete(spectrum, 3)).max() <= bound(16, "fp32")


def test_a_pass_waits_for_memory_where_arithmetic_is_quick(tiles):
    """Even lines are packed: an entry is read and written as one number, of odd ones as two."""
    machine = replace(tiles(1), vector_per_cycle={"fp32": 1e9})
    start = vertex_cycles(machine)
    load, store = machine.load_byte_per_cycle, machine.store_byte_per_cycle
    copied = 5 * 4 * (1 / load + 1 / store)  # five lines of fp32, for each of their entries
    assert fast_cycles(machine, "fp32", 4.0, 4, 5) == 2 * (start + 4 * copied)
    assert fast_cycles(machine, "fp32", 4.0, 3, 5) == start + 2 * 3 * copied


def test_a_long_prime_is_dearer_than_its_neighbour(tiles):
    machine = tiles(16)
    prime, even = (cost_item(Fourier(64, n, "fp32"), machine).time_s for n in (1021, 1024))
    assert prime > 2 * even


@pytest.mark.parametrize("format", ["fp16", "fp32"])
def test_a_legendre_transform_finds_each_polynomial(format, tiles, assert_counted_is_charged):
    """Gauss-Legendre analysis of P_l^m itself gives one coefficient; the product is the item's."""
    n_wave, n_degree, n_latitude = 3, 8, 16
    mu, weight = np.polynomial.legendre.leggauss(n_latitude)
    table = np.zeros((n_wave, n_degree, n_latitude))
    for m in range(n_wave):
        for degree in range(m, n_degree):
            p = lpmv(m, degree, mu)
            table[m, degree] = p / np.sqrt((p * p * weight).sum())
    item = parse_op(f"legendre m={n_wave} degree={n_degree} latitude={n_latitude} n={n_degree} "
                    f"dtype={format}")  # fmt: skip
    assert isinstance(item, Contraction)
    machine = tiles(24)
    fields = table.transpose(0, 2, 1)  # a column for each degree
    done = execute(item, machine, table * weight, fields)
    assert_counted_is_charged(done, cost_item(item, machine))
    limit = 8 * n_latitude * UNIT[format]
    for m in range(n_wave):
        expected = np.diag((np.arange(n_degree) >= m).astype(float))
        assert np.abs(done.result[m] - expected).max() <= limit
    product = torch.bmm(torch.from_numpy(table * weight), torch.from_numpy(fields)).numpy()
    assert np.abs(done.result - product).max() <= limit
