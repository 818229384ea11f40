import pytest
import torch

from apps.weather.atmosphere import constants as c
from apps.weather.atmosphere.cases import steady_zonal_flow
from apps.weather.atmosphere.dynamics import PrimitiveEquations
from apps.weather.atmosphere.grid import GaussianGrid
from apps.weather.atmosphere.levels import VERTICAL_SCHEMES, SigmaLevels
from apps.weather.atmosphere.spectral import HarmonicTransform
from apps.weather.atmosphere.state import State

N_SMOOTH = 4  # degree of the random fields: products of four stay below the truncation of 21
# Sums of ~1e4 float64 terms that cancel: 1e4 * 1e-16, with room for the exponential of ln p_s
CANCELS = 1e-11


def equations_of(scheme="simmons-burridge", half=(0.0, 0.1, 0.3, 0.6, 0.85, 1.0)):
    transform = HarmonicTransform(GaussianGrid(21), dtype=torch.float64)
    return PrimitiveEquations(transform, SigmaLevels.of(half, scheme))


def smooth_state(equations, seed=0):
    """Random air whose fields have total wavenumber at most `N_SMOOTH`."""
    transform, n = equations.transform, equations.levels.n_level
    generator = torch.Generator().manual_seed(seed)

    def field(scale, n_field=n):
        out = transform.zeros(n_field)
        drawn = torch.randn(
            2, N_SMOOTH + 1, N_SMOOTH + 1, n_field, generator=generator, dtype=torch.float64
        )
        out[:, : N_SMOOTH + 1, : N_SMOOTH + 1] = scale * drawn
        out[1, 0] = 0.0
        return out * transform.mask

    vorticity, divergence = field(1e-5), field(3e-6)
    vorticity[:, 0, 0] = divergence[:, 0, 0] = 0.0
    temperature = field(5.0)
    temperature[0, 0, 0] = torch.linspace(210.0, 290.0, n, dtype=torch.float64)
    return State(vorticity, divergence, temperature, torch.zeros_like(temperature), field(0.01, 1))


def budget(equations, state):
    """Mass-weighted integrands' rates on the grid, from the state and its tendency."""
    transform, n = equations.transform, equations.levels.n_level
    rate = equations.tendency(state)
    grid = equations.to_grid(state)
    pressure = grid.surface_pressure.unsqueeze(-1)
    # the winds' rates are in the curl and divergence of the tendency
    u_rate, v_rate = transform.wind(rate.vorticity, rate.divergence)
    t_rate = transform.synthesise(rate.temperature)
    p_rate = transform.synthesise(rate.log_pressure) * pressure
    thickness = equations.thickness
    assert n == len(thickness)
    return grid, pressure, u_rate, v_rate, t_rate, p_rate, thickness


def moistened(state):
    """The state with humidity of up to 1 %, varying as temperature does."""
    humidity = 3e-4 * state.temperature
    humidity[0, 0, 0] = 5e-3
    return state._replace(humidity=humidity)


@pytest.mark.parametrize("moist", [False, True])
@pytest.mark.parametrize("scheme", VERTICAL_SCHEMES)
def test_total_energy_is_conserved_by_the_tendency(scheme, moist):
    """d/dt of p_s (v^2/2 + cp T) vanishes in the mean over a flat planet."""
    equations = equations_of(scheme)
    state = smooth_state(equations)
    state = moistened(state) if moist else state
    grid, p, u_rate, v_rate, t_rate, p_rate, thickness = budget(equations, state)
    work = p * (grid.u * u_rate + grid.v * v_rate)
    heat = p * c.HEAT_CAPACITY * t_rate
    carried = p_rate * (0.5 * (grid.u**2 + grid.v**2) + c.HEAT_CAPACITY * grid.temperature)
    mean = equations.transform.grid.mean
    total = mean(work + heat + carried) @ thickness
    scale = mean(work.abs() + heat.abs() + carried.abs()) @ thickness
    assert abs(float(total / scale)) < CANCELS


def test_mass_is_conserved_by_the_tendency():
    equations = equations_of()
    *_, p_rate, _ = budget(equations, smooth_state(equations))
    mean = equations.transform.grid.mean
    assert abs(float(mean(p_rate) / mean(p_rate.abs()))) < CANCELS


