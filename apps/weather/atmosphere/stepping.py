"""Semi-implicit leapfrog with the RAW filter and implicit diffusion, of eighth order by default.

Gravity waves are averaged over the two outer time levels, which removes their limit on the step;
the vertical coupling is diagonal in the eigenvectors of the linear operator, so that each solve
is two small products. Sources: Robert, Henderson and Turnbull 1972 (Mon. Wea. Rev. 100, 329);
Williams 2009 (Mon. Wea. Rev. 137, 2538) for the filter, alpha = 0.53.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from apps.weather.atmosphere import constants as c
from apps.weather.atmosphere.dynamics import REFERENCE_TEMPERATURE, PrimitiveEquations
from apps.weather.atmosphere.state import State
from core.errors import ConfigError

FILTER_STRENGTH = 0.1
FILTER_ALPHA = 0.53
FASTEST_WIND = 110.0  # m/s, the advection that a step must resolve


class TimeLevels(NamedTuple):
    """Two successive time levels and the number of steps behind the newer one."""

    previous: State
    current: State
    n_step: int


def start(state: State) -> TimeLevels:
    """Time levels at rest on one state; the first step from here is a forward one."""
    return TimeLevels(state, state, 0)


def longest_step(truncation: int) -> float:
    """Longest stable advective leapfrog step in s, radius / (truncation x fastest wind)."""
    return c.RADIUS / (truncation * FASTEST_WIND)


class SemiImplicitLeapfrog:
    """Advance `PrimitiveEquations` by steps of `dt` seconds.

    Parameters
    ----------
    equations : PrimitiveEquations
    dt : float
        Seconds; ConfigError above `longest_step`.
    diffusion_time : float
        Seconds in which the smallest resolved scale decays by e.
    diffusion_order : int
        Power of the Laplacian that diffuses.
    """

    def __init__(
        self,
        equations: PrimitiveEquations,
        dt: float,
        *,
        diffusion_time: float = 6 * 3600.0,
        diffusion_order: int = 4,
    ):
        truncation = equations.transform.grid.truncation
        if not 0.0 < dt <= longest_step(truncation):
            raise ConfigError(
                f"SemiImplicitLeapfrog: dt must lie in 0..{longest_step(truncation):.0f} s at "
                f"T{truncation} (winds of {FASTEST_WIND:.0f} m/s), got {dt:g} s; shorten the step"
            )
        self.equations, self.dt = equations, dt
        transform, levels = equations.transform, equations.levels
        n = transform.total_wavenumber.numpy()
        # D_t = -laplacian((R G T) + R T0 ln p), T_t = -kappa T0 C D, ln p_t = -dsigma . D
        cooling = c.KAPPA * REFERENCE_TEMPERATURE * levels.conversion
        operator = c.GAS_CONSTANT * (
            levels.hydrostatic @ cooling + REFERENCE_TEMPERATURE * levels.thickness[None, :]
        )
        eigenvalue, eigenvector = np.linalg.eig(operator)
        order = np.argsort(eigenvalue.real)[::-1]
        eigenvalue, eigenvector = eigenvalue.real[order], eigenvector.real[:, order]
        self.wave_speed = np.sqrt(eigenvalue)
        """Phase speeds of the external and internal gravity waves, m/s, fastest first."""
        self._to_mode = transform.tensor(np.linalg.inv(eigenvector).T)
        self._from_mode = transform.tensor(eigenvector.T)
        stiffness = (n * (n + 1.0) / c.RADIUS**2)[:, None] * eigenvalue[None, :]
        truncated = truncation * (truncation + 1.0)
        damping = ((n * (n + 1.0)) / truncated) ** diffusion_order / diffusion_time
        # forward first step: half the interval, see `start`
        self._factor = {
            interval: (
                transform.tensor(1.0 / (1.0 + interval**2 * stiffness)),
                transform.tensor(1.0 / (1.0 + 2.0 * interval * damping)).unsqueeze(-1),
            )
            for interval in (0.5 * dt, dt)
        }
        self._cooling = transform.tensor(cooling.T)
        # heat, K, of the kinetic energy in squared coefficients of vorticity and divergence
        count = np.where(np.arange(transform.n_m) == 0, 1.0, 2.0)[:, None]
        inverse = transform.inverse_laplacian_factor.squeeze(-1).double().cpu().numpy()
        heat = np.broadcast_to(-0.5 / c.HEAT_CAPACITY * count * inverse, (2, *inverse.shape))
        self._heat = transform.tensor(heat.reshape(1, -1))

    def step(self, levels: TimeLevels, explicit: State) -> TimeLevels:
        """Advance one step, given the explicit tendencies (dynamics at the current level)."""
        equations, transform = self.equations, self.equations.transform
        old, now = levels.previous, levels.current
        half = self.dt if levels.n_step > 0 else 0.5 * self.dt
        inverse, damping = self._factor[half]

        temperature = old.temperature + half * explicit.temperature
        log_pressure = old.log_pressure + half * explicit.log_pressure
        head = temperature @ equations.hydrostatic
        head = head + c.GAS_CONSTANT * REFERENCE_TEMPERATURE * log_pressure
        divergence = old.divergence + half * (explicit.divergence - transform.laplacian(head))
        mean = ((divergence @ self._to_mode) * inverse) @ self._from_mode

        thickness = equations.thickness
        rough = (old.vorticity + 2.0 * half * explicit.vorticity, 2.0 * mean - old.divergence)
        smooth = (rough[0] * damping, rough[1] * damping)
        new = State(
            smooth[0],
            smooth[1],
            (2.0 * (temperature - half * (mean @ self._cooling)) - old.temperature) * damping,
            (old.humidity + 2.0 * half * explicit.humidity) * damping,
            2.0 * (log_pressure - half * (mean @ thickness).unsqueeze(-1)) - old.log_pressure,
        )
        lost, lost_too = (a.square() - b.square() for a, b in zip(rough, smooth, strict=True))
        lost = lost + lost_too
        new.temperature[0, 0, 0] += (self._heat @ lost.flatten(0, 2)).squeeze(0)
        if levels.n_step == 0:
            return TimeLevels(now, new, 1)
        kept, moved = [], []
        for before, at, after in zip(old, now, new, strict=True):
            shift = torch.add(before + after, at, alpha=-2.0) * (0.5 * FILTER_STRENGTH)
            kept.append(torch.add(at, shift, alpha=FILTER_ALPHA))
            moved.append(torch.add(after, shift, alpha=FILTER_ALPHA - 1.0))
        return TimeLevels(State(*kept), State(*moved), levels.n_step + 1)
