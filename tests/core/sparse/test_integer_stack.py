"""Frozen int8 layers in a row give what they give one by one, bit for bit."""

import pytest
import torch
from torch import nn

import core
from core.errors import ShapeError
from core.kernels.call import kernels
from core.sparse import BlockPattern, integer_stack
from core.sparse.linear import BlockSparseLinear, frozen

pytestmark = pytest.mark.skipif(
    kernels() is None or not kernels().has_int8(), reason="no int8 kernels here"
)


def layer(n_in, n_out, block=(16, 16), *, bias=True, density=0.4, seed=0, weight="int8"):
    g = torch.Generator().manual_seed(seed)
    pattern = BlockPattern.random((n_out, n_in), block, density, g)
    made = BlockSparseLinear(
        n_in, n_out, pattern=pattern, bias=bias, generator=g, weight_format=weight,
        activation_format="int8",
    )  # fmt: skip
    if bias:
        with torch.no_grad():
            made.bias.uniform_(-1, 1, generator=g)
    return made


def taught(*modules, n=200):
    """A frozen stack whose layers have seen the ranges of their inputs."""
    model = core.PackedSequential(*modules)
    first = next(m for m in modules if isinstance(m, BlockSparseLinear))
    model.train()(torch.randn(n, first.in_features, generator=torch.Generator().manual_seed(9)))
    return core.freeze(model)


@pytest.fixture
def stacked(monkeypatch):
    """Count the layers that run as one."""
    seen = []
    true = integer_stack.call.stack_int8
    monkeypatch.setattr(
        integer_stack.call, "stack_int8", lambda k, x, ls: (seen.append(len(ls)), true(k, x, ls))[1]
    )
    return seen


def one_by_one(model, x):
    for module in model:
        x = module(x)
    return x


@pytest.mark.parametrize("block", [(16, 16), (32, 16), (16, 8), (16, 32), (48, 16)], ids=str)
@pytest.mark.parametrize("batch", [1, 5, 64, 131, 400])
@pytest.mark.parametrize("n_thread", [1, 2])
def test_bits_are_those_of_single_layers(block, batch, n_thread, stacked):
    br, bc = block
    wide = 96 if br != 32 and bc != 32 else 128
    model = taught(
        layer(64 if 64 % bc == 0 else 96, wide, block, seed=1), nn.ReLU(),
        layer(wide, wide, block, seed=2, bias=False),
        layer(wide, wide, block, seed=3, density=0.02 if br == 48 else 0.7),
        nn.ReLU(), nn.Dropout(),
        layer(wide, 2 * wide, block, seed=4), nn.ReLU(),
    )  # fmt: skip
    x = 1.5 * torch.randn(batch, model[0].in_features, generator=torch.Generator().manual_seed(0))
    before = torch.get_num_threads()
    torch.set_num_threads(n_thread)
    try:
        with torch.no_grad():
            got, want = model(x), one_by_one(model, x)
    finally:
        torch.set_num_threads(before)
    assert stacked == [4]
    assert torch.equal(got, want)


@pytest.mark.parametrize("special", [torch.nan, torch.inf, -torch.inf])
def test_a_sample_that_is_not_finite_comes_out_as_nan(special, stacked):
    model = taught(layer(64, 64, seed=1), nn.ReLU(), layer(64, 32, seed=2))
    x = torch.randn(70, 64)
    clean = model(x)
    x[5, 63] = special
    got = model(x)
    assert stacked == [2, 2]
    assert got[5].isnan().all()
    rest = torch.arange(70) != 5
    assert torch.equal(got[rest], clean[rest])


def test_what_overflows_between_two_layers_comes_out_as_nan():
    model = taught(layer(64, 64, seed=1), layer(64, 32, seed=2))
    model[0].scale.fill_(3e38)
    x = torch.randn(70, 64)
    x[::3] = 0
    got, want = model(x), one_by_one(model, x)
    assert want.isnan().any()
    assert not want.isnan().all()
    assert torch.equal(got.isnan(), want.isnan())
    assert torch.equal(got.nan_to_num(), want.nan_to_num())


def test_ties_round_as_in_single_layers():
    model = taught(layer(64, 64, seed=1, bias=False), layer(64, 64, seed=2))
    step = model[0].activation_range.scale
    x = (torch.arange(64 * 300).view(300, 64) % 300 - 150 + 0.5) * step
    assert torch.equal(model(x), one_by_one(model, x))


def test_leading_axes_strides_and_empty_batches(stacked):
    model = taught(layer(64, 64, seed=1), nn.ReLU(), layer(64, 32, seed=2))
    x = torch.randn(3, 7, 64)
    assert torch.equal(model(x), one_by_one(model, x))
    wide = torch.randn(9, 100)
    assert torch.equal(model(wide[:, 20:84]), one_by_one(model, wide[:, 20:84].contiguous()))
    assert stacked == [2, 2]
    assert model(torch.empty(0, 64)).shape == (0, 32)


@pytest.mark.parametrize(
    "between",
    [
        [nn.GELU()],
        [layer(64, 64, (4, 4), seed=5)],
        [layer(64, 64, seed=5, weight="bf16")],
        [nn.BatchNorm1d(64)],
    ],
    ids=["gelu", "small blocks", "bf16 weights", "norm"],
)
def test_what_cannot_join_runs_as_it_is(between, stacked):
    model = taught(layer(64, 64, seed=1), *between, layer(64, 64, seed=2), layer(64, 16, seed=3))
    x = torch.randn(20, 64)
    assert torch.equal(model(x), one_by_one(model, x))
    assert stacked == [2]


def test_hooks_gradients_and_unknown_ranges_keep_layers_apart(stacked):
    model = taught(layer(64, 64, seed=1), nn.ReLU(), layer(64, 32, seed=2))
    seen = []
    handle = model[0].register_forward_hook(lambda *a: seen.append(1))
    model(torch.randn(4, 64))
    handle.remove()
    assert seen == [1]
    fresh = core.PackedSequential(*(frozen(layer(64, 64, seed=i)) for i in range(2))).eval()
    x = torch.randn(4, 64)
    assert torch.equal(fresh(x), one_by_one(fresh, x))
    assert stacked == []


@pytest.mark.parametrize("n_feature", [48, 80])
def test_the_wrong_width_is_told(n_feature):
    model = taught(layer(64, 64, seed=1), nn.ReLU(), layer(64, 32, seed=2))
    with pytest.raises(ShapeError, match=r"x must have 64 features, \[\.\.\., 64\], got \[4, "):
        model(torch.randn(4, n_feature))
