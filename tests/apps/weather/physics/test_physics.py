import pytest
import torch

from apps.weather.atmosphere.constants import HEAT_CAPACITY, LATENT_HEAT
from apps.weather.physics import Clouds, ExactRadiation, Physics, soundings
from apps.weather.physics.thermodynamics import height, layer_mass, saturation_humidity

ENTHALPY_W_M2 = 1e-7  # as in test_surface.py


@pytest.fixture(scope="module")
def air():
    return soundings(128, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


def test_moist_energy_of_the_column_closes(air):
    """What the air gains is radiation, sensible and latent heat from the surface."""
    physics, dt = Physics(ExactRadiation(16, 8)), 2400.0
    radiation = physics.radiate(air)
    rates = physics.tendencies(air, dt, radiation)
    mass = layer_mass(air.pressure_half)
    gain = HEAT_CAPACITY * rates.temperature + LATENT_HEAT * rates.humidity
    for wind, rate in ((air.u, rates.u), (air.v, rates.v)):
        gain = gain + rate * (wind + 0.5 * dt * rate)
    gain = (mass * gain).sum(1)
    absorbed = radiation.toa_sw - radiation.toa_lw - radiation.surface_sw - radiation.surface_lw
    given = absorbed + rates.sensible_heat + LATENT_HEAT * rates.evaporation
    assert (gain - given).abs().max().item() < ENTHALPY_W_M2
    water = (mass * rates.humidity).sum(1) - rates.evaporation + rates.precipitation
    assert water.abs().max().item() < 1e-14


def test_tendencies_of_a_short_step_approach_their_limit(air):
    physics = Physics(ExactRadiation(16, 8))
    radiation = physics.radiate(air)
    dry = air._replace(humidity=0.5 * air.humidity)
    first, second = (physics.tendencies(dry, dt, radiation) for dt in (1.0, 2.0))
    moved = first.u.abs().max().item()
    assert (first.u - second.u).abs().max().item() < 1e-2 * moved


def test_saturation_against_published_values():
    """Goff-Gratch at 273.16, 283.15 and 303.15 K: 6.112, 12.28 and 42.45 hPa.

    Constant latent heat is within 3 % of them.
    """
    t = torch.tensor([273.16, 283.15, 303.15], dtype=torch.float64)
    p = torch.full_like(t, 1e5)
    q = saturation_humidity(t, p)
    ratio = 287.04 / 461.5
    vapour = q * p / (ratio + (1 - ratio) * q)
    assert vapour.tolist() == pytest.approx([611.2, 1228.0, 4245.0], rel=0.03)


def test_height_of_an_isothermal_column_is_logarithmic():
    p = torch.tensor([[2e4, 5e4, 9e4]], dtype=torch.float64)
    t = torch.full_like(p, 260.0)
    z = height(t, 0.0 * t, p, torch.tensor([1e5], dtype=torch.float64))
    expected = 287.04 * 260.0 / 9.80616 * torch.log(1e5 / p)
    assert torch.allclose(z, expected, rtol=1e-12)


def test_clouds_grow_from_critical_humidity_to_saturation(air):
    level = {"critical_humidity": 0.8, "critical_humidity_ground": 0.8, "water_share": 0.01}
    clouds = Clouds(**level, full_pressure=1.0)
    saturated = saturation_humidity(air.temperature, air.pressure)
    mass = layer_mass(air.pressure_half)
    full = clouds.water_path(air._replace(humidity=saturated))
    assert torch.allclose(full, 0.01 * saturated * mass)
    half = clouds.water_path(air._replace(humidity=0.9 * saturated))
    assert torch.allclose(half, 0.25 * full)
    assert clouds.water_path(air._replace(humidity=0.8 * saturated)).abs().max().item() < 1e-15
    thin = Clouds(**level, full_pressure=5e4)
    high = air.pressure < 5e4
    ratio = thin.water_path(air._replace(humidity=saturated)) / full
    assert torch.allclose(ratio[high], (air.pressure[high] / 5e4) ** 2)
    assert torch.allclose(ratio[~high], torch.ones_like(ratio[~high]))


def test_cover_begins_later_near_the_ground(air):
    """By hand at p = p_s / 2: critical humidity .7 + .2 exp(1 - 2^4) = .70000006."""
    clouds = Clouds(critical_humidity=0.7, critical_humidity_ground=0.9, full_pressure=1.0)
    at_ground = air._replace(pressure=air.pressure_half[:, -1:].expand_as(air.pressure))
    saturated = saturation_humidity(air.temperature, at_ground.pressure)
    for share, cover in ((0.9, 0.0), (0.95, 0.5), (1.0, 1.0)):
        water = clouds.water_path(at_ground._replace(humidity=share * saturated))
        expected = cover**2 * clouds.water_share * saturated * layer_mass(air.pressure_half)
        assert torch.allclose(water, expected, atol=1e-9)
    half = air._replace(pressure=0.5 * air.pressure_half[:, -1:].expand_as(air.pressure))
    saturated = saturation_humidity(air.temperature, half.pressure)
    water = clouds.water_path(half._replace(humidity=0.85 * saturated))
    expected = 0.25 * clouds.water_share * saturated * layer_mass(air.pressure_half)
    assert torch.allclose(water, expected, rtol=1e-6)
