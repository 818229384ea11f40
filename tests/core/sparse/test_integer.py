"""The product in 8-bit integers: exact sums on every route, inputs rounded as `quantize` does."""

import pytest
import torch
from torch._subclasses import FakeTensorMode

from core.errors import DtypeError, PatternError, ShapeError
from core.kernels.call import kernels
from core.sparse import BlockPattern, integer, routes


@pytest.fixture(params=["kernels", "torch"], autouse=True)
def route(request, monkeypatch):
    """Every test of this file runs on the compiled kernels and on plain torch."""
    if request.param == "torch":
        monkeypatch.setattr(integer, "kernels_for", lambda *operands: None)
    elif kernels() is None or not kernels().has_int8():
        pytest.skip("no int8 kernels here")


def problem(block, batch, density=0.4, shape=(75, 141)):
    g = torch.Generator().manual_seed(1)
    p = BlockPattern.random(shape, block, density, g)
    codes = torch.randint(-127, 128, (p.n_block, *block), generator=g, dtype=torch.int8)
    scale = torch.rand(p.grid[0] * block[0], 1, generator=g) + 0.1
    x = 3 * torch.randn(batch, shape[1], generator=g)
    return p, codes, scale, x, torch.tensor(0.0173)


def call(p, codes, scale, x, x_scale):
    index = p.row_ptr, p.col_index, p.row_index
    return integer.linear_int8(x, x_scale, codes, scale, index, p.shape[0])


@pytest.mark.parametrize(
    "block", [(1, 1), (4, 4), (8, 8), (16, 16), (3, 8), (12, 20), (24, 16)], ids=str
)
@pytest.mark.parametrize("batch", [0, 1, 30, 64, 131])
def test_sums_are_exact_integers(block, batch):
    p, codes, scale, x, x_scale = problem(block, batch)
    # Ties and the ends of the range, where a product with 1 / scale would round otherwise.
    x.view(-1)[::7] = (torch.arange(x.view(-1)[::7].numel()) % 300 - 150 + 0.5) * x_scale
    whole = torch.ops.core.quantize(x, x_scale, "int8").long()
    dense = routes.expand(codes.long(), p.row_index, p.col_index, p.grid)[:75, :141]
    want = (whole @ dense.t()).float() * (scale * x_scale).view(-1)[:75]
    assert torch.equal(call(p, codes, scale, x, x_scale), want)


@pytest.mark.parametrize("special", [torch.nan, torch.inf])
def test_a_sample_that_is_not_finite_comes_out_as_nan(special):
    arguments = problem((4, 4), 70)
    clean = call(*arguments)
    arguments[3][5, 140] = special
    got = call(*arguments)
    assert got[5].isnan().all()
    rest = torch.arange(70) != 5
    assert torch.equal(got[rest], clean[rest])


def test_fake_tensors_and_strides():
    p, codes, scale, x, x_scale = problem((8, 8), 6)
    wide = torch.zeros(6, 300)
    wide[:, :141] = x
    assert torch.equal(
        call(p, codes, scale, wide[:, :141], x_scale), call(p, codes, scale, x, x_scale)
    )
    apart = torch.stack([scale, scale + 1], dim=1)[:, 0]
    assert torch.equal(call(p, codes, apart, x, x_scale), call(p, codes, scale, x, x_scale))
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert call(p, codes, scale, torch.empty(2, 6, 141), x_scale).shape == (2, 6, 75)


def test_clear_errors():
    p, codes, scale, x, x_scale = problem((8, 8), 6)
    with pytest.raises(DtypeError, match=r"core::linear_int8: x must be float32, got float64"):
        call(p, codes, scale, x.double(), x_scale)
    with pytest.raises(DtypeError, match=r"codes must be int8, got float32"):
        call(p, codes.float(), scale, x, x_scale)
    with pytest.raises(ShapeError, match=r"scale must have shape \[80, 1\], got \[75, 1\]"):
        call(p, codes, scale[:75], x, x_scale)
    with pytest.raises(DtypeError, match=r"x_scale must be float32, got float64"):
        call(p, codes, scale, x, x_scale.double())
    index = p.row_ptr, p.col_index.long(), p.row_index
    with pytest.raises(DtypeError, match=r"core::linear_int8: pattern tensors must be int32"):
        integer.linear_int8(x, x_scale, codes, scale, index, 75)
    index = p.row_ptr, p.col_index[:-1], p.row_index
    with pytest.raises(PatternError, match=r"live blocks; pass the tensors of one BlockPattern"):
        integer.linear_int8(x, x_scale, codes, scale, index, 75)
    index = p.row_ptr, p.col_index, p.row_index
    with pytest.raises(PatternError, match=r"core::linear_int8: rows = 640 and .* do not fit"):
        integer.linear_int8(x, x_scale, codes, scale, index, 640)
    for name, place in (("x_scale", 4), ("codes", 1), ("scale", 2)):
        away = [p, codes, scale, x, x_scale]
        away[place] = away[place].to("meta")
        with pytest.raises(DtypeError, match=rf"x is on cpu but {name} on meta; move one of them"):
            call(*away)
