import math

import numpy as np
import pytest
import torch

from apps.weather.atmosphere.constants import GRAVITY
from apps.weather.physics import Clouds, ExactRadiation, soundings
from apps.weather.physics.radiation.longwave import (
    DIFFUSIVITY,
    Longwave,
    absorption_coefficients,
)
from apps.weather.physics.thermodynamics import layer_mass

STEFAN_BOLTZMANN = 5.670374e-8
# 2510 per cm and beyond hold .2 % of a 300 K spectrum and the rest is quadrature.
PLANCK_RELATIVE = 0.01
# Sum of n terms of rounding 2**-53 over fluxes of 400 W/m2, with room for 128 points x 8 layers.
ROUNDING_W_M2 = 1e-9
DAY_S = 86400.0


@pytest.fixture(scope="module")
def air():
    return soundings(
        64, generator=torch.Generator().manual_seed(1), dtype=torch.float64, co2_ppmv=400.0
    )


@pytest.fixture(scope="module")
def clear(air):
    return torch.zeros_like(air.temperature)


@pytest.mark.parametrize("n_point", [41, 128])
@pytest.mark.parametrize("kelvin", [220.0, 260.0, 300.0])
def test_planck_sums_to_stefan_boltzmann(n_point, kelvin):
    total = Longwave(n_point).planck(torch.tensor(kelvin, dtype=torch.float64)).sum()
    assert total.item() == pytest.approx(STEFAN_BOLTZMANN * kelvin**4, rel=PLANCK_RELATIVE)


def test_isothermal_column_has_no_net_flux_but_its_own_emission_to_space(air, clear):
    """Air and sea at one temperature: up and down differ by the missing radiation from space."""
    t = torch.full_like(air.temperature, 270.0)
    same = air._replace(temperature=t, sst=t[:, 0])
    scheme = Longwave(41)
    net = scheme.net_up(same, clear)
    # Net = B times the transmission to space, which falls downward; with a black cloud on top
    # nothing of space is seen below, and net is nought.
    black = clear.clone()
    black[:, 0] = 10.0  # kg/m2, optical depth 1500
    below = scheme.net_up(same, black)[:, 1:]
    assert below.abs().max().item() < ROUNDING_W_M2
    # At the top the column shines as a black body.
    total = scheme.planck(same.sst).sum(-1)
    assert (net[:, 0] - total).abs().max().item() < ROUNDING_W_M2
    assert bool((net[:, 1:] <= net[:, :-1] + ROUNDING_W_M2).all())


def test_one_thin_layer_follows_beer(air):
    """A grey cloud over the sea, by hand: OLR = B_sea e^-tau + B_layer (1 - e^-tau)."""
    n = 4
    few = air.take(slice(0, n))
    few = few._replace(
        temperature=torch.full((n, 8), 240.0, dtype=torch.float64),
        humidity=torch.zeros(n, 8, dtype=torch.float64),
        co2_ppmv=torch.zeros(n, dtype=torch.float64),
        sst=torch.full((n,), 290.0, dtype=torch.float64),
    )
    cloud = torch.zeros(n, 8, dtype=torch.float64)
    cloud[:, 3] = torch.tensor([0.0, 1e-4, 5e-3, 0.1])
    scheme = Longwave(64)
    passed = torch.exp(-DIFFUSIVITY * 100.0 * cloud[:, 3])
    sea, air_ = (scheme.planck(torch.tensor(k, dtype=torch.float64)).sum() for k in (290.0, 240.0))
    expected = sea * passed + air_ * (1.0 - passed)
    olr = scheme.net_up(few, cloud)[:, 0]
    # eight layers of the smallest optical depth, 1e-8 each
    assert torch.allclose(olr, expected, rtol=1e-6)


