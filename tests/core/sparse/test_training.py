"""A sparse model learns what a dense one learns, with as many weights in four times the width."""

import torch
from torch import nn
from torch.nn.functional import mse_loss

import core

# A teacher of eight units and noise of standard deviation .1: no student falls below .01 on new
# data; the mean of the targets alone scores their variance.
NOISE = 0.1


def data(n, generator, teacher):
    x = torch.randn(n, 16, generator=generator)
    y = torch.tanh(x @ teacher[0]) @ teacher[1]
    return x, y + NOISE * torch.randn(n, 1, generator=generator)


def trained(width, density, generator, teacher):
    spec = core.LayerSpec(density, 4)
    dense = core.LayerSpec()
    sizes = (16, width, dense), (width, width, spec), (width, 1, dense)
    layers = [core.build_linear(a, b, s, generator=generator) for a, b, s in sizes]
    model = nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.Tanh(), layers[2])
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    x, y = data(2048, generator, teacher)
    for step in range(400):
        part = slice(step % 8 * 256, (step % 8 + 1) * 256)
        optimizer.zero_grad()
        mse_loss(model(x[part]), y[part]).backward()
        optimizer.step()
    return model


def test_dense_and_sparse_reach_the_same_loss():
    g = torch.Generator().manual_seed(7)
    teacher = torch.randn(16, 8, generator=g) / 4, torch.randn(8, 1, generator=g)
    x, y = data(4096, g, teacher)
    losses = {}
    for name, width, density in (("dense", 32, 1.0), ("sparse", 64, 0.25)):
        model = trained(width, density, torch.Generator().manual_seed(8), teacher)
        middle = model[2]
        weight = middle.weight if density == 1 else middle.values
        assert weight.numel() == 32 * 32
        with torch.no_grad():
            losses[name] = mse_loss(model(x), y).item()
    variance = y.var().item()
    # Both within a few noise variances, far from the variance of the targets.
    assert max(losses.values()) < 0.05 * variance + 2 * NOISE**2, (losses, variance)
    assert max(losses.values()) < 1.25 * min(losses.values()), losses
