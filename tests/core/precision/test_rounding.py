"""Rounding: every code of the small formats, casts of torch and ml_dtypes, statistics."""

import ml_dtypes
import numpy as np
import pytest
import torch

from core.errors import DtypeError, FormatError
from core.kernels.call import kernels
from core.precision import FORMATS, round_to_format, rounding

FLOATS_8 = ["fp8_e4m3", "fp8_e5m2"]
NUMPY_TYPE = {
    "bf16": ml_dtypes.bfloat16,
    "fp16": np.float16,
    "fp8_e4m3": ml_dtypes.float8_e4m3fn,
    "fp8_e5m2": ml_dtypes.float8_e5m2,
}


@pytest.fixture(params=["kernels", "torch"], autouse=True)
def route(request, monkeypatch):
    """Every test of this file runs on the compiled kernels and on plain torch."""
    if request.param == "torch":
        monkeypatch.setattr(rounding, "kernels_for", lambda a, b: None)
    elif kernels() is None:
        pytest.skip("no compiled kernels here: no C++ compiler, or TESSERA_KERNELS=torch")


def codes_of(name):
    """All finite values of an 8-bit float format, ascending, as ml_dtypes reads its 256 codes."""
    values = np.arange(256, dtype=np.uint8).view(NUMPY_TYPE[name]).astype(np.float64)
    return torch.from_numpy(np.unique(values[np.isfinite(values)]))


def bits(x):
    return x.view(torch.int32 if x.dtype == torch.float32 else torch.int64)


def random_bits(n, generator):
    raw = torch.randint(-(2**31), 2**31, (n,), generator=generator, dtype=torch.int64)
    return raw.int().view(torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", FLOATS_8)
def test_all_codes_midpoints_and_neighbours_of_8_bit_formats(name, dtype):
    values = codes_of(name).to(dtype)
    assert values.max() == FORMATS[name].max_value
    assert torch.equal(bits(round_to_format(values, name)), bits(values))
    low, high = values[:-1], values[1:]
    middle = (low + high) / 2  # exact: both ends have few bits
    up, down = torch.tensor(torch.inf, dtype=dtype), torch.tensor(-torch.inf, dtype=dtype)
    assert torch.equal(round_to_format(torch.nextafter(middle, down), name), low)
    assert torch.equal(round_to_format(torch.nextafter(middle, up), name), high)
    tie = round_to_format(middle, name)
    # Ties go to the neighbour whose last mantissa bit is 0: the even code.
    code = torch.from_numpy(low.double().numpy().astype(NUMPY_TYPE[name]).view(np.uint8).copy())
    even = torch.where(code % 2 == 0, low, high)
    assert torch.equal(tie, even)


@pytest.mark.parametrize("name", NUMPY_TYPE)
def test_random_bit_patterns_equal_the_casts_of_ml_dtypes(name):
    x = random_bits(1 << 18, torch.Generator().manual_seed(1))
    got = round_to_format(x, name)
    with np.errstate(all="ignore"):
        want = torch.from_numpy(x.numpy().astype(NUMPY_TYPE[name]).astype(np.float32))
    if name == "fp8_e4m3":  # ml_dtypes turns overflow into NaN, this format saturates
        over = want.isnan() & ~x.isnan()
        assert torch.equal(got[over], torch.copysign(torch.tensor(448.0), x[over]))
        assert (x[over].abs() > 448).all()
        got, want = got[~over], want[~over]
    same = (bits(got) == bits(want)) | (got.isnan() & want.isnan())
    assert same.all()
    assert torch.equal(round_to_format(x.double(), name)[:99].float().isnan(), x.isnan()[:99])


def test_double_input_is_rounded_once():
    """1 + 2^-8 is midway between two bf16; a tail below float32's reach must decide."""
    x = torch.tensor([1 + 2.0**-8 + 2.0**-40, 1 + 2.0**-8 - 2.0**-40], dtype=torch.float64)
    assert round_to_format(x, "bf16").tolist() == [1 + 2.0**-7, 1.0]
    assert round_to_format(x, "fp64").tolist() == x.tolist()
    assert round_to_format(x, "fp32").tolist() == [1 + 2.0**-8] * 2


def test_tf32_keeps_ten_fraction_bits_and_the_range_of_fp32():
    x = torch.tensor([1 + 2.0**-11, 1 + 3 * 2.0**-11, 3e38, 2.0**-126, torch.inf])
    got = round_to_format(x, "tf32")
    assert got[:2].tolist() == [1.0, 1 + 2 * 2.0**-10]
    assert got[3:].tolist() == [2.0**-126, torch.inf]
    assert abs(got[2] / 3e38 - 1) <= 2.0**-11


@pytest.mark.parametrize(
    ("name", "over", "becomes"),
    [
        ("bf16", 3.4e38, torch.inf),
        ("fp16", 65520.0, torch.inf),
        ("fp16", 65519.0, 65504.0),
        ("fp8_e4m3", 1e6, 448.0),
        ("fp8_e4m3", torch.inf, 448.0),
        ("fp8_e5m2", 61440.0, torch.inf),
        ("fp8_e5m2", 61439.0, 57344.0),
        ("int8", 1e9, 127.0),
        ("int4", torch.inf, 7.0),
        ("binary", 0.0, 1.0),
    ],
)
def test_overflow_follows_the_rule_of_the_format(name, over, becomes):
    x = torch.tensor([over, -over])
    want = [becomes, becomes if name == "binary" else -becomes]
    assert round_to_format(x, name).tolist() == want


@pytest.mark.parametrize("name", [n for n in FORMATS if n not in ("fp64", "fp32")])
def test_nan_stays_and_rounding_twice_changes_nothing(name):
    x = torch.cat([random_bits(4096, torch.Generator().manual_seed(2)), torch.tensor([torch.nan])])
    once = round_to_format(x, name)
    assert torch.equal(once.isnan(), x.isnan())
    same = (bits(round_to_format(once, name)) == bits(once)) | once.isnan()
    assert same.all()


def test_integers_tie_to_even_and_keep_symmetric():
    x = torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5, -126.5, -128.0])
    assert round_to_format(x, "int8").tolist() == [0, 2, 2, 0, -2, -126, -127]


