"""Batch normalisation with what follows it, against torch in float64."""

import copy

import pytest
import torch
from torch import nn

import core
import hw
from core import normalise
from core.errors import DtypeError, ShapeError
from core.kernels.call import kernels

SHAPES = [(3, 5), (64, 16), (65, 304), (300, 131), (1701, 40)]


@pytest.fixture(params=["kernels", "torch"], autouse=True)
def route(request, monkeypatch):
    """Every test of this file runs on the compiled kernels and on plain torch."""
    if request.param == "torch":
        monkeypatch.setattr(normalise, "kernels_for", lambda a, b, dtypes: None)
    elif kernels() is None:
        pytest.skip("no compiled kernels here: no C++ compiler, or TESSERA_KERNELS=torch")
    return request.param


def problem(shape, dtype, has_base, seed=0):
    g = torch.Generator().manual_seed(seed)
    norm = nn.BatchNorm1d(shape[1])
    with torch.no_grad():
        norm.weight.copy_(torch.rand(shape[1], generator=g) + 0.5)
        norm.bias.copy_(torch.randn(shape[1], generator=g))
    x, base, dy = ((2 * torch.randn(shape, generator=g) + 3).to(dtype) for _ in range(3))
    return norm, x.requires_grad_(), base.requires_grad_() if has_base else None, dy


def exact(norm, x, relu, base):
    """The same by torch in float64; gives the result, and what it was made of."""
    norm, x = copy.deepcopy(norm).double(), x.detach().double().requires_grad_()
    base = None if base is None else base.detach().double().requires_grad_()
    y = norm(x)
    y = y.relu() if relu else y
    return (y if base is None else base + y), norm, x, base


def distance(a, b):
    a, b = a.detach().double(), b.detach()
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-3))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("has_base", [False, True])
@pytest.mark.parametrize(
    ("dtype", "margin"), [(torch.float32, 3e-5), (torch.bfloat16, 2e-2)], ids=["fp32", "bf16"]
)
def test_values_gradients_and_statistics(route, shape, relu, has_base, dtype, margin):
    margin = margin if route == "kernels" else 10 * margin
    norm, x, base, dy = problem(shape, dtype, has_base)
    want, wide, x64, base64 = exact(norm, x, relu, base)
    y = core.batch_norm(norm, x, relu=relu, base=base)
    assert y.dtype == dtype
    y.backward(dy)
    want.backward(dy.double())
    assert distance(y, want) < margin
    assert distance(x.grad, x64.grad) < margin
    assert distance(norm.weight.grad, wide.weight.grad) < margin
    assert distance(norm.bias.grad, wide.bias.grad) < margin
    if has_base:
        assert distance(base.grad, base64.grad) < margin
    assert distance(norm.running_mean, wide.running_mean) < margin
    assert distance(norm.running_var, wide.running_var) < margin
    assert norm.num_batches_tracked == 1


def test_a_large_mean_costs_no_digits_of_the_spread():
    x = torch.randn(500, 7, generator=torch.Generator().manual_seed(1)) + 4096.0
    norm = nn.BatchNorm1d(7)
    core.batch_norm(norm, x)
    want = 1 + 0.1 * (x.double().var(dim=0) - 1)
    # Sums of squares less the square of the sum would be off by one, 4096^2 roundings of 2^-24.
    assert float((norm.running_var - want).abs().max()) < 1e-5


def test_a_column_without_spread_gives_its_bias():
    norm, x, _, dy = problem((70, 5), torch.float32, False)
    x = torch.full_like(x, 2.5).requires_grad_()
    y = core.batch_norm(norm, x)
    y.backward(dy)
    assert torch.allclose(y, norm.bias.expand_as(y), atol=1e-4)
    assert torch.isfinite(x.grad).all()


def test_a_nan_stays_in_its_column():
    norm, x, _, dy = problem((70, 20), torch.float32, False)
    with torch.no_grad():
        x[3, 4] = torch.nan
    y = core.batch_norm(norm, x, relu=True)
    y.backward(dy)
    spoilt = torch.arange(20) == 4
    assert torch.equal(y.isnan().all(dim=0), spoilt)
    assert torch.equal(y.isnan().any(dim=0), spoilt)
    assert torch.equal(x.grad.isnan().any(dim=0), spoilt)


