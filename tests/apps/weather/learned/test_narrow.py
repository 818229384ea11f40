import pytest
import torch

from apps.weather.learned.emulator import Emulator, EvenSwish
from apps.weather.learned.narrow import even_out, nearest_output, round_layer, strips
from core import BlockSparseLinear, LayerSpec, build_linear, freeze
from core.precision import format_named, quantize

# A few products of length 32 in float32, summed in another order: 32 * 2**-24 of their size.
ORDER = 1e-5


def network(spec, n_level=8, width=40):
    return Emulator(n_level, width=width, spec=spec, generator=torch.Generator().manual_seed(0))


def inputs(n=512, seed=1):
    """Features that go together, as those of neighbouring levels do."""
    generator = torch.Generator().manual_seed(seed)
    few = torch.randn(n, 6, generator=generator)
    mix = torch.randn(6, 38, generator=generator)
    return few @ mix + 0.1 * torch.randn(n, 38, generator=generator)


@pytest.mark.parametrize("density", [1.0, 0.5])
def test_evened_units_fill_one_range_and_the_network_gives_the_same(density):
    x = inputs()
    wide = network(LayerSpec(density=density, block=16))
    # a network that has learned: biases are not nought, units differ in size
    for i in wide.layers():
        wide.net[i].bias.data += torch.linspace(-1, 1, len(wide.net[i].bias))
    even = wide.with_formats("fp32", "int8").eval()
    for i in even.layers():  # look at the evening alone
        even.net[i].roles = wide.net[i].roles
        even.net[i].activation_range = None
    even_out(even, x)
    assert torch.allclose(even(x), wide(x), rtol=0, atol=ORDER * wide(x).abs().max().item())
    hidden = even.net[:2](x)
    assert isinstance(even.net[1], EvenSwish)
    assert torch.allclose(hidden.amax(0), torch.ones(40), atol=1e-4)
    assert torch.allclose(hidden.amin(0), -torch.ones(40), atol=1e-4)


@pytest.mark.parametrize("name", ["int8", "int4", "fp8_e4m3"])
def test_rounding_that_minds_the_inputs_loses_less_than_rounding_to_nearest(name):
    """Correlated inputs leave room: the error of one weight is taken up by the next."""
    x = inputs()
    weight = torch.randn(24, 38, generator=torch.Generator().manual_seed(2))
    kind = format_named(name)
    moments = x.double().T @ x.double() / len(x)
    minded = nearest_output(weight, moments, kind)
    codes, scale = quantize(weight, kind, axis=0)
    nearest = codes.to(torch.float32) * scale

    def lost(rounded):
        return (x @ (rounded - weight).T).square().mean().item()

    assert lost(minded) < 0.5 * lost(nearest)
    again, scale = quantize(minded, kind, axis=0)
    assert torch.allclose(again.to(torch.float32) * scale, minded, rtol=1e-6)


def test_independent_inputs_are_rounded_to_nearest():
    """Without correlation there is nothing to take up: the closed form is plain rounding."""
    kind = format_named("int8")
    weight = torch.randn(5, 16, generator=torch.Generator().manual_seed(3))
    rounded = nearest_output(weight, torch.eye(16, dtype=torch.float64), kind)
    step = rounded.abs().amax(1, keepdim=True) / 127
    inside = weight.abs() < 127 * step
    off = ((rounded - weight).abs() / step)[inside]
    assert off.max().item() <= 0.5 + 1e-3


@pytest.mark.parametrize("density", [1.0, 0.5])
@pytest.mark.parametrize("name", ["int8", "int4"])
def test_a_rounded_network_is_its_own_frozen_form(density, name):
    x = inputs()
    draft = network(LayerSpec(density=density, block=16)).eval()
    narrow = network(LayerSpec(density=density, block=16, weight_format=name)).eval()
    formats = [narrow.format_of(i).name for i in narrow.layers()]
    assert formats == ["bf16", name, "bf16"]
    round_layer(draft, 2, x, narrow.format_of(2))
    assert [n for n, p in draft.net[2].named_parameters() if p.requires_grad] == ["bias"]
    narrow.adopt(draft)
    hidden = draft.read_by(2, x)
    out = draft.net[2](hidden)
    size = out.abs().max().item()
    for same in (narrow, freeze(narrow)):
        assert torch.allclose(same.net[2](hidden), out, rtol=0, atol=ORDER * size)


def test_strips_hold_every_live_weight_and_write_it_back():
    layer = build_linear(
        40, 24, LayerSpec(density=0.5, block=16), generator=torch.Generator().manual_seed(4)
    )
    assert isinstance(layer, BlockSparseLinear)
    x = torch.randn(7, 48)
    x[:, 40:] = 0.0
    y = torch.zeros(7, 24)
    for rows, columns, weight, write in strips(layer):
        y[:, rows] = x[:, columns] @ weight.T
        with torch.no_grad():
            write(2.0 * weight)
    assert torch.allclose(layer(x[:, :40]) - layer.bias, 2.0 * y, atol=1e-5)
