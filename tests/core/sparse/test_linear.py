"""Layers of every density and format: values, gradients, initial scale, state, inference form."""

import copy
import io

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode

from core.errors import ConfigError, FormatError, PatternError
from core.precision import FORMATS, dequantize, quantize, round_to_format
from core.sparse import BlockPattern, BlockSparseLinear, LayerSpec, build_linear, freeze

FORMAT_PAIRS = [
    ("fp32", "fp32"),
    ("bf16", "bf16"),
    ("bf16", "fp32"),
    ("fp16", "fp16"),
    ("tf32", "tf32"),
    ("int8", "fp32"),
    ("int8", "bf16"),
    ("fp8_e4m3", "bf16"),
    ("fp8_e5m2", "fp32"),
    ("int4", "int8"),
    ("binary", "fp32"),
]


def generator():
    return torch.Generator().manual_seed(4)


def dense_weight(layer):
    """The weight matrix that a layer multiplies by, before any rounding."""
    if isinstance(layer, nn.Linear):
        return layer.weight.detach()
    eye = torch.eye(layer.in_features)
    plain = BlockSparseLinear(
        layer.in_features, layer.out_features, pattern=layer.pattern, bias=False
    )
    names = plain.state_dict()
    plain.load_state_dict({k: v for k, v in layer.state_dict().items() if k in names})
    return plain(eye).detach().t()


@pytest.mark.parametrize("density", [1, 0.3])
@pytest.mark.parametrize(("weight", "activation"), FORMAT_PAIRS)
def test_layer_multiplies_what_its_formats_can_hold(weight, activation, density):
    """Rounded operands, an exact product of them, and then only the rounding of the result."""
    spec = LayerSpec(density, 4, weight, activation)
    layer = build_linear(19, 13, spec, generator=generator())
    x = torch.randn(6, 19, generator=generator())
    w = dense_weight(layer)
    names = {weight, activation} & {"bf16", "fp16"}
    compute = names.pop() if names else "fp32"

    def held(operand, name, axis):
        if FORMATS[name].needs_scale:
            operand = dequantize(*quantize(operand, name, axis=axis))
        else:
            operand = round_to_format(operand, name)
        return round_to_format(operand, compute).double()

    a, b = held(x, activation, None), held(w, weight, 0)
    if weight == "binary" and density < 1:  # zero outside live blocks, scale of live entries only
        live = layer.pattern.mask()
        n_row = layer.pattern.grid[0] * 4
        padded = torch.zeros(n_row, 20)
        padded[:13, :19] = w.abs()
        n_live = layer.pattern.row_ptr.diff().repeat_interleave(4) * 4
        b = torch.where(w >= 0, 1.0, -1.0) * (padded.sum(1) / n_live)[:13, None] * live
        b = b.double()
    want = a @ b.t() + layer.bias.double()
    # k + 2 roundings in the sum, one of the result, one of the scale's own product.
    unit = {"fp32": 2.0**-24, "bf16": 2.0**-8, "fp16": 2.0**-11}[compute]
    bound = (19 + 4) * 2.0**-24 * (a.abs() @ b.abs().t()) + unit * (want - layer.bias).abs()
    bound += 2.0**-23 * want.abs()
    error = (layer(x).double() - want).abs()
    assert (error <= bound).all(), (error - bound).max()


