import numpy as np
import pytest
import torch

from apps.weather.atmosphere import constants as c
from apps.weather.atmosphere.baroclinic import (
    SCALE_HEIGHT,
    balanced_temperature,
    baroclinic_wave,
    jet,
)
from apps.weather.model import Model


def run(warm_spot_k, days):
    """Winds and surface pressure at each day's end at T21L20."""
    model = Model("T21L20", fix_mass=False)
    state = model.begin(baroclinic_wave(model.equations, warm_spot_k=warm_spot_k))
    out = [model.equations.to_grid(state.levels.current)]
    for _ in range(days):
        state = model.run(state, c.DAY_S)
        out.append(model.equations.to_grid(state.levels.current))
    return model, out


def test_the_jet_is_that_of_the_paper():
    """Below 50 m/s: the profile's two factors peak at 15 km and at 45 degrees; none at the ground.

    At 15 km: (1 - tanh(-1.4)^3) / 2 times sin(pi / 2).
    """
    height = np.array([0.0, 15e3])
    wind, slope = jet(np.radians([-45.0, 45.0, 90.0]), height)
    assert wind[1, 1] == pytest.approx(50.0 * 0.5 * (1.0 + np.tanh(1.4) ** 3))
    assert np.abs(wind[[0, 2]]).max() < 1e-9
    assert np.abs(wind[:, 0]).max() < 1e-9
    step = 1.0
    above, below = (jet(np.radians([45.0]), height + d)[0] for d in (step, -step))
    assert slope[1] == pytest.approx((above - below)[0] / (2 * step), rel=1e-6)


def test_wind_and_temperature_are_in_gradient_wind_balance():
    """Integrate the hydrostatic equation upward; its slope in latitude must carry the wind.

    u^2 tan(lat) / a + f u = -(1/a) d(geopotential)/d(lat), by trapezoid and centred differences:
    steps of 50 m and 0.1 degrees leave 1e-5 of 1e-3 m/s2.
    """
    height = np.arange(0.0, 20e3 + 1, 50.0)
    latitude = np.radians(np.arange(30.0, 60.0, 0.1))
    temperature = balanced_temperature(latitude, height)
    layer = 0.5 * (temperature[:, 1:] + temperature[:, :-1]) * 50.0
    head = c.GAS_CONSTANT / SCALE_HEIGHT * np.cumsum(layer, axis=1)
    force = -np.gradient(head, latitude, axis=0) / c.RADIUS
    wind = jet(latitude, height)[0][:, 1:]
    f = 2.0 * c.ROTATION * np.sin(latitude)[:, None]
    carried = wind**2 * np.tan(latitude)[:, None] / c.RADIUS + f * wind
    assert np.abs(carried).max() > 4e-3
    assert np.abs(force - carried)[2:-2].max() < 1e-5


def test_without_the_warm_spot_the_jet_stays():
    """What moves is the truncation of the profile by 20 levels: 4 per cent of the jet, 0.2 hPa."""
    model, days = run(0.0, 2)
    assert float((days[2].u - days[0].u).abs().max()) < 2.0
    assert float((days[2].surface_pressure - c.MEAN_PRESSURE).abs().max()) < 20.0
    assert float(days[2].v.abs().max()) < 2.0
    south = days[2].u[:, :12]
    assert float(south.abs().max()) < 1.0
    mean = model.grid.mean(days[0].temperature)
    # sigma 0.525 lies at 4729 m of the standard atmosphere: 288.15 - 6.5e-3 z
    z = -SCALE_HEIGHT * np.log(model.levels.full[10])
    assert float(mean[10]) == pytest.approx(288.15 - 6.5e-3 * z + 0.02, abs=0.05)


def test_with_it_a_wave_grows_at_the_rate_of_baroclinic_instability():
    """Eddy winds double about daily (LC1, Thorncroft et al. 1993) at zonal number five to eight."""
    model, days = run(1.0, 6)
    depth = model.equations.thickness.double()

    def energy(grid):
        eddy = [wind - wind.mean(0, keepdim=True) for wind in (grid.u, grid.v)]
        return float(model.grid.mean(eddy[0] ** 2 + eddy[1] ** 2) @ depth)

    rate = 0.5 * np.log(energy(days[6]) / energy(days[4])) / 2.0
    assert 0.5 < rate < 0.9
    north = model.grid.n_lat * 3 // 4
    wave = torch.fft.rfft(days[6].v[:, north, -1]).abs()
    assert 5 <= int(wave.argmax()) <= 8
    assert float(days[6].surface_pressure.min()) < 0.99 * c.MEAN_PRESSURE
