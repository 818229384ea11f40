import math

import pytest
import torch

from apps.weather.atmosphere.constants import HEAT_CAPACITY, KAPPA, LATENT_HEAT
from apps.weather.physics import Convection, soundings
from apps.weather.physics.convection import condense, rising_parcel
from apps.weather.physics.thermodynamics import layer_mass, saturation_humidity

ENTHALPY_W_M2 = 1e-7  # as in test_surface.py
WATER_KG_M2_S = 1e-14


@pytest.fixture(scope="module")
def air():
    found = soundings(512, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    # a moist, warm lowest layer makes convection common
    humidity = found.humidity.clone()
    humidity[:, -1] = 0.85 * saturation_humidity(found.temperature, found.pressure)[:, -1]
    return found._replace(humidity=humidity)


def run(air, dt=1800.0, **settings):
    return Convection(**settings).step(
        air.temperature, air.humidity, air.pressure, air.pressure_half, dt
    )


def budget(air, out, dt):
    mass = layer_mass(air.pressure_half)
    heat = HEAT_CAPACITY * (mass * (out.temperature - air.temperature)).sum(1) / dt
    vapour = (mass * (out.humidity - air.humidity)).sum(1) / dt
    return heat, vapour


def test_convection_keeps_enthalpy_and_water(air):
    out = run(air)
    heat, vapour = budget(air, out, 1800.0)
    assert (heat + LATENT_HEAT * vapour).abs().max().item() < ENTHALPY_W_M2
    assert (vapour + out.precipitation).abs().max().item() < WATER_KG_M2_S
    assert out.precipitation.min().item() > -WATER_KG_M2_S


def test_deep_and_shallow_convection_both_occur_and_shallow_does_not_rain(air):
    out = run(air)
    moved = ((out.temperature - air.temperature).abs() > 0).any(1)
    rains = out.precipitation > 1e-9
    assert 0 < rains.sum() < moved.sum() < len(moved)
    dry = moved & ~rains
    heat, _ = budget(air, out, 1800.0)
    assert heat[dry].abs().max().item() < ENTHALPY_W_M2


def test_stable_air_is_left_alone():
    air = soundings(16, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    stable = torch.full_like(air.temperature, 280.0)
    air = air._replace(temperature=stable, humidity=0.5 * saturation_humidity(stable, air.pressure))
    out = run(air)
    assert torch.equal(out.temperature, stable)
    assert torch.equal(out.humidity, air.humidity)
    assert out.precipitation.abs().max().item() == 0.0


def test_relaxation_is_exponential_in_time(air):
    """Half of the adjustment after tau ln 2, whatever the step (reference held fixed)."""
    tau = 7200.0
    half, full = run(air, tau * math.log(2.0)), run(air, 50.0 * tau)
    ratio = 0.5 * (full.temperature - air.temperature)
    assert torch.allclose(half.temperature - air.temperature, ratio, atol=1e-10)


def test_parcel_follows_dry_and_then_moist_adiabat():
    """Dry: T p^-kappa is kept. Moist: dT/dp equals the textbook pseudo-adiabatic slope."""
    n = 400
    p = torch.linspace(2e4, 1e5, n, dtype=torch.float64)[None]
    around = torch.full_like(p, 250.0)
    around[:, -1] = 300.0
    humidity = torch.zeros_like(p)
    dry, _, _ = rising_parcel(around, humidity, p)
    assert torch.allclose(dry, 300.0 * (p / 1e5) ** KAPPA, rtol=1e-12)

    humidity[:, -1] = saturation_humidity(around[:, -1], p[:, -1])
    moist, buoyant, rises = rising_parcel(around, humidity, p)
    t, q = moist[0], saturation_humidity(moist, p)[0]
    latent, vapour = 2.501e6, 461.5
    mixing = q / (1.0 - q)
    # American Meteorological Society glossary, pseudoadiabatic lapse rate, without the water load
    slope = (287.04 * t + latent * mixing) / (
        HEAT_CAPACITY + latent**2 * mixing * (287.04 / vapour) / (287.04 * t**2)
    )
    measured = (t[2:] - t[:-2]) / (p[0, 2:] - p[0, :-2])
    # first order in humidity: 2 % of vapour makes some percent of slope
    assert torch.allclose(measured, (slope / p[0])[1:-1], rtol=0.04)
    assert bool(rises.all())
    lighter = t * (1.0 + 0.6078 * q) > around[0]
    assert torch.equal(buoyant[0, :-1], lighter[:-1])
    assert 0 < int((~buoyant).sum()) < n


def test_condensation_ends_at_saturation_and_keeps_enthalpy(air):
    wet = air._replace(humidity=1.3 * saturation_humidity(air.temperature, air.pressure))
    dt = 900.0
    out = condense(wet.temperature, wet.humidity, wet.pressure, wet.pressure_half, dt)
    heat, vapour = budget(wet, out, dt)
    assert (heat + LATENT_HEAT * vapour).abs().max().item() < ENTHALPY_W_M2
    assert (vapour + out.precipitation).abs().max().item() < WATER_KG_M2_S
    relative = out.humidity / saturation_humidity(out.temperature, wet.pressure)
    # one Newton step from 1.3: the curvature of saturation leaves some percent
    assert (relative - 1.0).abs().max().item() < 0.05
    again = condense(out.temperature, 0.9 * out.humidity, wet.pressure, wet.pressure_half, dt)
    assert again.precipitation.abs().max().item() == 0.0
