"""Loss scaling: the law of the scale, exact unscaling, gradients saved from underflow."""

import pytest
import torch
from torch import nn

from core.errors import ConfigError
from core.precision import LossScaler
from core.sparse import LayerSpec, build_linear


def parameter(gradient):
    p = nn.Parameter(torch.zeros(2))
    p.grad = torch.tensor([gradient, 1.0])
    return p


def test_overflow_skips_and_halves_and_good_steps_double():
    scaler = LossScaler(8.0, every=2)
    p = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([p], lr=1.0)
    scales, taken = [], []
    for gradient in (1.0, torch.inf, 1.0, torch.nan, 1.0, 1.0, 1.0, 1.0):
        p.grad = torch.tensor([gradient, 1.0]) * scaler.scale
        taken.append(scaler.step(optimizer))
        scales.append(scaler.scale)
    assert taken == [True, False, True, False, True, True, True, True]
    assert scales == [8, 4, 4, 2, 2, 4, 4, 8]
    assert p.tolist() == [-6, -6]  # six steps of exactly 1
    assert scaler.n_skipped == 2


def test_small_gradients_of_an_fp16_layer_survive():
    """A gradient of 1e-8 lies below half the smallest fp16 number, 2^-24 = 6e-8."""
    weights = []
    for scale in (1.0, 2.0**16):
        spec = LayerSpec(1, 4, "fp16", "fp16", gradient_format="fp16")
        layer = build_linear(4, 4, spec, generator=torch.Generator().manual_seed(1), bias=False)
        before = layer.weight.detach().clone()
        scaler = LossScaler(scale)
        loss = layer(torch.ones(1, 4)).sum() * 1e-8
        scaler.scaled(loss).backward()
        scaler.step(torch.optim.SGD(layer.parameters(), lr=1e6))
        weights.append(before - layer.weight.detach())
    assert not weights[0].any()
    # fp16 rounds the scaled gradient to 11 bits; subtracting from weights near 0.5 loses 2^-24.
    assert (weights[1] / 1e-2 - 1).abs().max() <= 2.0**-11 + 2.0**-24 * 100


def test_a_lost_run_says_so_and_state_resumes():
    scaler = LossScaler(4.0, every=3)
    optimizer = torch.optim.SGD([parameter(torch.inf)], lr=1.0)
    scaler.step(optimizer)
    other = LossScaler()
    other.load_state_dict(scaler.state_dict())
    assert other.state_dict() == {"scale": 2.0, "n_good": 0, "n_skipped": 1}
    other.step(optimizer)
    with pytest.raises(ConfigError, match=r"smallest loss scale 1 after 2 skipped steps; lower"):
        other.step(optimizer)
