"""Layers that stay packed give what layers one by one give, and fall back where they must."""

import copy
import itertools

import pytest
import torch
from torch import nn

import core
from core.errors import PatternError, ShapeError
from core.kernels import call
from core.sparse import packed

needs_kernels = pytest.mark.skipif(call.kernels() is None, reason="needs the compiled kernels")


class Centred(nn.ReLU):
    def forward(self, x):
        return x - x.mean(-1, keepdim=True)


def stack(sizes, block, density=0.3, bias=True, between=nn.ReLU, seed=0):
    g = torch.Generator().manual_seed(seed)
    modules = []
    for n_in, n_out in itertools.pairwise(sizes):
        spec = core.LayerSpec(density=density, block=block)
        modules += [core.build_linear(n_in, n_out, spec, bias=bias, generator=g), between()]
    return core.PackedSequential(*modules)


def gradients(model, x, weight):
    x = x.clone().requires_grad_()
    y = model(x)
    return [y, *torch.autograd.grad((y * weight).sum(), [x, *model.parameters()])]


def assert_like_one_by_one(model, x):
    g = torch.Generator().manual_seed(1)
    weight = torch.randn(*x.shape[:-1], model[-2].out_features, generator=g)
    got = gradients(model, x, weight)
    want = gradients(nn.Sequential(*model), x, weight)
    for a, b in zip(got, want, strict=True):
        assert a.shape == b.shape
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5 * max(1.0, b.abs().max().item()))


@pytest.fixture
def n_packed(monkeypatch):
    count = []
    real = packed._packed

    def counted(kernels, modules, x):
        count.append(sum(isinstance(m, core.BlockSparseLinear) for m in modules))
        return real(kernels, modules, x)

    monkeypatch.setattr(packed, "_packed", counted)
    return count


@needs_kernels
@pytest.mark.parametrize("n_thread", [1, 2])
@pytest.mark.parametrize("batch", [1, 15, 16, 64, 130, 300])
@pytest.mark.parametrize("block", [4, 8, 16])
def test_values_and_gradients_are_those_of_layers_one_by_one(block, batch, n_thread, n_packed):
    before = torch.get_num_threads()
    torch.set_num_threads(n_thread)
    try:
        model = stack([48, 144, 64, 16], block)
        x = torch.randn(batch, 48, generator=torch.Generator().manual_seed(2))
        assert_like_one_by_one(model, x)
    finally:
        torch.set_num_threads(before)
    assert n_packed == [3]


@needs_kernels
@pytest.mark.parametrize("between", [nn.Sigmoid, nn.GELU, nn.Identity, nn.Tanh])
def test_padding_of_a_batch_stays_out_of_the_gradients(between, n_packed):
    model = stack([32, 32, 32], 16, between=between)
    assert_like_one_by_one(model, torch.randn(3, 5, 32, generator=torch.Generator().manual_seed(3)))
    assert n_packed == [2]


@needs_kernels
def test_layers_without_bias_and_inputs_of_any_stride(n_packed):
    model = stack([32, 64, 32], 8, bias=False)
    x = torch.randn(40, 70, generator=torch.Generator().manual_seed(4))[:, 3:35]
    assert_like_one_by_one(model, x)
    assert_like_one_by_one(model, torch.randn(32, 40).t())
    assert n_packed == [2, 2]


@needs_kernels
def test_threads_large_enough_to_share(n_packed):
    model = stack([256, 256, 256], 8, density=0.2)
    assert_like_one_by_one(model, torch.randn(520, 256, generator=torch.Generator().manual_seed(5)))
    assert n_packed == [2]


@needs_kernels
@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.double(),
        lambda m: m[0].register_forward_hook(lambda *_: None) and m,
        lambda m: core.PackedSequential(m[0], nn.LayerNorm(32), m[2], nn.ReLU()),
        lambda m: core.PackedSequential(m[0], Centred(), m[2], nn.ReLU()),
        lambda m: core.PackedSequential(*stack([32, 30, 32], 4)),
        lambda m: core.PackedSequential(*stack([32, 32, 32], 3)),
        lambda m: core.PackedSequential(*stack([32, 32, 32], 4, density=1.0)),
    ],
)
def test_what_cannot_stay_packed_runs_as_it_is(change, n_packed):
    model = change(stack([32, 32, 32], 8))
    dtype = next(model.parameters()).dtype
    x = torch.randn(6, 32, dtype=dtype)
    torch.testing.assert_close(model(x), nn.Sequential(*model)(x))
    assert not n_packed


@needs_kernels
def test_a_wrong_width_and_values_without_their_pattern_are_told():
    model = core.PackedSequential(*stack([32, 32], 8), *stack([48, 16], 8))
    with pytest.raises(ShapeError, match="must have 48 features"):
        model(torch.ones(4, 32))
    model = stack([32, 32, 32], 8)
    model[2].values.data = model[2].values.data[:-1]
    with pytest.raises(PatternError, match="one block per live block"):
        model(torch.ones(4, 32))


def test_an_empty_batch_a_copy_and_a_state_dict():
    model = stack([32, 32, 32], 8)
    assert model(torch.ones(0, 32)).shape == (0, 32)
    other = copy.deepcopy(model)
    other.load_state_dict(stack([32, 32, 32], 8, seed=9).state_dict())
    x = torch.ones(2, 32)
    torch.testing.assert_close(other(x), nn.Sequential(*stack([32, 32, 32], 8, seed=9))(x))


def test_trains_like_layers_one_by_one_and_repeats_bit_for_bit():
    def train(model):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        g = torch.Generator().manual_seed(6)
        x, y = (torch.randn(100, 32, generator=g) for _ in range(2))
        for _ in range(20):
            loss = (model(x) - y).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return loss.item()

    first, second = (train(stack([32, 64, 32], 8)) for _ in range(2))
    assert first == second
    assert first == pytest.approx(train(nn.Sequential(*stack([32, 64, 32], 8))), rel=1e-4)