def test_agrees_with_a_slow_sum_over_points_layers_and_columns(air):
    """An independent numpy loop, formulas from the paper's definitions, float64."""
    scheme = Longwave(16)
    water = Clouds().water_path(air)
    got = scheme.net_up(air, water)
    nu = np.linspace(10.0, 2510.0, 16)
    kappa = absorption_coefficients(nu)
    h, c, k_b = 6.62607015e-34, 2.99792458e8, 1.380649e-23

    def planck(nu_cm, kelvin):
        m = 100.0 * nu_cm
        return 2e2 * math.pi * h * c**2 * m**3 / math.expm1(h * c * m / (k_b * kelvin))

    for i in range(0, 64, 16):
        total = np.zeros(9)
        t = air.temperature[i].numpy()
        p, half = air.pressure[i].numpy(), air.pressure_half[i].numpy()
        q = air.humidity[i].numpy()
        ground = t[7] + (t[7] - t[6]) * math.log(half[8] / p[7]) / math.log(p[7] / p[6])
        for j, nu_cm in enumerate(nu):
            width = 2500.0 / 15 * (0.5 if j in (0, 15) else 1.0)
            tau = np.zeros(8)
            for k in range(8):
                mass = (half[k + 1] - half[k]) / GRAVITY
                vapour = q[k] * p[k] / (0.62197 + 0.37803 * q[k])
                co2 = float(air.co2_ppmv[i]) * 1e-6 * 44 / 29
                tau[k] = 1.5 * (
                    kappa[0, j] * q[k] * mass * p[k] / 5e4
                    + kappa[1, j] * q[k] * mass * vapour / 224.92 * math.exp(0.02 * (260 - t[k]))
                    + kappa[2, j] * co2 * mass * p[k] / 5e4
                    + kappa[3, j] * float(water[i, k])
                )
            b = [planck(nu_cm, kelvin) for kelvin in t]
            face = [b[0], *(0.5 * (b[k] + b[k + 1]) for k in range(7)), planck(nu_cm, ground)]
            down, up = np.zeros(9), np.zeros(9)

            def emitted(own, at_face, depth):
                # the source between centre and face, linear in optical depth (Clough 1992)
                gone = math.exp(-depth)
                return own * (1 - gone) + (at_face - own) * (1 + gone - 2 * (1 - gone) / depth)

            for k in range(8):
                down[k + 1] = down[k] * math.exp(-tau[k]) + emitted(b[k], face[k + 1], tau[k])
            up[8] = planck(nu_cm, float(air.sst[i]))
            for k in reversed(range(8)):
                up[k] = up[k + 1] * math.exp(-tau[k]) + emitted(b[k], face[k], tau[k])
            total += width * (up - down)
        # vapour pressure's constants are given to five digits above
        np.testing.assert_allclose(got[i].numpy(), total, rtol=2e-5)


def test_doubled_co2_forces_and_is_logarithmic(air):
    scheme = ExactRadiation(128, 8)
    olr = [
        scheme(air._replace(co2_ppmv=torch.full_like(air.sst, ppmv))).toa_lw.mean().item()
        for ppmv in (200.0, 400.0, 800.0)
    ]
    first, second = olr[0] - olr[1], olr[1] - olr[2]
    assert 2.0 < first < 6.0
    # Etminan et al. 2016 find 5 % growth over this range; the model is logarithmic by design.
    assert second == pytest.approx(first, rel=0.05)


def test_more_points_converge():
    air = soundings(128, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    water = Clouds().water_path(air)
    mass = layer_mass(air.pressure_half)

    def heating(n_point):
        net = Longwave(n_point).net_up(air, water)
        return (net[:, 1:] - net[:, :-1]) / (1004.64 * mass) * DAY_S

    truth = heating(1024)
    rmse = {n: (heating(n) - truth).square().mean().sqrt().item() for n in (16, 41, 64, 128)}
    assert rmse[16] > rmse[41] > rmse[64] > rmse[128]
    # K/day; the anchor's own ladder is .17, .045, .03, .0009 on 20 levels
    assert rmse[41] < 0.1
    assert rmse[128] < 2e-3


def test_single_precision_follows_double(air):
    water = Clouds().water_path(air)
    net = Longwave(128).net_up(air, water)
    single = Longwave(128).net_up(air.to(torch.float32), water.float())
    # 128 points of at most 5 W/m2, each to a few 2**-24
    assert (net - single).abs().max().item() < 2e-3


def test_chunks_do_not_change_the_answer(air):
    water = Clouds().water_path(air)
    whole = Longwave(41).net_up(air, water)
    parts = Longwave(41, entries_per_chunk=8 * 41 * 7).net_up(air, water)
    assert (whole - parts).abs().max().item() < ROUNDING_W_M2