@pytest.mark.parametrize("density", [1, 0.3])
@pytest.mark.parametrize(("weight", "activation"), FORMAT_PAIRS)
def test_gradients_reach_the_master_weights_straight_through(weight, activation, density):
    layer = build_linear(19, 13, LayerSpec(density, 4, weight, activation), generator=generator())
    x = torch.randn(6, 19, generator=generator(), requires_grad=True)
    layer(x).sum().backward()
    held = dequantize(*quantize(x, activation)) if FORMATS[activation].needs_scale else x
    column = held.detach().sum(0)
    weight_grad = next(layer.parameters()).grad
    assert weight_grad.dtype == torch.float32
    if density == 1:
        got = weight_grad
        want = column.expand(13, 19)
    else:
        plain = BlockSparseLinear(19, 13, pattern=layer.pattern, bias=False)
        plain.values.data = weight_grad
        got = dense_weight(plain)
        want = column * layer.pattern.mask()
    # Six terms of magnitude up to max |x|, each and the sum rounded in the dtype of the product.
    unit = {"bf16": 2.0**-8, "fp16": 2.0**-11, "tf32": 2.0**-11}
    tolerance = 8 * x.abs().max() * max(unit.get(f, 2.0**-24) for f in (weight, activation))
    assert ((got - want).abs() <= tolerance).all()
    assert torch.equal(layer.bias.grad, torch.full((13,), 6.0))
    assert x.grad.shape == x.shape
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize("density", [1, 0.3])
@pytest.mark.parametrize(
    ("formats", "gradient"),
    [(("fp32", "fp32"), "fp8_e5m2"), (("fp32", "fp32"), "bf16"), (("bf16", "bf16"), "bf16")],
)
def test_the_gradient_that_enters_a_layer_is_rounded_to_its_format(formats, gradient, density):
    spec = LayerSpec(density, 4, *formats, gradient_format=gradient)
    layer = build_linear(19, 13, spec, generator=generator())
    x = torch.randn(6, 19, generator=generator())
    dy = torch.randn(6, 13, generator=generator())
    layer(x).backward(dy)
    if gradient == "fp8_e5m2":
        held = dequantize(*quantize(dy, gradient))
    else:
        held = round_to_format(dy, gradient)
    if formats[0] == "fp32":  # in bf16 the product rounds, not the bias outside it
        dy = held
    assert torch.equal(layer.bias.grad, dy.sum(0))
    weight_grad = next(layer.parameters()).grad
    name = "weight" if density == 1 else "values"
    plain = build_linear(19, 13, LayerSpec(density, 4, *formats), generator=generator())
    plain(x).backward(held)
    assert torch.equal(weight_grad, getattr(plain, name).grad)


@pytest.mark.parametrize("density", [1, 0.3])
def test_frozen_activations_keep_the_range_of_training(density):
    spec = LayerSpec(density, 4, "int8", "int8")
    layer = build_linear(19, 13, spec, generator=generator())
    x = torch.randn(6, 19, generator=generator())
    layer(x)
    again = build_linear(19, 13, spec, generator=generator())
    again.load_state_dict(layer.state_dict())
    small, wide = freeze(again), torch.cat([x, 100 * x])
    assert again.activation_range.top == x.abs().max()
    # A stranger in the batch does not change the answers for its neighbours.
    # (Batches of one size: another size may be summed in another order.)
    assert torch.equal(small(wide)[:6], small(torch.cat([x, x]))[:6])
    if density == 1:
        assert torch.equal(small(x), layer.eval()(x))
    else:  # integers against up to 19 products and as many sums rounded in float32
        size = x.abs() @ dense_weight(layer).abs().t() + layer.bias.abs()
        assert ((small(x) - layer.eval()(x)).abs() <= 24 * 2.0**-23 * size).all()


@pytest.mark.parametrize("density", [1, 0.3])
@pytest.mark.parametrize(("weight", "activation"), FORMAT_PAIRS)
def test_frozen_copy_answers_bit_for_bit_and_rests_in_its_format(weight, activation, density):
    spec = LayerSpec(density, 4, weight, activation)
    model = nn.Sequential(build_linear(19, 13, spec, generator=generator()), nn.ReLU())
    x = torch.randn(6, 19, generator=generator())
    small = freeze(model)
    assert torch.equal(small(x), model(x))
    assert isinstance(model[0].bias, nn.Parameter)
    if weight != "fp32":
        assert small[0].codes.dtype == FORMATS[weight].dtype
        assert not list(small.parameters())
    assert not small.training


def test_double_precision_layer_passes_gradcheck():
    for density in (1, 0.4):
        layer = build_linear(7, 5, LayerSpec(density, 2), generator=generator()).double()
        x = torch.randn(3, 7, dtype=torch.float64, generator=generator(), requires_grad=True)
        weights = dict(layer.named_parameters())
        names, tensors = list(weights), list(weights.values())

        def call(x, *tensors, layer=layer, names=names):
            return torch.func.functional_call(layer, dict(zip(names, tensors, strict=True)), x)

        assert torch.autograd.gradcheck(call, (x, *tensors))


