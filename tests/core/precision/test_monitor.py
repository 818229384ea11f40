"""Readings by hand, warnings in time, hooks that come off."""

import math
import warnings

import pytest
import torch
from torch import nn

from core.precision import (
    RECIPES,
    Limits,
    PrecisionMonitor,
    PrecisionPolicy,
    PrecisionWarning,
    fit_of,
)
from core.sparse import LayerSpec, build_linear


def test_a_fit_by_hand():
    x = torch.tensor([1.0, 1e6, -(2.0**-26), 2.0**-24, 0.0, torch.nan, torch.inf])
    fit = fit_of(x, "fp16")
    assert fit.n_not_finite == 2
    assert fit.max_abs == 1e6
    assert fit.saturation == 1 / 5
    assert fit.underflow == 1 / 4
    assert fit.headroom_bit == pytest.approx(math.log2(65504 / 1e6))
    # Nearly all error is 1e6 held as 65504.
    want = 10 * math.log10((1e12 + 1) / (1e6 - 65504) ** 2)
    assert fit.sqnr_db == pytest.approx(want, abs=1e-6)


def test_scaled_formats_and_edges():
    x = torch.tensor([100.0, 50.0, 0.1])
    assert fit_of(x, "int8").saturation == 0
    assert fit_of(x, "int8").headroom_bit == pytest.approx(0, abs=1e-9)
    assert fit_of(x, "int8").underflow == 1 / 3
    assert fit_of(x, "int8", scale=torch.tensor(0.5)).saturation == 1 / 3
    rows = torch.tensor([[100.0, 50.0], [0.1, 0.05]])
    assert fit_of(rows, "int8", axis=0).underflow == 0
    assert fit_of(torch.zeros(3), "fp16").sqnr_db == math.inf
    assert fit_of(torch.zeros(3), "binary").sqnr_db == -math.inf
    assert fit_of(torch.zeros(0), "int8").max_abs == 0
    assert fit_of(x, "fp32").sqnr_db == math.inf


@pytest.mark.parametrize("name", ["bf16", "fp16", "tf32"])
def test_each_fraction_bit_is_worth_six_decibel(name):
    """Error uniform in +-step/2 on [1, 2): SQNR = E[x^2] 12 / step^2 with E[x^2] = 7/3."""
    n_mantissa = {"bf16": 7, "fp16": 10, "tf32": 10}[name]
    x = 1 + torch.rand(1 << 16, generator=torch.Generator().manual_seed(1))
    want = 10 * math.log10(7 / 3 * 12 * 4.0**n_mantissa)
    assert fit_of(x, name).sqnr_db == pytest.approx(want, abs=0.1)


def test_every_role_of_every_layer_is_read_in_its_steps_only():
    g = torch.Generator().manual_seed(1)
    model = nn.Sequential(
        build_linear(8, 8, LayerSpec(0.5, 2), generator=g), nn.ReLU(), nn.Linear(8, 4)
    )
    monitor = PrecisionMonitor(model, RECIPES["fp8"], every=2)
    for _ in range(3):
        model(torch.randn(5, 8, generator=g)).square().sum().backward()
        monitor.step()
    model.eval()(torch.randn(5, 8))
    seen = [(r.step, r.layer, r.role, r.format) for r in monitor.readings]
    for step in (0, 2):
        for layer in ("0", "2"):
            for role, name in (("weight", "e4m3"), ("activation", "e4m3"), ("gradient", "e5m2")):
                assert seen.count((step, layer, role, f"fp8_{name}")) == 1
    assert len(seen) == 12
    # 30.5 dB is the floor of e4m3 on normal draws (test_quantize.py); uniform weights do as well.
    assert all(r.sqnr_db > 30 for r in monitor.readings if r.role != "gradient")
    lines = monitor.summary().splitlines()
    assert len(lines) == 1 + 6
    assert lines[0].split()[:3] == ["layer", "role", "format"]
    r = monitor.readings[-1]
    row = next(line.split() for line in lines if line.split()[:2] == [r.layer, r.role])
    assert float(row[3]) == pytest.approx(r.max_abs, rel=5e-3)
    monitor.close()
    monitor.step()
    model.train()(torch.randn(5, 8))
    assert len(monitor.readings) == 12


def test_warns_once_and_before_a_growing_run_overflows():
    """Activations double each step; fp16 ends at 65504, so steps 0 to 15 are finite."""
    layer = nn.Linear(4, 4)
    monitor = PrecisionMonitor(layer, PrecisionPolicy("fp16", "fp16"), every=1)
    warned_at = []
    for step in range(18):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            layer(torch.full((2, 4), 2.0**step)).sum().backward()
        monitor.step()
        warned_at += [(step, str(w.message)) for w in caught if w.category is PrecisionWarning]
    headroom = [(s, m) for s, m in warned_at if "headroom" in m]
    assert len(headroom) == 1
    assert headroom[0][0] == 15  # 2^15: one bit and less below 65504
    assert "activation in fp16: headroom, 1 bit left below overflow; scale it" in headroom[0][1]


@pytest.mark.parametrize(
    ("x", "recipe", "text"),
    [
        ([1.0, torch.nan], "bf16", r"activation in bf16: not finite, 1 entries"),
        ([1e-9, 1.0e-9], "fp16", r"activation in fp16: underflow, 100% become zero"),
        ([1e4, 1.0], "int4-weight", None),
    ],
)
def test_causes(x, recipe, text):
    layer = nn.Linear(2, 2)
    limits = Limits(sqnr_db=-math.inf)
    PrecisionMonitor(layer, RECIPES[recipe], limits=limits)
    if text is None:
        layer(torch.tensor(x))
    else:
        with pytest.warns(PrecisionWarning, match=text):
            layer(torch.tensor(x))


def test_clipping_by_the_range_in_use_and_noise_warn():
    spec = LayerSpec(1, 4, "int8", "int8")
    layer = build_linear(4, 4, spec, generator=torch.Generator().manual_seed(1))
    layer(torch.ones(1, 4))
    PrecisionMonitor(layer, RECIPES["int8"])
    with pytest.warns(PrecisionWarning) as caught:
        layer(torch.tensor([[1.0, 1.0, 1.0, 90.0]]))
    texts = [str(w.message) for w in caught]
    assert any("activation in int8: saturation, 25.00% clipped" in t for t in texts)
    assert any("activation in int8: noise, signal to noise" in t for t in texts)
