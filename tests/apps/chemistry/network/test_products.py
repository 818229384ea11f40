"""Dense products by oneDNN, against torch in float64."""

import copy

import pytest
import torch

import core
import hw
from apps.chemistry.network import products
from apps.chemistry.network.products import by_rows, product


def layer(n_in=37, n_out=21, bias=True):
    return core.DenseLinear(n_in, n_out, bias=bias, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("has_onednn", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("n_row", [1, 3, 64, 255, 256, 700])
def test_values_and_gradients(monkeypatch, n_row, bias, has_onednn):
    if not has_onednn:
        monkeypatch.setattr(products, "_BY_ONEDNN", None)
    g = torch.Generator().manual_seed(n_row)
    linear = layer(bias=bias)
    exact = copy.deepcopy(linear).double()
    x = torch.randn(n_row, 37, generator=g).requires_grad_()
    wide = x.detach().double().requires_grad_()
    dy = torch.randn(n_row, 21, generator=g)
    called = []
    monkeypatch.setattr(products, "product", lambda *a: called.append(a) or product(*a))
    y, want = by_rows(linear, x), torch.nn.functional.linear(wide, exact.weight, exact.bias)
    y.backward(dy)
    want.backward(dy.double())
    assert len(called) == (3 if has_onednn and n_row >= 64 else 0)
    pairs = [(y, want), (x.grad, wide.grad), (linear.weight.grad, exact.weight.grad)]
    if bias:
        pairs.append((linear.bias.grad, exact.bias.grad))
    for a, b in pairs:
        # Sums of up to 700 products of order one: some roundings of 2^-24 each, of sums to 100.
        torch.testing.assert_close(a.double(), b, atol=1e-4, rtol=1e-5)


def test_gradients_of_gradients():
    linear, x = layer(5, 4), torch.randn(9, 5, generator=torch.Generator().manual_seed(1))
    found = []
    for of in (by_rows, lambda linear, x: linear(x)):
        y = of(linear, x.requires_grad_()).sin().sum()
        first = torch.autograd.grad(y, (x, linear.weight), create_graph=True)
        found.append(torch.autograd.grad(sum(g.square().sum() for g in first), linear.weight)[0])
    torch.testing.assert_close(*found, atol=1e-4, rtol=1e-4)


def test_a_trace_sees_the_product_of_torch():
    program = hw.trace(lambda x: by_rows(layer(), x), torch.randn(300, 37))
    assert "aten.addmm" in [op.name for op in program.ops]


def test_no_rows_give_no_rows():
    assert by_rows(layer(), torch.zeros(0, 37)).shape == (0, 21)
