"""Block scales equal the per-tensor scales of the blocks taken one by one."""

import pytest
import torch

from core.errors import ShapeError
from core.precision import dequantize_blocks, quantize, quantize_blocks


@pytest.mark.parametrize("name", ["int8", "int4", "fp8_e4m3", "fp8_e5m2"])
@pytest.mark.parametrize(
    ("shape", "block"), [((8, 12), (4, 4)), ((7, 33), (1, 32)), ((5, 3), (9, 9))]
)
def test_blocks_one_by_one(shape, block, name):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1)) * torch.logspace(
        0, 3, shape[1]
    )
    codes, scale = quantize_blocks(x, name, block)
    assert codes.shape == shape
    back = dequantize_blocks(codes, scale, block)
    for i in range(scale.shape[0]):
        for j in range(scale.shape[1]):
            at = slice(i * block[0], (i + 1) * block[0]), slice(j * block[1], (j + 1) * block[1])
            one, one_scale = quantize(x[at], name)
            assert torch.equal(codes[at].float(), one.float())
            assert scale[i, j] == one_scale
            assert torch.equal(back[at], one.float() * one_scale)


def test_small_blocks_lose_less_than_one_scale():
    x = torch.randn(32, 64, generator=torch.Generator().manual_seed(2)) * torch.logspace(0, 4, 64)
    codes, scale = quantize(x, "int8")
    whole = (codes * scale - x)[:, :16].square().sum()
    blocks = quantize_blocks(x, "int8", (32, 16))
    apart = (dequantize_blocks(*blocks, (32, 16)) - x)[:, :16].square().sum()
    # The first 16 columns reach a tenth of the range at most: 20 dB or more are to be won.
    assert apart < whole / 100


def test_clear_errors():
    x = torch.ones(4, 4)
    with pytest.raises(ShapeError, match=r"block must be two positive sizes, got \(0, 2\)"):
        quantize_blocks(x, "int8", (0, 2))
    with pytest.raises(ShapeError, match=r"x must have shape \[any, any\], got \[4\]; flatten"):
        quantize_blocks(x[0], "int8", (2, 2))
    with pytest.raises(ShapeError, match=r"scale must have shape \[2, 2\], got \[4, 4\]"):
        dequantize_blocks(x.to(torch.int8), x, (2, 2))
