"""Every code of the 8-bit formats and every 16-bit float, through the ops, compared as bits."""

import ml_dtypes
import numpy as np
import pytest
import torch

from core.precision import FORMATS, dequantize

NUMPY_TYPE = {"fp8_e4m3": ml_dtypes.float8_e4m3fn, "fp8_e5m2": ml_dtypes.float8_e5m2}
ONE = torch.ones(())


def quantize(x, name):
    return torch.ops.core.quantize(x, ONE, name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", NUMPY_TYPE)
def test_all_256_codes_decode_as_ml_dtypes_and_encode_back(name, dtype):
    raw = np.arange(256, dtype=np.uint8)
    codes = torch.from_numpy(raw).view(FORMATS[name].dtype)
    got = dequantize(codes, ONE, dtype)
    want = torch.from_numpy(raw.view(NUMPY_TYPE[name]).astype(np.float32)).to(dtype)
    width = {2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
    number = ~want.isnan()
    assert torch.equal(got.isnan(), ~number)
    assert torch.equal(got[number].view(width), want[number].view(width))
    back = quantize(got, name).view(torch.uint8)
    is_finite = want.isfinite()
    assert int(is_finite.sum()) == {"fp8_e4m3": 254, "fp8_e5m2": 248}[name]
    assert torch.equal(back[is_finite], torch.from_numpy(raw)[is_finite])
    assert quantize(got, name)[want.isnan()].float().isnan().all()


@pytest.mark.parametrize("source", ["bf16", "fp16"])
@pytest.mark.parametrize("name", NUMPY_TYPE)
def test_all_65536_short_floats_encode_as_ml_dtypes_and_torch(name, source):
    raw = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16)
    x = raw.view(FORMATS[source].dtype).float()
    got = quantize(x, name).view(torch.uint8)
    with np.errstate(all="ignore"):
        want = torch.from_numpy(x.numpy().astype(NUMPY_TYPE[name]).view(np.uint8).copy())
    # Beyond 464 ml_dtypes gives NaN where this format saturates; 464 itself ties to 448.
    agree = ~x.isnan() & ((x.abs() <= 464) if name == "fp8_e4m3" else True)
    assert torch.equal(got[agree], want[agree])
    assert torch.equal(got[agree], x.to(FORMATS[name].dtype).view(torch.uint8)[agree])
    held = dequantize(got.view(FORMATS[name].dtype), ONE)
    assert torch.equal(held.isnan(), x.isnan())
    rest = ~agree & ~x.isnan()
    assert torch.equal(held[rest], torch.copysign(torch.tensor(448.0), x[rest]))


@pytest.mark.parametrize(("name", "limit"), [("int8", 127), ("int4", 7)])
def test_all_integer_codes_and_their_ties(name, limit):
    codes = torch.arange(-limit, limit + 1, dtype=torch.int8)
    values = dequantize(codes, torch.tensor(0.25))
    assert torch.equal(values, codes.float() / 4)
    assert torch.equal(torch.ops.core.quantize(values, torch.tensor(0.25), name), codes)
    low = codes[:-1].float()
    even = torch.where(low % 2 == 0, low, low + 1)
    assert torch.equal(quantize(low + 0.5, name).float(), even)
    assert quantize(torch.tensor([-1e9, 1e9]), name).tolist() == [-limit, limit]


def test_both_binary_codes():
    x = torch.tensor([-3.0, -1e-9, 0.0, 2.0])
    assert quantize(x, "binary").tolist() == [-1, -1, 1, 1]
