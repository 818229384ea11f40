import pytest
import torch

from apps.lab.variant import VARIANTS
from apps.weather.atmosphere.constants import HEAT_CAPACITY
from apps.weather.learned.columns import LabelledColumns
from apps.weather.learned.emulator import (
    features,
    load_emulator,
    save_emulator,
    targets,
)
from apps.weather.learned.fitting import NetworkConfig, fit_emulator, make_emulator
from apps.weather.learned.recurrent import RecurrentEmulator
from apps.weather.learned.scheme import LearnedRadiation
from apps.weather.learned.scores import baselines, score_scheme
from apps.weather.physics import Clouds, ExactRadiation, soundings
from apps.weather.physics.thermodynamics import layer_mass
from core import LayerSpec

EXACT = ExactRadiation(32, 8)


def labelled(n, seed):
    columns = soundings(n, generator=torch.Generator().manual_seed(seed))
    return LabelledColumns(columns, EXACT(columns), torch.zeros(n, dtype=torch.float64))


def network(spec=None, n_level=8, width=16):
    net = RecurrentEmulator(
        n_level, width=width, spec=spec, generator=torch.Generator().manual_seed(0)
    )
    columns = soundings(64, n_level, generator=torch.Generator().manual_seed(1))
    sun = columns.cos_zenith
    net.normalise(
        features(columns, Clouds()), targets(EXACT(columns), sun), sun.clamp(min=0).square()
    )
    return net, columns


def test_forward_follows_the_cell_written_out():
    """Cho et al. 2014 by scalars, for one unit of two neurons walking three levels."""
    net, columns = network(n_level=3, width=2)
    x = net.scaled(features(columns, Clouds()))[:1]
    surface = x[0, 12:]
    sigmoid = torch.sigmoid

    def walk(h, order, read, turn):
        states = {}
        for k in order:
            seen = torch.cat([x[0, [k, 3 + k, 6 + k, 9 + k]], surface])
            a, b = read(seen), turn(h)
            reset, keep = sigmoid(a[:2] + b[:2]), sigmoid(a[2:4] + b[2:4])
            h = (1.0 - keep) * torch.tanh(a[4:] + reset * b[4:]) + keep * h
            states[k] = h
        return states

    down = walk(torch.tanh(net.begin(surface)), (0, 1, 2), net.read[0], net.walk[0])
    turned = torch.tanh(net.turn(torch.cat([down[2], surface])))
    up = walk(turned, (2, 1, 0), net.read[1], net.walk[1])
    heat = [net.heat(torch.cat([down[k], up[k]])) for k in range(3)]
    top = net.top(up[0])
    wanted = torch.stack([*(h[0] for h in heat), top[0], *(h[1] for h in heat), top[1]])
    assert torch.allclose(net(x)[0], wanted, atol=1e-6)


@pytest.mark.parametrize("name", ["dense-fp32", "dense-bf16", "sparse-16x16-75-int8"])
def test_column_closes_and_night_is_dark(name):
    net, columns = network(VARIANTS[name].layer_spec())
    net.train()(net.scaled(features(columns, Clouds())))  # the range of the activations
    result = LearnedRadiation(net.eval())(columns)
    capacity = HEAT_CAPACITY * layer_mass(columns.pressure_half)
    absorbed = -result.toa_lw - result.surface_lw
    assert ((result.heating_lw * capacity).sum(1) - absorbed).abs().max().item() < 1e-3
    night = columns.cos_zenith <= 0
    assert 0 < int(night.sum()) < len(night)
    assert result.heating_sw[night].abs().max().item() == 0.0


def test_saved_network_is_the_same_network(tmp_path):
    net, columns = network(LayerSpec(density=0.5))
    save_emulator(tmp_path / "emulator.safetensors", net, {"seed": 3})
    again, meta = load_emulator(tmp_path)
    assert isinstance(again, RecurrentEmulator)
    assert meta == {"seed": 3}
    x = net.scaled(features(columns, Clouds()))
    assert torch.equal(net.eval()(x), again(x))


@pytest.mark.parametrize(
    ("variant", "most"), [("dense-fp32", 0.30), ("sparse-16x16-75-int8", 0.40)]
)
def test_it_learns_and_beats_the_simple_lines(variant, most):
    """Margins: a fifth over what seed 0 reaches (.25, .34 K/day)."""
    config = NetworkConfig(kind="gru", width=16, n_epoch=6, batch=128, sparse_stretch=1.0)
    train, valid, test = labelled(8192, 0), labelled(512, 1), labelled(1024, 2)
    generator = torch.Generator().manual_seed(0)
    net = make_emulator(8, config, VARIANTS[variant].layer_spec(), generator)
    fit_emulator(net, train, valid, config, seed=0, clouds=Clouds(), label="test")
    got = score_scheme(LearnedRadiation(net), test)
    linear = baselines(train, {"test": test}, Clouds())["linear"]["test"]
    for kind in ("lw", "sw"):
        assert got[f"{kind}_rmse_k_per_day"] < 0.7 * linear[f"{kind}_rmse_k_per_day"]
        assert abs(got[f"{kind}_bias_k_per_day"]) < 0.02
    assert got["lw_rmse_k_per_day"] < most
