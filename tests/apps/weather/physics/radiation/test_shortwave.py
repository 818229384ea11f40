import math

import numpy as np
import pytest
import torch

from apps.weather.physics import Clouds, ExactRadiation, soundings
from apps.weather.physics.radiation.shortwave import (
    STANDARD_PA,
    Shortwave,
    layer_optics,
    ozone_above,
)
from apps.weather.physics.radiation.spectrum import solar_spectrum
from apps.weather.physics.radiation.sun import (
    SOLAR_CONSTANT,
    cos_zenith,
    daily_mean_cos_zenith,
    declination,
)
from core.errors import ConfigError

# The k-distributions against the formulas they stand for (Lacis and Hansen 1974).
OZONE_RELATIVE = 0.02
VAPOUR_RELATIVE = 0.08
ROUNDING = 1e-12


@pytest.fixture(scope="module")
def air():
    found = soundings(64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return found._replace(cos_zenith=torch.linspace(0.01, 1.0, 64, dtype=torch.float64))


def absorbed(strength, weight, path):
    return (1.0 - np.exp(-np.outer(path, strength))) @ weight


def test_ozone_absorbs_as_lacis_and_hansen():
    # cm; 1.5 is the path at a zenith angle of 78 degrees
    x = np.geomspace(0.01, 1.5, 50)
    ultraviolet = 1.082 * x / (1 + 138.6 * x) ** 0.805 + 0.0658 * x / (1 + (103.6 * x) ** 3)
    visible = 0.02118 * x / (1 + 0.042 * x + 0.000323 * x**2)
    for n_point in (8, 16, 32):
        points = solar_spectrum(n_point)
        got = absorbed(points.extinction[1], points.weight, x)
        np.testing.assert_allclose(got, ultraviolet + visible, rtol=OZONE_RELATIVE)


@pytest.mark.parametrize(("n_point", "relative"), [(16, 0.15), (32, VAPOUR_RELATIVE)])
def test_vapour_absorbs_as_lacis_and_hansen(n_point, relative):
    y = np.geomspace(0.05, 6.0, 50)  # cm of precipitable water = 10 kg/m2
    formula = 2.9 * y / ((1 + 141.5 * y) ** 0.635 + 5.925 * y)
    points = solar_spectrum(n_point)
    got = absorbed(10.0 * points.extinction[0], points.weight, y)
    np.testing.assert_allclose(got, formula, rtol=relative)


def test_spectrum_shares_sum_to_one_and_too_few_points_are_refused():
    for n_point in (8, 16, 33):
        assert solar_spectrum(n_point).weight.sum() == pytest.approx(1.0, abs=ROUNDING)
    with pytest.raises(ConfigError, match=r"n_point must be at least 8 .* got 4"):
        solar_spectrum(4)


def test_ozone_column_and_its_height():
    p = torch.tensor([0.0, 1e3, STANDARD_PA], dtype=torch.float64)
    above = ozone_above(p)
    assert above[0].item() == 0.0
    assert above[2].item() == pytest.approx(0.30, rel=1e-12)
    # Half of it lies above the height b = 20 km, up to the part below the ground.
    at_20_km = ozone_above(torch.tensor(STANDARD_PA * math.exp(-20.0 / 7.0), dtype=torch.float64))
    assert at_20_km.item() == pytest.approx(0.15 * (1 + math.exp(-4.0)), rel=1e-12)


def test_transparent_air_sends_all_to_the_surface(air):
    """No absorber at all: what enters is (1 - albedo) of the beam, at every interface."""
    scheme = Shortwave(16)
    amounts = torch.zeros(8, 64, 4, dtype=torch.float64)
    net = scheme._chunk(amounts, air.cos_zenith, air.albedo)
    expected = (1.0 - air.albedo).expand_as(net)
    # eight layers with the smallest optical depth, 1e-8, at a path of up to 1 / .01
    assert (net - expected).abs().max().item() < 1e-5


def test_conservative_layers_absorb_nothing(air):
    """Pure Rayleigh scattering: the net flux is the same at every interface."""
    scheme = Shortwave(16)
    scheme._optics = scheme._optics.clone()
    scheme._optics[:, :2] = 0.0  # no vapour, no ozone
    amounts = torch.zeros(8, 64, 4, dtype=torch.float64)
    amounts[..., 2] = 1.0 / 8.0
    net = scheme._chunk(amounts, air.cos_zenith, air.albedo)
    assert (net - net[0]).abs().max().item() < 1e-5
    # Broad-band albedo of clear air over the sea, sun overhead: 6 to 11 % (textbook: 7 to 9 %).
    assert 0.06 < 1.0 - net[0, -1].item() < 0.13


@pytest.mark.parametrize("mu", [0.05, 0.5, 0.5002, 0.7, 1.0])
@pytest.mark.parametrize(
    ("tau", "albedo", "g"), [(0.3, 0.999, 0.5), (2.0, 0.1, 0.0), (8, 0.9, 0.4)]
)
def test_layer_matches_two_stream_equations_integrated_numerically(tau, albedo, g, mu):
    """Fourth-order shooting through the two-stream equations in float64."""
    t = [torch.tensor([x], dtype=torch.float64) for x in (tau, tau * albedo, tau * albedo * g, mu)]
    reflect, transmit, beam, up, down = (x.item() for x in layer_optics(*t))
    g1, g2 = (8 - albedo * (5 + 3 * g)) / 4, 3 * albedo * (1 - g) / 4
    g3 = (2 - 3 * g * mu) / 4

    def integrate(up0, down0, source):
        n = 4000
        h = tau / n
        state = np.array([up0, down0])

        def rate(x, s):
            lit = source * math.exp(-x / mu) / mu * albedo
            return np.array(
                [g1 * s[0] - g2 * s[1] - g3 * lit, g2 * s[0] - g1 * s[1] + (1 - g3) * lit]
            )

        for i in range(n):
            x = i * h
            k1 = rate(x, state)
            k2 = rate(x + h / 2, state + h / 2 * k1)
            k3 = rate(x + h / 2, state + h / 2 * k2)
            k4 = rate(x + h, state + h * k3)
            state = state + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return state

    a, b = integrate(0.0, 1.0, 0.0), integrate(1.0, 0.0, 0.0)
    r = -a[0] / b[0]  # up at the top such that nothing comes up at the bottom
    assert reflect == pytest.approx(r, abs=1e-6)
    assert transmit == pytest.approx(a[1] + r * b[1], abs=1e-6)
    lit = integrate(0.0, 0.0, 1.0)
    top = -lit[0] / b[0]
    # Close to resonance the angle is moved by .2 %: the answer moves by less than that.
    tolerance = 2e-3 if albedo == 0.1 and 0.4 < mu < 0.6 else 1e-6
    physical_up = min(max(top, 0.0), 1 - math.exp(-tau / mu))
    assert up == pytest.approx(physical_up, abs=tolerance)
    # The two-stream closure may scatter below nought into a grazing beam; it is cut off there.
    assert down == pytest.approx(max(lit[1] + top * b[1], 0.0), abs=tolerance)
    assert beam == pytest.approx(math.exp(-tau / mu), rel=2e-2 if tolerance > 1e-6 else 1e-12)


def test_resonance_is_smooth_in_single_precision():
    mu = torch.linspace(0.3, 0.7, 4001)
    tau = torch.full_like(mu, 2.0)
    optics = layer_optics(tau, 0.1 * tau, 0.0 * tau, mu)
    for part in optics[2:]:
        steps = part.diff().abs()
        assert bool(torch.isfinite(part).all())
        # neighbours lie 1e-4 apart in angle; the avoided stretch moves the answer by some 1e-4
        assert steps.max().item() < 1e-3


def test_night_and_grazing_sun(air):
    scheme = ExactRadiation(16, 16)
    night = scheme(air._replace(cos_zenith=torch.full_like(air.sst, -0.2)))
    assert night.toa_sw.abs().max().item() == 0.0
    assert night.heating_sw.abs().max().item() == 0.0
    low = scheme(air._replace(cos_zenith=torch.full_like(air.sst, 1e-6)))
    assert bool(torch.isfinite(low.heating_sw).all())
    assert low.toa_sw.max().item() <= SOLAR_CONSTANT * 1e-6


def test_top_minus_surface_is_what_the_air_absorbs_and_is_positive(air):
    result = ExactRadiation(16, 32)(air)
    mass = (air.pressure_half[:, 1:] - air.pressure_half[:, :-1]) / 9.80616
    heated = (1004.64 * mass * result.heating_sw).sum(1)
    assert (heated - (result.toa_sw - result.surface_sw)).abs().max().item() < 1e-9
    assert bool((result.heating_sw > 0).all())
    assert bool((result.toa_sw < SOLAR_CONSTANT * air.cos_zenith).all())


def test_cloud_reflects_and_points_converge(air):
    water = Clouds().water_path(air)
    clear = Shortwave(16).net_down(air, torch.zeros_like(water))[:, 0]
    cloudy = Shortwave(16).net_down(air, water + 0.1)[:, 0]
    assert bool((cloudy < 0.8 * clear).all())
    truth = Shortwave(256).net_down(air, water)
    error = {
        n: (Shortwave(n).net_down(air, water) - truth).abs().mean().item() for n in (8, 16, 32)
    }
    assert error[8] > error[16] > error[32]
    assert error[32] < 0.8  # W/m2 of some 400; thin clouds leave more of it to vapour


def test_single_precision_follows_double(air):
    water = Clouds().water_path(air)
    net = Shortwave(32).net_down(air, water)
    single = Shortwave(32).net_down(air.to(torch.float32), water.float())
    # 8 layers with particular solutions amplified by at most 1 / resonance: 1e3 * 2**-24 each
    assert (net - single).abs().max().item() < 0.05


def test_sun_over_a_day_and_a_year():
    latitude = torch.linspace(-1.4, 1.4, 9, dtype=torch.float64)
    for tilt in (0.0, declination(0.25 * 365.25 * 86400.0)):
        hours = [
            cos_zenith(latitude, torch.zeros_like(latitude), 60.0 * minute, tilt)
            for minute in range(1440)
        ]
        mean = torch.stack(hours).mean(0)
        assert torch.allclose(mean, daily_mean_cos_zenith(latitude, tilt), atol=1e-4)
    assert declination(0.25 * 365.25 * 86400.0) == pytest.approx(math.radians(23.44))
    noon = cos_zenith(torch.zeros(1), torch.tensor([math.pi / 2]), 6 * 3600.0)
    assert noon.item() == pytest.approx(1.0)
