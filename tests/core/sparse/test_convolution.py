"""A convolution with holes against torch's dense convolution in float64."""

import pytest
import torch
import torch.nn.functional as F

from core.errors import ConfigError, ShapeError
from core.sparse import LayerSpec, freeze
from core.sparse.convolution import SparseConv2d, dilated_taps

CROSS = [(0, 0), (-1, 0), (1, 0), (0, -2), (0, 2)]


def conv_of(taps, spec=None, is_periodic=(False, False), seed=1):
    generator = torch.Generator().manual_seed(seed)
    return SparseConv2d(
        6, 5, taps=taps, spec=spec, is_periodic=is_periodic, generator=generator
    ).double()


def dense_kernel(conv):
    """Its weights [out, in, 2 reach + 1, 2 reach + 1], zero in the holes."""
    eye = torch.eye(conv.linear.in_features, dtype=torch.float64)
    matrix = (conv.linear(eye) - conv.linear.bias).detach().t()
    down, right = conv.reach
    kernel = torch.zeros(5, 6, 2 * down + 1, 2 * right + 1, dtype=torch.float64)
    for t, (i, j) in enumerate(conv.taps):
        kernel[:, :, down + i, right + j] = matrix[:, 6 * t : 6 * t + 6]
    return kernel


@pytest.mark.parametrize("is_periodic", [(False, False), (False, True), (True, True)])
@pytest.mark.parametrize("spec", [None, LayerSpec(0.4, 2)], ids=["dense", "sparse"])
@pytest.mark.parametrize(
    "taps", [CROSS, dilated_taps(3, 3, 2), [(0, 0)], [(1, 3)]], ids=["cross", "dilated", "1", "far"]
)
def test_equals_a_dense_convolution_with_zeros_in_the_holes(taps, spec, is_periodic):
    conv = conv_of(taps, spec, is_periodic)
    x = torch.randn(2, 6, 7, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    down, right = conv.reach
    padded = F.pad(x, (right, right, 0, 0), mode="circular" if is_periodic[1] else "constant")
    padded = F.pad(padded, (0, 0, down, down), mode="circular" if is_periodic[0] else "constant")
    want = F.conv2d(padded, dense_kernel(conv), conv.linear.bias)
    # Sums of at most 54 products of order one, in two orders.
    assert torch.allclose(conv(x), want, rtol=1e-12, atol=1e-13)


def test_dilated_taps_are_those_of_torch():
    conv = conv_of(dilated_taps(3, 3, 2))
    x = torch.randn(1, 6, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    kernel = dense_kernel(conv)[:, :, ::2, ::2]
    want = F.conv2d(x, kernel, conv.linear.bias, padding=2, dilation=2)
    assert torch.allclose(conv(x), want, rtol=1e-12, atol=1e-13)


def test_gradients():
    conv = conv_of(CROSS, LayerSpec(0.5, 2), (False, True))
    x = torch.randn(1, 6, 3, 4, dtype=torch.float64, requires_grad=True)
    names = [name for name, _ in conv.named_parameters()]

    def call(x, *tensors):
        return torch.func.functional_call(conv, dict(zip(names, tensors, strict=True)), x)

    assert torch.autograd.gradcheck(call, (x, *conv.parameters()))


def test_a_shift_of_a_periodic_field_shifts_the_answer():
    conv = conv_of(CROSS, LayerSpec(0.5, 2), (True, True))
    x = torch.randn(1, 6, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    moved = conv(x.roll((2, 3), (2, 3)))
    assert torch.allclose(moved, conv(x).roll((2, 3), (2, 3)), rtol=1e-12, atol=1e-13)
    small = freeze(conv)
    assert torch.equal(small(x), conv(x))


def test_clear_errors():
    with pytest.raises(ConfigError, match=r"taps must be one or more different offsets, got \[\]"):
        conv_of([])
    with pytest.raises(ConfigError, match=r"different offsets, got \[\(0, 1\), \(0, 1\)\]"):
        conv_of([(0, 1), (0, 1)])
    conv = conv_of([(0, 4)], is_periodic=(False, True))
    with pytest.raises(ShapeError, match=r"\[batch, 6, row, column\], got \[1, 5, 4, 4\]"):
        conv(torch.ones(1, 5, 4, 4))
    with pytest.raises(ShapeError, match=r"a tap reaches 4 points around a periodic axis of 3"):
        conv(torch.ones(1, 6, 4, 3, dtype=torch.float64))
