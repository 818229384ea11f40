"""Codes and scales: closed forms, error bounds, refusals."""

import pytest
import torch

from core.errors import FormatError, ShapeError
from core.precision import FORMATS, dequantize, fake_quantize, quantize

NARROW = ["fp8_e4m3", "fp8_e5m2", "int8", "int4", "binary"]
# Measured on normal(0, 1), 2^16 draws, per-tensor scale; floors stand 1 dB below.
SQNR_FLOOR_DB = {"fp8_e4m3": 30.5, "fp8_e5m2": 24.5, "int8": 38.5, "int4": 13.0, "binary": 3.4}


def test_by_hand():
    x = torch.tensor([[1.0, -2.0, 0.5], [0.0, 12.7, 6.4]])
    codes, scale = quantize(x, "int8", axis=0)
    assert codes.tolist() == [[64, -127, 32], [0, 127, 64]]
    assert torch.allclose(scale, torch.tensor([[2 / 127], [0.1]]), rtol=2.0**-23, atol=0)
    codes, scale = quantize(x, "int4")
    assert codes.tolist() == [[1, -1, 0], [0, 7, 4]]
    assert scale.shape == ()
    codes, scale = quantize(x, "binary", axis=1)
    assert codes.tolist() == [[1, -1, 1], [1, 1, 1]]
    assert torch.allclose(scale, torch.tensor([[0.5, 7.35, 3.45]]), rtol=2.0**-22, atol=0)


@pytest.mark.parametrize("axis", [None, 0, 1, -1])
@pytest.mark.parametrize("name", NARROW)
def test_error_is_within_half_a_step(name, axis):
    x = torch.randn(64, 48, generator=torch.Generator().manual_seed(1)) * 5
    codes, scale = quantize(x, name, axis=axis)
    format = FORMATS[name]
    assert codes.dtype == format.dtype
    error = (dequantize(codes, scale) - x).abs()
    if format.kind == "binary":
        step = 2 * (x.abs() - scale).abs()
    elif format.kind == "integer":
        step = scale.expand_as(x)
    else:
        smallest = 2.0 ** (format.min_exponent - format.n_mantissa)
        step = (x.abs() * 2.0**-format.n_mantissa).clamp(min=scale * smallest)
    # Three float32 roundings besides: of the scale, the quotient and the product back.
    assert (error <= step / 2 + 3 * 2.0**-24 * x.abs()).all()
    if axis is not None:
        assert scale.shape == tuple(n if i == axis % 2 else 1 for i, n in enumerate(x.shape))


@pytest.mark.parametrize("name", NARROW)
def test_signal_to_noise_has_a_floor(name):
    x = torch.randn(1 << 16, generator=torch.Generator().manual_seed(2))
    noise = fake_quantize(x, name) - x
    sqnr = 10 * torch.log10(x.square().sum() / noise.square().sum())
    assert SQNR_FLOOR_DB[name] <= sqnr <= SQNR_FLOOR_DB[name] + 2


@pytest.mark.parametrize("name", NARROW)
def test_gradient_passes_straight_through(name):
    x = torch.randn(5, 3, requires_grad=True)
    (fake_quantize(x, name, axis=0) * torch.arange(3)).sum().backward()
    assert torch.equal(x.grad, torch.arange(3.0).expand(5, 3))


@pytest.mark.parametrize("name", NARROW)
def test_zero_empty_and_bad_entries(name):
    zero = torch.zeros(2, 3)
    if name != "binary":
        assert torch.equal(dequantize(*quantize(zero, name, axis=0)), zero)
    codes, scale = quantize(torch.zeros(0, 3), name, axis=1)
    assert codes.shape == (0, 3)
    assert scale.shape == (1, 3)
    for bad in (torch.nan, torch.inf):
        x = torch.ones(2, 3)
        x[0, 0] = bad
        back = dequantize(*quantize(x, name, axis=0))
        assert not back[0].isfinite().any()
        assert torch.equal(back[1], torch.ones(3))


def test_double_precision_and_narrow_output():
    x = torch.randn(4, 4, dtype=torch.float64)
    assert dequantize(*quantize(x, "int8"), torch.float64).dtype == torch.float64
    assert dequantize(*quantize(x, "int8"), torch.bfloat16).dtype == torch.bfloat16
    # 1 + 2^-4 lies midway between two e4m3 values; only one rounding may decide.
    codes = torch.ops.core.quantize(
        torch.tensor([1 + 2.0**-4 + 2.0**-40], dtype=torch.float64), torch.ones(()), "fp8_e4m3"
    )
    assert codes.float().item() == 1.125


@pytest.mark.parametrize("name", NARROW)
def test_ops_keep_the_promises_torch_compile_needs(name):
    x = torch.randn(4, 3)
    codes, scale = quantize(x, name, axis=0)
    ops = torch.ops.core
    tests = ["test_schema", "test_faketensor", "test_aot_dispatch_dynamic"]
    # torch cannot compare fp8 tensors, which two of its checks do
    fp8 = FORMATS[name].kind == "float"
    for op, args, promised in (
        (ops.quantize.default, (x, scale, name), tests[: 2 if fp8 else 3]),
        (ops.dequantize.default, (codes, scale, torch.bfloat16), tests[1 : 2 if fp8 else 3]),
    ):
        result = torch.library.opcheck(op, args, test_utils=promised)
        assert set(result.values()) == {"SUCCESS"}


def test_clear_errors():
    x = torch.ones(2, 3)
    with pytest.raises(FormatError, match=r"must have 8 bits or fewer, got 'bf16'; use round_to"):
        quantize(x, "bf16")
    with pytest.raises(ShapeError, match=r"scale \[2\] does not broadcast to \[2, 3\]"):
        dequantize(x.to(torch.int8), torch.ones(2))
    with pytest.raises(ShapeError, match=r"scale \[4, 2, 3\] does not broadcast to \[2, 3\]"):
        dequantize(x.to(torch.int8), torch.ones(4, 2, 3))
