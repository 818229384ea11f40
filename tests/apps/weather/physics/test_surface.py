import math

import pytest
import torch

from apps.weather.atmosphere.constants import HEAT_CAPACITY
from apps.weather.physics import Surface, aquaplanet_sst, soundings
from apps.weather.physics.surface import richardson, solve_exchange
from apps.weather.physics.thermodynamics import height, layer_mass

# Sums over 8 layers of terms of 1e9 J/m2 to 2**-53 each, divided by a step of 1e3 s.
ENERGY_W_M2 = 1e-7


@pytest.fixture(scope="module")
def air():
    return soundings(32, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def test_sst_shapes():
    degree = torch.tensor([0.0, 30.0, -30.0, 60.0, 75.0], dtype=torch.float64)
    latitude = degree * math.pi / 180.0
    control = aquaplanet_sst(latitude, "control") - 273.15
    qobs = aquaplanet_sst(latitude, "qobs") - 273.15
    # sin^2(45 degrees) = 1/2: CONTROL 27/2; QOBS 27 (1 - (1/2 + 1/4)/2)
    assert control.tolist() == pytest.approx([27.0, 13.5, 13.5, 0.0, 0.0], abs=1e-9)
    assert qobs.tolist() == pytest.approx([27.0, 16.875, 16.875, 0.0, 0.0], abs=1e-9)
    warm = aquaplanet_sst(latitude, "qobs", warming=4.0)
    assert (warm - aquaplanet_sst(latitude)).tolist() == pytest.approx([4.0] * 5)


def test_columns_gain_what_the_surface_gives(air):
    dt = 3600.0
    out = Surface().step(air, dt)
    mass = layer_mass(air.pressure_half)
    heat = HEAT_CAPACITY * (mass * (out.temperature - air.temperature)).sum(1) / dt
    wind = 0.5 * (mass * (out.u**2 + out.v**2 - air.u**2 - air.v**2)).sum(1) / dt
    assert wind.max() < 0
    vapour = (mass * (out.humidity - air.humidity)).sum(1) / dt
    assert (heat + wind - out.sensible_heat).abs().max().item() < ENERGY_W_M2
    assert (vapour - out.evaporation).abs().max().item() < 1e-14


def test_exchange_equals_a_dense_solve(air):
    generator = torch.Generator().manual_seed(4)

    def rand(*shape):
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    n, dt = 5, 700.0
    mass, mixing, bulk = 100 + rand(1, n), rand(1, n - 1), rand(1)
    fields, surface = rand(2, 1, n), rand(2, 1)
    matrix = torch.diag(mass[0])
    for k in range(n - 1):
        m = dt * mixing[0, k]
        matrix[k, k] += m
        matrix[k + 1, k + 1] += m
        matrix[k, k + 1] -= m
        matrix[k + 1, k] -= m
    matrix[-1, -1] += dt * bulk[0]
    right = mass[0] * fields[:, 0]
    right[:, -1] += dt * bulk[0] * surface[:, 0]
    expected = torch.linalg.solve(matrix, right.T).T
    got = solve_exchange(fields, surface, mass, mixing, bulk, dt)[:, 0]
    assert torch.allclose(got, expected, rtol=1e-12)


def test_long_steps_relax_the_lowest_wind_and_never_overshoot(air):
    short, long = Surface().step(air, 60.0), Surface().step(air, 1e9)
    assert bool((long.u[:, -1].abs() < short.u[:, -1].abs()).all())
    # well mixed up to the top of the boundary layer, at rest there as the surface is
    assert long.u[:, -1].abs().max().item() < 1e-2
    untouched = air.pressure_half[0, 1:] < 0.7 * air.pressure_half[0, -1]
    assert torch.allclose(long.u[:, untouched], air.u[:, untouched], rtol=1e-14)


def test_bulk_fluxes_in_the_limit_of_a_short_step(air):
    """By hand: rho C |V| (surface - air), with the lowest layer's wind and gusts of 5 m/s."""
    out = Surface().step(air, 1e-3)
    virtual = air.temperature[:, -1] * (1 + 0.6078 * air.humidity[:, -1])
    density = air.pressure_half[:, -1] / (287.04 * virtual)
    speed = torch.sqrt(air.u[:, -1] ** 2 + air.v[:, -1] ** 2 + 25.0)
    vapour = 611.2 * torch.exp(2.501e6 / 461.5 * (1 / 273.16 - 1 / air.sst))
    ratio = 287.04 / 461.5
    saturated = ratio * vapour / (air.pressure_half[:, -1] - (1 - ratio) * vapour)
    expected = density * 1.2e-3 * speed * (saturated - air.humidity[:, -1])
    assert torch.allclose(out.evaporation, expected, rtol=1e-4)


def test_mixing_falls_with_the_richardson_number():
    """By hand: (1 - Ri)^2 of what is above the background; all of it where air is unstable."""
    number = torch.tensor([-3.0, 0.0, 0.5, 1.0, 40.0], dtype=torch.float64)
    share = Surface(background=0.1).stability(number)
    assert share.tolist() == pytest.approx([1.0, 1.0, 0.1 + 0.9 * 0.25, 0.1, 0.1])
    blind = Surface(critical_richardson=math.inf).stability(number)
    assert blind.tolist() == [1.0] * 5


def test_richardson_number_of_a_layer_by_hand(air):
    """Dry air at two levels: g dz (cp dT + g dz) / (cp T) over the shear squared."""
    pressure = torch.tensor([[7e4, 9e4]], dtype=torch.float64)
    temperature = torch.tensor([[280.0, 290.0]], dtype=torch.float64)
    u = torch.tensor([[14.0, 10.0]], dtype=torch.float64)
    v = torch.tensor([[2.0, 5.0]], dtype=torch.float64)
    calm = torch.zeros_like(u)
    columns = air.take(torch.tensor([0]))
    columns = columns._replace(temperature=temperature, humidity=calm, u=u, v=v, pressure=pressure)
    z = height(temperature, calm, pressure, torch.tensor([1e5], dtype=torch.float64))
    depth = 287.04 * 285.0 / 9.80616 * math.log(9 / 7)
    assert float(z[0, 0] - z[0, 1]) == pytest.approx(depth)
    buoyancy = 9.80616 * depth * (-10.0 + 9.80616 / 1004.64 * depth) / 285.0
    assert float(richardson(columns, temperature, z)) == pytest.approx(buoyancy / 25.0, rel=1e-4)
    still = columns._replace(u=calm, v=calm)
    assert float(richardson(still, temperature, z)) == pytest.approx(buoyancy, rel=1e-4)


def test_stable_air_keeps_its_vapour_and_energy_still_closes(air):
    """An inversion over a cold sea: less than a tenth of the vapour that blind mixing moves."""
    n = air.temperature.shape[1]
    warm = air.temperature.clone()
    warm[:, -1] = warm[:, -2] - 5.0
    stable = air._replace(temperature=warm, sst=warm[:, -1])
    dt = 1800.0
    moved = []
    for surface in (Surface(background=0.0), Surface(critical_richardson=math.inf)):
        out = surface.step(stable, dt)
        mass = layer_mass(air.pressure_half)
        heat = HEAT_CAPACITY * (mass * (out.temperature - warm)).sum(1) / dt
        wind = 0.5 * (mass * (out.u**2 + out.v**2 - air.u**2 - air.v**2)).sum(1) / dt
        assert (heat + wind - out.sensible_heat).abs().max().item() < ENERGY_W_M2
        moved.append((out.humidity - stable.humidity)[:, n - 2].abs().mean().item())
    assert moved[0] < 0.1 * moved[1]
