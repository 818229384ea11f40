"""The compiled route gives what the torch route gives."""

import time

import pytest
import torch

from apps.weather.learned.emulator import Emulator, features, targets
from apps.weather.learned.fused import fused
from apps.weather.learned.scheme import LearnedRadiation
from apps.weather.physics import Clouds, ExactRadiation, soundings
from core import LayerSpec, freeze
from core.kernels.load import library

pytestmark = pytest.mark.skipif(library() is None, reason="no C++ compiler on this host")

# Sums of some 100 products in float32 in another order, and exp to a few 2**-24.
FP32 = 2e-5
# bf16 sums are rounded to bf16 on the torch route alone (2**-9 of a sum that may be 4 times the
# result); a code of 8 bits that then tips over moves an output by about 1/127 of its share.
NARROW = {"fp32": FP32, "bf16": 0.02, "int8": 0.04}


def air(n, n_level=8):
    return soundings(n, n_level, generator=torch.Generator().manual_seed(3))


def network(spec, n_level=8, **size):
    generator = torch.Generator().manual_seed(0)
    net = Emulator(n_level, spec=spec, generator=generator, **{"width": 48, **size})
    columns = air(512, n_level)
    label, sun = ExactRadiation(16, 8)(columns), columns.cos_zenith
    net.normalise(features(columns, Clouds()), targets(label, sun), sun.square())
    net.train()
    net(net.scaled(features(columns, Clouds())))  # the range of the activations
    return net.eval()


def routes(spec, n=70, **size):
    net, columns = network(spec, **size), air(n, size.get("n_level", 8))
    compiled = LearnedRadiation(net)
    if compiled.fused is None:
        pytest.skip("this processor does not multiply the format")
    return compiled(columns), LearnedRadiation(net, is_fused=False)(columns)


@pytest.mark.parametrize("density", [1.0, 0.25])
@pytest.mark.parametrize(
    ("weight", "activation"),
    [("fp32", "fp32"), ("bf16", "bf16"), ("int8", "int8"), ("int4", "fp32"), ("int8", "bf16")],
)
def test_both_routes_agree_in_every_format(weight, activation, density):
    spec = LayerSpec(density=density, weight_format=weight, activation_format=activation)
    for name, got, true in zip(
        ("heating_lw", "heating_sw", "toa_lw", "toa_sw", "surface_lw", "surface_sw"),
        *routes(spec),
        strict=True,
    ):
        size = true.abs().max()
        bound = NARROW["bf16" if weight == "int4" else activation]  # its ends are bf16
        assert (got - true).abs().max() < bound * size, name


@pytest.mark.parametrize("n", [1, 31, 32, 33])
@pytest.mark.parametrize(("n_level", "width"), [(8, 20), (10, 40), (20, 64)])
def test_ragged_tiles_and_other_sizes(n, n_level, width):
    for got, true in zip(*routes(LayerSpec(), n, n_level=n_level, width=width), strict=True):
        assert got.shape == true.shape
        assert (got - true).abs().max() < FP32 * true.abs().max().clamp(min=1e-9)


@pytest.mark.parametrize("name", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize(("width", "n_hidden", "n_level"), [(20, 1, 8), (44, 3, 9), (21, 2, 10)])
def test_strips_that_layers_do_not_fill(name, width, n_hidden, n_level):
    spec = LayerSpec(weight_format=name, activation_format=name)
    found = routes(spec, 40, width=width, n_hidden=n_hidden, n_level=n_level)
    for got, true in zip(*found, strict=True):
        assert (got - true).abs().max() < NARROW[name] * true.abs().max().clamp(min=1e-9)


def test_a_column_that_is_not_finite_gives_nan_and_no_other_does():
    for name in ("fp32", "int8"):
        spec = LayerSpec(weight_format=name, activation_format=name)
        scheme, columns = LearnedRadiation(network(spec)), air(40)
        humidity = columns.humidity.clone()
        humidity[7, 3] = torch.nan
        result = scheme(columns._replace(humidity=humidity))
        bad = result.heating_lw.isnan().any(1)
        assert bad[7]
        assert int(bad.sum()) == 1
        assert result.surface_sw[7].isnan()


def test_what_the_kernel_cannot_take_goes_the_torch_route():
    net = network(LayerSpec())
    scheme = LearnedRadiation(net)
    if scheme.fused is None:
        pytest.skip("no kernel here")
    assert scheme.fused(air(8).to(torch.float64)) is None
    assert scheme.fused(air(8, 10)) is None
    spec = LayerSpec(weight_format="fp8_e4m3", activation_format="fp8_e4m3")
    assert fused(freeze(network(spec)), Clouds()) is None


def test_the_compiled_route_is_several_times_faster_than_torch():
    spec = LayerSpec(density=0.25, weight_format="int8", activation_format="int8")
    net, columns = network(spec, width=96), air(2048)
    compiled, plain = LearnedRadiation(net), LearnedRadiation(net, is_fused=False)
    if compiled.fused is None:
        pytest.skip("this processor does not multiply the format")
    best = dict.fromkeys((compiled, plain), float("inf"))
    n_thread = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(40):
            for scheme in best:
                begun = time.thread_time()
                scheme(columns)
                best[scheme] = min(best[scheme], time.thread_time() - begun)
    finally:
        torch.set_num_threads(n_thread)
    assert best[plain] > 3.5 * best[compiled]  # 5 to 7; 3 where sums lie on the stack