def test_rows_that_do_not_lie_in_order_and_gradients_that_are_spread_out():
    norm, x, _, _ = problem((40, 12), torch.float32, False)
    wide = torch.cat([x, x], dim=1).detach().requires_grad_()
    other = copy.deepcopy(norm)
    core.batch_norm(norm, wide[:, ::2], relu=True).sum().backward()
    core.batch_norm(other, wide.detach()[:, ::2].contiguous(), relu=True).sum().backward()
    assert torch.equal(norm.bias.grad, other.bias.grad)


@pytest.mark.parametrize("relu", [False, True])
def test_gradients_of_gradients(relu):
    norm, x, base, dy = problem((30, 6), torch.float32, True)
    want, wide, x64, base64 = exact(norm, x, relu, base)

    def second(norm, x, base, y, dy):
        of = x, norm.weight, norm.bias, base
        first = torch.autograd.grad(y, of, dy, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), (x, norm.weight))

    got = second(norm, x, base, core.batch_norm(norm, x, relu=relu, base=base), dy)
    for a, b in zip(got, second(wide, x64, base64, want, dy.double()), strict=True):
        assert distance(a, b) < 1e-3


def test_threads_change_no_bit(route):
    if route == "torch":
        pytest.skip("torch shares sums between threads")
    n_thread = torch.get_num_threads()
    found = []
    for n in (1, 2, 3):
        torch.set_num_threads(n)
        norm, x, base, dy = problem((1000, 50), torch.float32, True)
        y = core.batch_norm(norm, x, relu=True, base=base)
        y.backward(dy)
        found.append([y, x.grad, norm.weight.grad, norm.bias.grad, norm.running_var])
    torch.set_num_threads(n_thread)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


class Doubled(nn.BatchNorm1d):
    """A kind of its own, which the kernels know nothing of."""

    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.BatchNorm1d(6).eval(),
        lambda: nn.BatchNorm1d(6, affine=False),
        lambda: nn.BatchNorm1d(6, momentum=None),
        lambda: nn.BatchNorm1d(6, track_running_stats=False),
        lambda: Doubled(6),
        lambda: nn.BatchNorm1d(6).double(),
        nn.Identity,
    ],
)
def test_other_norms_are_called_as_they_are(make):
    norm = make()
    x = torch.randn(9, 6, generator=torch.Generator().manual_seed(5))
    x = x.to(next(norm.parameters(), x).dtype)
    other = copy.deepcopy(norm)
    for _ in range(2):
        got, want = core.batch_norm(norm, x, relu=True, base=x), x + other(x).relu()
        assert torch.equal(got, want)
    assert all(torch.equal(a, b) for a, b in zip(norm.buffers(), other.buffers(), strict=True))


def test_a_norm_with_tensors_of_its_own_is_called_as_it_is():
    norm, x, _, _ = problem((9, 6), torch.float32, False)
    norm.register_buffer("seen", torch.zeros(6))
    other = copy.deepcopy(norm)
    assert torch.equal(core.batch_norm(norm, x, relu=True), other(x).relu())


def test_hooks_are_called():
    norm, x, _, _ = problem((9, 6), torch.float32, False)
    seen = []
    norm.register_forward_hook(lambda module, given, out: seen.append(out.shape))
    core.batch_norm(norm, x)
    assert seen == [(9, 6)]


def test_a_trace_sees_the_norm_and_the_relu_of_torch():
    norm, x, base, _ = problem((9, 6), torch.float32, True)
    program = hw.trace(lambda a, b: core.batch_norm(norm, a, relu=True, base=b), x, base)
    names = [op.name for op in program.ops]
    assert [name for name in names if "norm" in name or "relu" in name] == [
        "aten.native_batch_norm", "aten.relu",
    ]  # fmt: skip


def test_bad_input_is_refused():
    norm = nn.BatchNorm1d(4)
    x = torch.randn(5, 4)
    with pytest.raises(ShapeError, match="base"):
        core.batch_norm(norm, x, base=torch.zeros(5, 3))
    with pytest.raises(DtypeError, match="base"):
        core.batch_norm(norm, x, base=torch.zeros(5, 4, dtype=torch.bfloat16))
    with pytest.raises(ValueError, match="more than 1 value"):
        core.batch_norm(norm, x[:1])
    with pytest.raises((RuntimeError, ValueError)):
        core.batch_norm(norm, torch.randn(5, 3))
    assert norm.num_batches_tracked <= 2
