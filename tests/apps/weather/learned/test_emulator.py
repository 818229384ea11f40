import pytest
import torch

from apps.lab.variant import VARIANTS
from apps.weather.atmosphere.constants import HEAT_CAPACITY
from apps.weather.learned.emulator import (
    Emulator,
    features,
    load_emulator,
    result_from_targets,
    save_emulator,
    targets,
)
from apps.weather.learned.scheme import LearnedRadiation
from apps.weather.learned.scores import cpu_ratio
from apps.weather.physics import Clouds, ExactRadiation, soundings
from apps.weather.physics.thermodynamics import layer_mass
from core import LayerSpec
from core.errors import DataError

# Sum of 8 products of some 100 W/m2 in float32: 8 * 2**-24 * 1e3 W/m2.
CLOSURE_W_M2 = 1e-3
# The goal is 20, and 28 to 53 were measured on a quiet processor. A neighbour that fills the cache
# costs the network's products more than the scheme's (17 were seen), so the guard against a
# regression stands lower; the record of each training run states its own ratio.
LEAST_CPU_RATIO = 12.0


def air(n=64, seed=0, dtype=torch.float32):
    return soundings(n, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def emulator(spec=None, seed=0, columns=None):
    net = Emulator(8, width=32, spec=spec, generator=torch.Generator().manual_seed(seed))
    columns = air() if columns is None else columns
    label = ExactRadiation(16, 8)(columns)
    sun = columns.cos_zenith
    net.normalise(features(columns, Clouds()), targets(label, sun), sun.square())
    return net


@pytest.mark.parametrize("name", VARIANTS)
def test_column_closes_and_night_is_dark_in_every_format(name):
    columns = air()
    night = columns.cos_zenith <= 0
    assert 0 < int(night.sum()) < len(night)
    result = LearnedRadiation(emulator(VARIANTS[name].layer_spec()))(columns)
    capacity = HEAT_CAPACITY * layer_mass(columns.pressure_half)
    absorbed = {
        "lw": -result.toa_lw - result.surface_lw,
        "sw": result.toa_sw - result.surface_sw,
    }
    for kind, heating in (("lw", result.heating_lw), ("sw", result.heating_sw)):
        assert ((heating * capacity).sum(1) - absorbed[kind]).abs().max().item() < CLOSURE_W_M2
    assert result.heating_sw[night].abs().max().item() == 0.0
    assert result.toa_sw[night].abs().max().item() == 0.0
    assert result.surface_sw[night].abs().max().item() == 0.0


def test_targets_and_back_give_the_label():
    columns = air(dtype=torch.float64)
    label = ExactRadiation(16, 8)(columns)
    again = result_from_targets(targets(label, columns.cos_zenith), columns)
    for name, got, true in zip(label._fields, again, label, strict=True):
        assert torch.allclose(got, true, rtol=1e-12, atol=1e-9), name


def test_normalised_inputs_and_outputs_have_unit_spread():
    columns = air(4096)
    net = emulator(columns=columns)
    x = net.scaled(features(columns, Clouds()))
    varies = net.input_scale > 0
    # albedo, carbon dioxide and cloud in the dry top layer (two inputs) never vary: nought
    assert int((~varies).sum()) == 4
    assert x[:, ~varies].abs().max().item() == 0.0
    assert torch.allclose(x[:, varies].std(0), torch.ones(int(varies.sum())), atol=1e-3)


def test_features_see_carbon_dioxide_and_cloud():
    columns = air()
    base = features(columns, Clouds())
    doubled = features(columns._replace(co2_ppmv=2 * columns.co2_ppmv), Clouds())
    assert int(((doubled - base).abs() > 0).any(0).sum()) == 1
    dry = features(columns._replace(humidity=0 * columns.humidity), Clouds())
    assert dry[:, 16:32].abs().max().item() == 0.0  # no vapour, no cloud
    assert dry.shape == (64, 4 * 8 + 6)


def test_chunks_do_not_change_the_answer():
    columns, net = air(100), emulator()
    whole = LearnedRadiation(net, is_fused=False)(columns)
    parts = LearnedRadiation(net, columns_per_chunk=7, is_fused=False)(columns)
    # products of another height may sum in another order: a few 2**-24 of 3e-5 K/s
    assert torch.allclose(whole.heating_lw, parts.heating_lw, rtol=1e-4, atol=1e-9)


def test_saved_network_is_the_same_network(tmp_path):
    net = emulator(LayerSpec(density=0.25, block=16))
    path = save_emulator(tmp_path / "emulator.safetensors", net, {"seed": 3})
    for where in (path, tmp_path):
        loaded, meta = load_emulator(where)
        assert meta == {"seed": 3}
        a, b = LearnedRadiation(net)(air()), LearnedRadiation(loaded)(air())
        assert torch.equal(a.heating_lw, b.heating_lw)
        assert torch.equal(a.toa_sw, b.toa_sw)


def test_a_file_that_is_no_emulator_is_refused(tmp_path):
    from apps.lab.checkpoint import save_checkpoint

    path = save_checkpoint(tmp_path / "other.safetensors", {"x": torch.zeros(1)}, {"y": 1})
    with pytest.raises(DataError, match=r"other\.safetensors is not an emulator; give the folder"):
        load_emulator(path)
    (tmp_path / "config.toml").write_text("seed = 0")
    with pytest.raises(DataError, match=r"config\.toml is not an emulator; give the folder"):
        load_emulator(tmp_path / "config.toml")
    with pytest.raises(DataError, match="there is no checkpoint"):
        load_emulator(tmp_path)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_far_cheaper_than_the_exact_scheme(name):
    columns = air(2048)
    learned = LearnedRadiation(
        Emulator(8, spec=VARIANTS[name].layer_spec(), generator=torch.Generator().manual_seed(0))
    )
    assert cpu_ratio(ExactRadiation(128, 32), learned, columns) > LEAST_CPU_RATIO
