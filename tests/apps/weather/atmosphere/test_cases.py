import math

import numpy as np
import pytest
import torch

from apps.weather.atmosphere import constants as c
from apps.weather.atmosphere.cases import (
    isothermal_rest,
    mountain,
    resting_over,
    rossby_haurwitz,
    rossby_haurwitz_speed,
)
from apps.weather.atmosphere.dynamics import PrimitiveEquations
from apps.weather.atmosphere.grid import GaussianGrid
from apps.weather.atmosphere.levels import SigmaLevels
from apps.weather.atmosphere.spectral import HarmonicTransform
from apps.weather.atmosphere.stepping import SemiImplicitLeapfrog, start
from apps.weather.model import Model


@pytest.fixture(scope="module")
def equations():
    transform = HarmonicTransform(GaussianGrid(21), dtype=torch.float64)
    return PrimitiveEquations(transform, SigmaLevels.equidistant(3))


def eastward_shift(before, after, level=0):
    """Longitude in radian by which zonal wavenumber 4 of total wavenumber 5 has moved east."""
    angle = [
        math.atan2(float(x[1, 4, 5, level]), float(x[0, 4, 5, level])) for x in (before, after)
    ]
    return ((angle[0] - angle[1]) / 4.0) % (math.pi / 2.0)


def test_barotropic_rossby_haurwitz_wave_moves_at_its_closed_form_speed(equations):
    """On the non-divergent equation, advanced with Runge-Kutta steps, the speed is exact."""
    transform = equations.transform
    still = transform.zeros(1)
    vorticity = rossby_haurwitz(equations).vorticity[..., :1]

    def rate(x):
        u, v = transform.wind(x, still)
        absolute = transform.synthesise(x) + equations.coriolis
        flux = torch.cat([absolute * u, absolute * v], dim=-1) * transform.inverse_cos_latitude
        east, north = transform.analyse_full(flux).chunk(2, dim=-1)
        return -transform.divergence_of(east, north)

    x, dt = vorticity, 1800.0
    for _ in range(48):
        a = rate(x)
        b = rate(x + 0.5 * dt * a)
        d = rate(x + 0.5 * dt * b)
        e = rate(x + dt * d)
        x = x + dt / 6.0 * (a + 2.0 * b + 2.0 * d + e)
    expected = rossby_haurwitz_speed() * c.DAY_S
    # fourth order: (4 * speed * dt)^4 / 120 per unit phase is below 1e-7
    assert eastward_shift(vorticity, x) == pytest.approx(expected, rel=1e-6)
    assert float(x.norm() / vorticity.norm()) == pytest.approx(1.0, abs=1e-7)


def test_rossby_haurwitz_wave_of_the_full_equations_keeps_shape_and_speed(equations):
    """A divergent atmosphere of 8.4 km scale height slows wave 4 by 3 to 12 per cent."""
    stepper = SemiImplicitLeapfrog(equations, 1800.0)
    state = rossby_haurwitz(equations)
    levels, n_day = start(state), 3
    for _ in range(48 * n_day):
        levels = stepper.step(levels, equations.explicit(levels.current))
    shift = eastward_shift(state.vorticity, levels.current.vorticity, 1)
    ratio = shift / (rossby_haurwitz_speed() * c.DAY_S * n_day)
    assert 0.88 < ratio < 0.97
    wave = [x.vorticity[:, 4, 5, 1].norm() for x in (levels.current, state)]
    assert float(wave[0] / wave[1]) == pytest.approx(1.0, abs=0.05)


def test_rossby_haurwitz_wave_starts_in_balance(equations):
    """The balanced head leaves a divergence tendency far below that of an unbalanced one."""
    state = rossby_haurwitz(equations)
    flat = state._replace(log_pressure=torch.zeros_like(state.log_pressure))
    balanced = equations.tendency(state).divergence.abs().max()
    assert float(balanced) < 1e-6 * float(equations.tendency(flat).divergence.abs().max())


def test_air_at_rest_has_the_mean_pressure_and_modest_noise(equations):
    generator = torch.Generator().manual_seed(3)
    state = isothermal_rest(equations, temperature=260.0, noise=5e-7, generator=generator)
    grid = equations.to_grid(state)
    assert (grid.surface_pressure - c.MEAN_PRESSURE).abs().max() < 1e-9
    assert (grid.temperature - 260.0).abs().max() < 1e-9
    assert 0.1 < float(grid.u.abs().max()) < 20.0


def test_a_cone_has_its_height_and_radius():
    grid = GaussianGrid(42)
    cone = mountain(grid, 2000.0) / 9.80616
    assert float(cone.max()) == pytest.approx(2000.0, rel=0.1)
    lon = np.degrees(grid.longitude.numpy())[:, None]
    lat = np.degrees(grid.latitude.numpy())[None, :]
    assert float(cone[torch.from_numpy((abs(lat - 30) > 20) & (lon > -1))].max()) == 0.0
    # half the integral of (1 - s / r) sin(s) from 0 to r
    r = np.radians(20.0)
    exact = 0.5 * (1.0 - np.sin(r) / r)
    assert float(grid.mean(cone)) == pytest.approx(2000.0 * exact, rel=0.02)


def test_air_at_rest_over_a_mountain_stays_at_rest():
    model = Model(
        "T21L8", dtype=torch.float64, surface_geopotential=mountain(GaussianGrid(21), 2e3)
    )
    state = model.begin(resting_over(model.equations, 270.0))
    pressure = model.equations.to_grid(state.levels.current).surface_pressure
    assert float(pressure.min()) < 8.5e4 < 1e5 < float(pressure.max())
    after = model.equations.to_grid(model.run(state, c.DAY_S).levels.current)
    # 40 steps of a force of R T |grad ln p| ~ 1e-2 m/s2 to 1e-15, for 2160 s each
    assert float(after.u.abs().max()) < 1e-8
    assert float(after.v.abs().max()) < 1e-8
    assert float((after.surface_pressure - pressure).abs().max()) < 1e-5
    flat = Model("T21L8", dtype=torch.float64)
    moved = flat.equations.to_grid(
        flat.run(flat.begin(state.levels.current), c.DAY_S).levels.current
    )
    assert float(moved.u.abs().max()) > 1.0
