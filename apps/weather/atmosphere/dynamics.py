"""Right-hand side of the moist hydrostatic primitive equations in vorticity-divergence form.

Hoskins and Simmons 1975 (Q. J. R. Meteorol. Soc. 101, 637), with virtual temperature, advective
heating of the flux form, and vertical advection as in Simmons and Burridge 1981, equation 2.15.
The terms that carry gravity waves about an isothermal rest state at `REFERENCE_TEMPERATURE` are
kept apart (`linear`), so that a stepper may treat them implicitly: tendency = explicit + linear.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from apps.weather.atmosphere import constants as c
from apps.weather.atmosphere.levels import SigmaLevels
from apps.weather.atmosphere.spectral import HarmonicTransform
from apps.weather.atmosphere.state import GridState, State

REFERENCE_TEMPERATURE = 300.0  # K


class GridForcing(NamedTuple):
    """Rates added on the grid [lon, lat, level], per second, before the transform."""

    u: Tensor
    v: Tensor
    temperature: Tensor
    humidity: Tensor


class PrimitiveEquations:
    """Tendencies on one grid and one set of levels.

    Parameters
    ----------
    transform : HarmonicTransform
        Grid, dtype and device.
    levels : SigmaLevels
    surface_geopotential : Tensor, optional
        Grid field [lon, lat], m2 s-2; flat without it.
    """

    def __init__(
        self,
        transform: HarmonicTransform,
        levels: SigmaLevels,
        *,
        surface_geopotential: Tensor | None = None,
    ):
        self.transform, self.levels = transform, levels
        tensor = transform.tensor
        # Matrices act from the right on [..., level].
        self.hydrostatic = tensor(c.GAS_CONSTANT * levels.hydrostatic.T)
        self.conversion = tensor(levels.conversion.T)
        self.thickness = tensor(levels.thickness)
        self.half = tensor(np.array(levels.half))
        n = levels.n_level
        # Sums over a column, as products [level, level]: of the mass convergence, the work of
        # pressure and the motion through the half levels below and above each layer, shared with
        # its neighbour; of v . grad ln p_s, its heating at the reference temperature, K/s.
        above = np.triu(np.ones((n, n))) * levels.thickness[:, None]
        below = (levels.thickness[:, None] * np.array(levels.half)[1:] - above) * 0.5
        below[:, -1] = 0.0
        from_below = below / levels.thickness
        from_above = np.concatenate([np.zeros((n, 1)), below[:, :-1]], 1) / levels.thickness
        conversion = levels.conversion.T
        self._column = tensor(np.stack([conversion, from_below, from_above]))
        self._warming = tensor(c.KAPPA * REFERENCE_TEMPERATURE * (np.eye(n) - conversion))
        sin_latitude = tensor(transform.grid.sin_latitude)
        self.coriolis = (2.0 * c.ROTATION * sin_latitude).reshape(1, -1, 1)
        self.surface_geopotential = (
            None
            if surface_geopotential is None
            else transform.analyse(surface_geopotential.to(transform.dtype).unsqueeze(-1))
        )

    def to_grid(self, state: State) -> GridState:
        """Winds, temperature, humidity and surface pressure on the grid."""
        east, north = self.transform.scaled_wind(state.vorticity, state.divergence)
        stacked = torch.cat(
            [east, north, state.temperature, state.humidity, state.log_pressure], dim=-1
        )
        n = self.levels.n_level
        u, v, t, q, log_pressure = self.transform.synthesise(stacked).split([n, n, n, n, 1], dim=-1)
        scale = self.transform.inverse_cos_latitude
        return GridState(
            u * scale, v * scale, t, q, c.MEAN_PRESSURE * log_pressure.squeeze(-1).exp()
        )

    def from_grid(self, grid: GridState) -> State:
        """Coefficients of grid fields; winds enter through their curl and divergence."""
        transform = self.transform
        vorticity, divergence = transform.vorticity_divergence(grid.u, grid.v)
        return State(
            vorticity,
            divergence,
            transform.analyse(grid.temperature),
            transform.analyse(grid.humidity),
            transform.analyse((grid.surface_pressure / c.MEAN_PRESSURE).log().unsqueeze(-1)),
        )

    def explicit(self, state: State, forcing: GridForcing | None = None) -> State:
        """Tendencies per second without the linear terms of `linear`."""
        transform, n = self.transform, self.levels.n_level
        n_lon, n_lat = transform.grid.n_lon, transform.grid.n_lat
        slope_east, slope_north = transform.scaled_gradient(state.log_pressure)
        east, north = transform.scaled_wind(state.vorticity, state.divergence)
        grid = transform.synthesise(
            torch.cat(
                [
                    east,
                    north,
                    state.temperature,
                    state.humidity,
                    state.vorticity,
                    state.divergence,
                    slope_east,
                    slope_north,
                ],
                dim=-1,
            )
        )
        scale = transform.inverse_cos_latitude
        # field outermost: one copy, after which every product below runs over contiguous memory
        fields = grid[..., : 6 * n].view(n_lon, n_lat, 6, n).permute(2, 0, 1, 3).contiguous()
        fields[:2] *= scale
        u, v, temperature, humidity, vorticity, divergence = fields
        slope = grid[..., 6 * n :] * scale
        slope_east, slope_north = slope[..., :1], slope[..., 1:]

        advection = u * slope_east + v * slope_north  # v . grad ln p_s
        excess = temperature - REFERENCE_TEMPERATURE
        moisture = c.VIRTUAL * humidity * temperature  # Tv - T
        virtual_excess = excess + moisture

        convergence = (advection + divergence).view(1, -1, n)
        work, from_below, from_above = torch.matmul(convergence, self._column).unbind()
        # vertical advection of u, v, T, q together; the shift runs over the ends of columns, where
        # nothing is carried
        flat = fields[:4].view(4, -1)
        step = flat.roll(-1, dims=1) - flat
        vertical = from_below.reshape(-1) * step
        vertical[:, 1:].addcmul_(from_above.reshape(-1)[1:], step[:, :-1])
        vertical = vertical.view(4, n_lon, n_lat, n)

        absolute = vorticity + self.coriolis
        push = c.GAS_CONSTANT * virtual_excess
        flux_u = absolute * v - push * slope_east - vertical[0]
        flux_v = -absolute * u - push * slope_north - vertical[1]
        # kappa Tv omega/p, less the linear part -kappa T0 C D
        heating = c.KAPPA * virtual_excess * (advection - work.view_as(advection))
        heating = heating + advection @ self._warming
        rate_t = excess * divergence - vertical[2] + heating
        rate_q = humidity * divergence - vertical[3]
        if forcing is not None:
            flux_u = flux_u + forcing.u
            flux_v = flux_v + forcing.v
            rate_t = rate_t + forcing.temperature
            rate_q = rate_q + forcing.humidity
        rate_p = -(advection @ self.thickness).unsqueeze(-1)
        energy = 0.5 * (u * u + v * v) + moisture @ self.hydrostatic

        flux = torch.cat(
            [flux_u, excess * u, humidity * u, flux_v, excess * v, humidity * v], dim=-1
        )
        spectral = transform.analyse_full(
            torch.cat([flux * scale, energy, rate_t, rate_q, rate_p], dim=-1)
        )
        east, north, energy, rate_t, rate_q, rate_p = spectral.split(
            [3 * n, 3 * n, n, n, n, 1], dim=-1
        )
        mask = transform.mask
        spread = transform.divergence_of(east, north)
        if self.surface_geopotential is not None:
            energy = energy + self.surface_geopotential
        return State(
            transform.curl_of(east[..., :n], north[..., :n]),
            spread[..., :n] - transform.laplacian(energy),
            rate_t * mask - spread[..., n : 2 * n],
            rate_q * mask - spread[..., 2 * n :],
            rate_p * mask,
        )

    def linear(self, state: State) -> State:
        """Give the gravity-wave terms about the isothermal rest state, per second."""
        head = state.temperature @ self.hydrostatic
        head = head + c.GAS_CONSTANT * REFERENCE_TEMPERATURE * state.log_pressure
        return State(
            torch.zeros_like(state.vorticity),
            -self.transform.laplacian(head),
            -c.KAPPA * REFERENCE_TEMPERATURE * (state.divergence @ self.conversion),
            torch.zeros_like(state.humidity),
            -(state.divergence @ self.thickness).unsqueeze(-1),
        )

    def tendency(self, state: State) -> State:
        """Give the whole adiabatic tendency, per second."""
        return State(
            *(a + b for a, b in zip(self.explicit(state), self.linear(state), strict=True))
        )
