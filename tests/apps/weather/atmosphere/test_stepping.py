import math

import pytest
import torch

from apps.weather.atmosphere import constants as c
from apps.weather.atmosphere.cases import isothermal_rest, steady_zonal_flow
from apps.weather.atmosphere.dynamics import REFERENCE_TEMPERATURE, PrimitiveEquations
from apps.weather.atmosphere.grid import GaussianGrid
from apps.weather.atmosphere.levels import SigmaLevels
from apps.weather.atmosphere.spectral import HarmonicTransform
from apps.weather.atmosphere.stepping import SemiImplicitLeapfrog, longest_step, start
from core.errors import ConfigError


def build(dt, truncation=21, n_level=8):
    transform = HarmonicTransform(GaussianGrid(truncation), dtype=torch.float64)
    equations = PrimitiveEquations(transform, SigmaLevels.equidistant(n_level))
    return equations, SemiImplicitLeapfrog(equations, dt)


def advance(equations, stepper, levels, n_step):
    for _ in range(n_step):
        levels = stepper.step(levels, equations.explicit(levels.current))
    return levels


def test_external_wave_speed_is_near_the_lamb_wave():
    """The fastest mode of an isothermal column is the Lamb wave, sqrt(cp/cv R T)."""
    _, stepper = build(1800.0, n_level=40)
    lamb = math.sqrt(c.GAS_CONSTANT * REFERENCE_TEMPERATURE / (1.0 - c.KAPPA))
    assert stepper.wave_speed[0] == pytest.approx(lamb, rel=0.05)
    assert (stepper.wave_speed[1:] < 0.6 * lamb).all()


@pytest.mark.parametrize("dt", [600.0, 2400.0])
def test_gravity_wave_has_the_frequency_of_the_scheme(dt):
    """Averaging over the outer levels slows a wave of frequency w to tan(phase) = w dt."""
    equations, stepper = build(dt)
    equations.coriolis = torch.zeros_like(equations.coriolis)
    state = isothermal_rest(equations, temperature=REFERENCE_TEMPERATURE)
    n = 4
    pulse = 1e-6 * stepper._from_mode[0]
    state.divergence[0, 0, n] = pulse
    levels, series = start(state), []
    for _ in range(60):
        series.append(float(levels.current.divergence[0, 0, n] @ pulse / (pulse @ pulse)))
        levels = advance(equations, stepper, levels, 1)
    frequency = float(stepper.wave_speed[0]) * math.sqrt(n * (n + 1)) / c.RADIUS
    phase = math.atan(frequency * dt)
    # x[i+1] + x[i-1] = 2 cos(phase) x[i]; least squares, past the forward first step
    middle = torch.tensor(series[2:-1], dtype=torch.float64)
    around = torch.tensor(series[1:-2], dtype=torch.float64) + torch.tensor(series[3:])
    cosine = float((around @ middle) / (2 * middle @ middle))
    # the RAW filter (strength 0.1) moves the phase by about strength * phase^3 / 4
    assert math.acos(cosine) == pytest.approx(phase, rel=0.02)


def test_gravity_waves_do_not_grow_at_forty_minutes():
    equations, stepper = build(2400.0)
    state = steady_zonal_flow(equations)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(state.divergence.shape, generator=generator, dtype=torch.float64)
    noise[1, 0] = 0.0
    noise[:, :, 0] = 0.0
    transform = equations.transform
    damped = noise / (1.0 + transform.total_wavenumber).reshape(1, 1, -1, 1) * transform.mask
    state = state._replace(divergence=1e-6 * damped)
    levels = advance(equations, stepper, start(state), 36 * 5)
    first = transform.synthesise(state.divergence).square().mean()
    last = transform.synthesise(levels.current.divergence).square().mean()
    assert float(last) < float(first)


def test_steady_flow_stays_steady_for_five_days():
    equations, stepper = build(1800.0)
    state = steady_zonal_flow(equations)
    levels = advance(equations, stepper, start(state), 48 * 5)
    drift = (levels.current.vorticity - state.vorticity).abs().max() / state.vorticity.abs().max()
    # del^8 diffusion of the n = 1 and 2 waves in five days: (6/462)^4 * 20 = 6e-7 at most
    assert float(drift) < 1e-6
    assert (levels.current.temperature - state.temperature).abs().max() < 1e-6


def test_smallest_scale_decays_in_the_stated_time():
    equations, stepper = build(600.0)
    state = isothermal_rest(equations)
    state.humidity[0, 0, 21] = 1e-3
    levels = advance(equations, stepper, start(state), 36)
    left = float(levels.current.humidity[0, 0, 21, 0]) / 1e-3
    # implicit over 2 dt: (1 + 2 dt / tau)^(-n / 2) for the pair of levels
    assert left == pytest.approx((1 + 1200.0 / 21600.0) ** -18, rel=0.02)


def test_too_long_a_step_is_refused_with_the_longest():
    assert longest_step(21) == pytest.approx(2758.0, abs=1.0)
    with pytest.raises(ConfigError, match=r"must lie in 0\.\.2758 s at T21 .* got 3600 s"):
        build(3600.0)