@pytest.mark.parametrize("name", ["bf16", "fp16", "tf32", "fp8_e4m3", "fp8_e5m2", "int8"])
def test_stochastic_rounding_picks_a_neighbour_and_has_no_bias(name):
    g = torch.Generator().manual_seed(3)
    values = torch.tensor([0.3, -1.7, 3.3e-3, 40.1, 6.1e-5])
    n_draw = 20_000
    x = values.repeat(n_draw, 1)
    got = round_to_format(x, name, rounding="stochastic", generator=g).double()
    mean, spread = got.mean(0), got.max(0).values - got.min(0).values
    nearest = round_to_format(values, name).double()
    assert ((got - values.double()).abs() <= spread).all()
    assert (got == nearest).any(0).all()
    # The mean of n draws, each one of two neighbours `spread` apart, has a standard error of at
    # most spread / (2 sqrt(n)); five of them are allowed.
    assert ((mean - values.double()).abs() <= 5 * spread / 2 / n_draw**0.5).all()
    for column in got.t():
        assert column.unique().numel() <= 2


def test_stochastic_rounding_leaves_held_values_and_repeats_with_its_seed():
    held = codes_of("fp8_e4m3").float()
    g = torch.Generator().manual_seed(4)
    got = round_to_format(held, "fp8_e4m3", rounding="stochastic", generator=g)
    assert torch.equal(got, held)
    x = torch.randn(100, generator=g)
    a, b = (
        round_to_format(x, "fp8_e4m3", rounding="stochastic", generator=g.manual_seed(5))
        for _ in range(2)
    )
    assert torch.equal(a, b)


@pytest.mark.parametrize("rule", ["nearest", "stochastic"])
@pytest.mark.parametrize("name", [n for n in FORMATS if n not in ("fp64", "fp32", "binary")])
def test_kernels_and_torch_agree_bit_for_bit(name, rule, monkeypatch):
    x = random_bits(1 << 16, torch.Generator().manual_seed(6))
    x = torch.cat([x, torch.randn(1 << 12), torch.randn(1 << 12) * 1e-3, torch.zeros(3)])
    got = []
    for known in (kernels(), None):
        monkeypatch.setattr(rounding, "kernels_for", lambda a, b, known=known: known)
        g = torch.Generator().manual_seed(7)
        got.append(round_to_format(x, name, rounding=rule, generator=g))
    same = (bits(got[0]) == bits(got[1])) | (got[0].isnan() & got[1].isnan())
    assert same.all(), (x[~same][:4], got[0][~same][:4], got[1][~same][:4])


def test_op_keeps_the_promises_torch_compile_needs():
    op, x = torch.ops.core.round_to_format.default, torch.randn(5, 3)
    for seed in (-1, 7):
        result = torch.library.opcheck(op, (x, "fp8_e4m3", seed))
        assert set(result.values()) == {"SUCCESS"}


def test_clear_errors():
    x = torch.ones(2)
    with pytest.raises(FormatError, match=r"unknown format 'fp8'; .* did you mean 'fp"):
        round_to_format(x, "fp8")
    with pytest.raises(FormatError, match=r"must be 'nearest' or 'stochastic', got 'sto'; name"):
        round_to_format(torch.ones(2), "fp8_e4m3", rounding="sto")  # type: ignore[arg-type]
    with pytest.raises(FormatError, match=r"needs a generator, got None; pass torch.Generator"):
        round_to_format(x, "bf16", rounding="stochastic")
    with pytest.raises(DtypeError, match=r"x must be float32 or float64, got int64; convert it"):
        round_to_format(x.long(), "bf16")