def test_initial_weights_scale_with_live_inputs():
    """Uniform in +-1/sqrt(live inputs of the row): variance 1/(3 live)."""
    row = torch.tensor([0] * 32 + [1] * 2)
    col = torch.cat([torch.arange(32), torch.tensor([3, 9])])
    pattern = BlockPattern.from_index((32, 512), (16, 16), row, col)
    layer = BlockSparseLinear(512, 32, pattern=pattern, generator=generator())
    wide, thin = layer.values[:32], layer.values[32:]
    assert wide.abs().max() <= 512**-0.5
    assert thin.abs().max() <= 32**-0.5
    # Variance of a uniform draw has relative standard error sqrt(4/5/n); five of them are allowed.
    for part, live in ((wide, 512), (thin, 32)):
        allowed = 5 * (0.8 / part.numel()) ** 0.5
        assert abs(part.square().mean().item() * 3 * live - 1) < allowed
    ragged = build_linear(17, 9, LayerSpec(0.9, 4), generator=generator())
    edge = ragged.values[ragged.col_index == 4]
    assert torch.count_nonzero(edge[:, :, 1:]) == 0
    assert torch.count_nonzero(edge[:, :, 0]) > 0


def test_state_dict_carries_the_pattern():
    a = build_linear(20, 12, LayerSpec(0.5, 4), generator=generator())
    b = build_linear(20, 12, LayerSpec(0.2, 4), generator=torch.Generator().manual_seed(8))
    assert a.pattern.n_block != b.pattern.n_block
    assert set(a.state_dict()) == {"values", "bias", "row_index", "col_index"}
    b.load_state_dict(a.state_dict())
    x = torch.randn(5, 20, requires_grad=True)
    assert torch.equal(a(x), b(x))
    (want,), (got,) = torch.autograd.grad(a(x).sum(), x), torch.autograd.grad(b(x).sum(), x)
    assert torch.equal(want, got)


@pytest.mark.parametrize("density", [1, 0.3])
def test_copies_and_saved_modules_are_equal(density):
    layer = build_linear(20, 12, LayerSpec(density, 4, "int8"), generator=generator())
    x = torch.randn(5, 20)
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))
    buffer = io.BytesIO()
    torch.save(layer, buffer)
    buffer.seek(0)
    # Our own object, made one line above: the only pickle the suite ever opens.
    assert torch.equal(torch.load(buffer, weights_only=False)(x), layer(x))


@pytest.mark.parametrize("density", [1, 0.3])
@pytest.mark.parametrize(("weight", "activation"), FORMAT_PAIRS)
def test_shapes_alone_suffice_under_fake_tensors(weight, activation, density):
    layer = build_linear(19, 13, LayerSpec(density, 4, weight, activation), generator=generator())
    with FakeTensorMode(allow_non_fake_inputs=True):
        x = torch.empty(2, 6, 19, requires_grad=True)
        layer(x).sum().backward()
    assert x.grad.shape == (2, 6, 19)
    small = freeze(layer)
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert small(torch.empty(6, 19)).shape == (6, 13)


def test_same_seed_same_bits():
    spec = LayerSpec(0.3, 4)
    a, b = (build_linear(40, 30, spec, generator=generator()) for _ in range(2))
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        assert torch.equal(p, q)


def test_a_row_of_zeros_and_a_bad_weight_stay_visible():
    layer = build_linear(8, 4, LayerSpec(0.5, 2, "int8"), generator=generator())
    layer.bias.data.zero_()
    layer.values.data[layer.row_index == 0] = 0
    y = layer(torch.ones(1, 8))
    assert torch.equal(y[0, :2], torch.zeros(2))
    layer.values.data[0, 0, 0] = torch.nan
    y = layer(torch.ones(1, 8))
    assert y[0].isnan().any()
    assert y[0, 2:].isfinite().all()


def test_clear_errors():
    with pytest.raises(ConfigError, match=r"density must lie in \(0, 1\], got 1.5"):
        LayerSpec(density=1.5)
    with pytest.raises(ConfigError, match=r"block must be at least 1, got 0"):
        LayerSpec(block=0)
    with pytest.raises(FormatError, match=r"unknown format 'bf61'; .* did you mean 'bf16'\?"):
        LayerSpec(weight_format="bf61")
    with pytest.raises(FormatError, match=r"'bf16' and activation_format 'fp16' ask for products"):
        build_linear(4, 4, LayerSpec(1, 2, "bf16", "fp16"), generator=generator())
    pattern = BlockPattern.dense((4, 6), (2, 2))
    with pytest.raises(PatternError, match=r"\(out_features, in_features\) = \(6, 4\), got \(4, 6"):
        BlockSparseLinear(4, 6, pattern=pattern)