def test_angular_momentum_is_conserved_by_the_tendency():
    """Exactly so below the top layer, whose published depth ln 2 lets its T' push the planet."""
    equations = equations_of()
    state = smooth_state(equations)
    state.temperature[:, :, 1:, 0] = 0.0
    state.temperature[:, 1:, :, 0] = 0.0
    grid, p, u_rate, _, _, p_rate, thickness = budget(equations, state)
    cos = equations.transform.cos_latitude
    turning = c.ROTATION * c.RADIUS * cos
    rate = cos * (p * u_rate + p_rate * (grid.u + turning))
    mean = equations.transform.grid.mean
    assert abs(float(mean(rate) @ thickness / (mean(rate.abs()) @ thickness))) < CANCELS


def test_humidity_mass_is_conserved_by_the_tendency():
    equations = equations_of()
    state = moistened(smooth_state(equations))
    rate = equations.tendency(state)
    grid = equations.to_grid(state)
    pressure = grid.surface_pressure.unsqueeze(-1)
    transform = equations.transform
    change = pressure * (
        transform.synthesise(rate.humidity)
        + transform.synthesise(rate.log_pressure) * grid.humidity
    )
    mean = transform.grid.mean
    assert abs(float(mean(change) @ equations.thickness)) < CANCELS * float(
        mean(change.abs()) @ equations.thickness
    )


def test_humidity_makes_air_lighter():
    """Moist air at T has the pressure gradient of dry air at Tv: same divergence tendency."""
    equations = equations_of()
    state = smooth_state(equations)
    rest = state._replace(
        vorticity=torch.zeros_like(state.vorticity), divergence=torch.zeros_like(state.divergence)
    )
    moist = rest._replace(humidity=equations.transform.zeros(5))
    moist.humidity[0, 0, 0] = 0.01
    warm = rest._replace(temperature=rest.temperature * (1.0 + c.VIRTUAL * 0.01))
    difference = equations.tendency(moist).divergence - equations.tendency(warm).divergence
    assert difference.abs().max() < 1e-12 * equations.tendency(warm).divergence.abs().max()


@pytest.mark.parametrize("scheme", VERTICAL_SCHEMES)
def test_balanced_zonal_flow_does_not_change(scheme):
    equations = equations_of(scheme)
    state = steady_zonal_flow(equations)
    rate = equations.tendency(state)
    day = c.DAY_S
    assert rate.vorticity.abs().max() * day < 1e-12 * state.vorticity.abs().max()
    assert rate.divergence.abs().max() * day < 1e-9 * state.vorticity.abs().max()
    assert rate.temperature.abs().max() * day < 1e-9
    assert rate.log_pressure.abs().max() * day < 1e-12


def test_tendency_turns_with_the_planet():
    """A state shifted by one grid length in longitude has the shifted tendency."""
    equations = equations_of()
    state = smooth_state(equations)
    transform = equations.transform

    def turn(coefficient):
        return transform.analyse(transform.synthesise(coefficient).roll(1, dims=0))

    direct = equations.tendency(state.map(turn))
    turned = equations.tendency(state).map(turn)
    for one, other in zip(direct, turned, strict=True):
        assert (one - other).abs().max() <= CANCELS * other.abs().max()


def test_flow_is_driven_down_the_mountain():
    """Orography pushes as its geopotential: divergence tendency -laplacian(gz) from rest."""
    transform = HarmonicTransform(GaussianGrid(21), dtype=torch.float64)
    latitude = transform.grid.latitude.expand(64, -1)
    hill = 1000.0 * latitude.sin() ** 2
    levels = SigmaLevels.equidistant(3)
    flat = PrimitiveEquations(transform, levels)
    hilly = PrimitiveEquations(transform, levels, surface_geopotential=hill)
    state = steady_zonal_flow(flat)
    push = hilly.tendency(state).divergence - flat.tendency(state).divergence
    expected = -transform.laplacian(transform.analyse(hill.unsqueeze(-1))).expand_as(push)
    # the difference of two tendencies of about 1e-9 s-2
    assert (push - expected).abs().max() < 1e-12 * expected.abs().max() + 1e-21
