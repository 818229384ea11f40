"""Dense products where they win: the choice, its sources, and the same answers either way."""

import json

import pytest
import torch

from core.errors import ConfigError
from core.kernels import call
from core.sparse import BlockPattern, BlockSparseLinear, break_even, matmul, ops

pytestmark = pytest.mark.skipif(call.kernels() is None, reason="no compiled kernels")


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("TESSERA_BREAK_EVEN", raising=False)
    break_even.dense_from.cache_clear()
    yield
    break_even.dense_from.cache_clear()


def layer(density):
    g = torch.Generator().manual_seed(1)
    pattern = BlockPattern.random((64, 64), (4, 4), density, g)
    return BlockSparseLinear(64, 64, pattern=pattern, generator=g)


def test_the_environment_decides_and_both_routes_agree(monkeypatch):
    monkeypatch.setenv("TESSERA_BREAK_EVEN", "0.5")
    thick, thin = layer(0.6), layer(0.4)
    assert (thick.route, thin.route) == ("dense", "kernels")
    assert "route=dense" in repr(thick)
    used = []
    real = call.spmm
    monkeypatch.setattr(call, "spmm", lambda *a: used.append(1) or real(*a))
    x = torch.randn(9, 64)
    dense = thick(x)
    assert not used
    thin(x)
    assert used
    monkeypatch.setattr(ops, "dense_from", lambda *of: 2.0)
    sparse = thick(x)
    # Two orders of 64 products: 2 k u (|a| |b|).
    size = matmul(x.abs(), thick.values.abs(), thick.pattern)
    assert ((dense - sparse).abs() <= 130 * 2.0**-24 * size + 2.0**-23 * dense.abs()).all()


def test_the_constructor_decides_before_the_environment(monkeypatch):
    monkeypatch.setenv("TESSERA_BREAK_EVEN", "0.5")
    thin = layer(0.2)
    thick = BlockSparseLinear(64, 64, pattern=thin.pattern, dense_from=0)
    thick.load_state_dict(thin.state_dict())
    assert (thin.route, thick.route) == ("kernels", "dense")
    x = torch.randn(9, 64, requires_grad=True)
    want = torch.autograd.grad(thin(x).square().sum(), [x, thin.values, thin.bias])
    for name in ("spmm", "sddmm", "spmm_backward"):
        monkeypatch.setattr(call, name, lambda *a: pytest.fail("the dense route was asked for"))
    got = torch.autograd.grad(thick(x).square().sum(), [x, thick.values, thick.bias])
    for a, b in zip(got, want, strict=True):
        # Sums of at most 64 products of numbers that carry the errors of 64 more.
        assert (a - b).abs().max() <= 4 * 130 * 2.0**-24 * b.abs().max()
    with pytest.raises(ConfigError, match=r"dense_from must be a density of 0 or more, got -1"):
        BlockSparseLinear(64, 64, pattern=thin.pattern, dense_from=-1)


def test_measured_once_and_read_from_the_cache(monkeypatch, tmp_path):
    turns = []
    monkeypatch.setattr(break_even, "_measured", lambda block, _: turns.append(block) or 0.7)
    assert break_even.dense_from((4, 4)) == 0.7
    break_even.dense_from.cache_clear()
    assert break_even.dense_from((4, 4)) == 0.7
    assert turns == [(4, 4)]
    file = tmp_path / "tessera" / "break_even.json"
    assert break_even.dense_from((4, 4), torch.bfloat16) == 0.7
    assert [*json.loads(file.read_text()).values()] == [{"4x4": 0.7, "4x4 bfloat16": 0.7}]
    turns.pop()
    file.write_text("{cut sho")
    break_even.dense_from.cache_clear()
    assert break_even.dense_from((4, 4)) == 0.7
    assert len(turns) == 2


def test_interpolates_between_two_densities(monkeypatch):
    seconds = {0.3: (1.0, 9.0), 1.0: (3.0, 2.0)}
    monkeypatch.setattr(break_even, "_seconds", lambda block, density, *rest: seconds[density])
    assert break_even._measured((4, 4), torch.float32) == pytest.approx(0.65)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_small_measurement_gives_a_density(dtype, monkeypatch):
    monkeypatch.setattr(break_even, "_N_TURN", 1)
    assert break_even._measured((4, 4), dtype) >= 0


def test_narrow_layers_run_dense_too(monkeypatch):
    monkeypatch.setenv("TESSERA_BREAK_EVEN", "0.5")
    pattern = BlockPattern.random((64, 64), (4, 4), 0.6, torch.Generator().manual_seed(1))
    formats = {"weight_format": "bf16", "activation_format": "bf16"}
    dense = BlockSparseLinear(64, 64, pattern=pattern, **formats)
    sparse = BlockSparseLinear(64, 64, pattern=pattern, dense_from=2, **formats)
    sparse.load_state_dict(dense.state_dict())
    assert (dense.route, sparse.route) == ("dense", "kernels")
    x = torch.randn(9, 64)
    monkeypatch.setattr(call, "spmm", lambda *a: pytest.fail("the dense route was asked for"))
    got = dense(x)
    monkeypatch.undo()
    # Sums in float32, rounded to bf16 once: two such roundings.
    assert (got - sparse(x)).abs().max() <= 2.0**-7 * got.abs().max()


def test_bad_setting_is_refused(monkeypatch):
    monkeypatch.setenv("TESSERA_BREAK_EVEN", "often")
    with pytest.raises(ConfigError, match=r"TESSERA_BREAK_EVEN must be a density .* got 'often'"):
        break_even.dense_from((4, 4))
