"""The dry baroclinic wave of Polvani, Scott and Thomas 2004 (Mon. Wea. Rev. 132, 2539).

A midlatitude jet of the northern hemisphere in thermal wind balance with its temperature, over a
uniform surface pressure, and a warm spot that sets off a wave of zonal number four to seven in a
week or so. Formulas and constants are those of their section 2, read from the paper's public
implementation in the GFDL spectral core. The paper diffuses with 7e5 m2/s; this model's
eighth-order diffusion and its slightly other gas constant make it a variant of the case, which
does not reproduce the published tables.
"""

from __future__ import annotations

import numpy as np
import torch

from apps.weather.atmosphere import constants as c
from apps.weather.atmosphere.dynamics import PrimitiveEquations
from apps.weather.atmosphere.state import GridState, State

SCALE_HEIGHT = 7340.0  # m
_SPEED = 50.0  # m/s
_TOP, _DEPTH, _PERIOD = 22e3, 5e3, 30e3  # m, of the jet's profile in height
_LATITUDE, _WIDTH_LON, _WIDTH_LAT = np.pi / 4, 1 / 3, 1 / 6  # of the warm spot
# US Standard Atmosphere 1976: height (m) and temperature (K) where the lapse rate changes.
_STANDARD_M = (0.0, 11e3, 20e3, 32e3, 47e3, 51e3, 71e3)
_STANDARD_K = (288.15, 216.65, 216.65, 228.65, 270.65, 270.65, 214.65)
# Midpoints of the integral over latitude: its error is that of the float64 sum of a fine rule.
_N_MIDPOINT = 4000


def jet(latitude: np.ndarray, height: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Zonal wind (m/s) and its derivative in height (s-1), [latitude, height]."""
    step = np.tanh((height - _TOP) / _DEPTH)
    angle = np.pi * height / _PERIOD
    profile = 0.5 * (1.0 - step**3) * np.sin(angle)
    slope = 0.5 * (
        (1.0 - step**3) * np.cos(angle) * np.pi / _PERIOD
        - 3.0 * step**2 * (1.0 - step**2) / _DEPTH * np.sin(angle)
    )
    across = _SPEED * np.where(latitude > 0.0, np.sin(np.pi * np.sin(latitude) ** 2) ** 3, 0.0)
    return np.outer(across, profile), np.outer(across, slope)


def balanced_temperature(latitude: np.ndarray, height: np.ndarray) -> np.ndarray:
    """Temperature in thermal wind balance with the jet, less its value at the equator, K.

    The integral over latitude of -(H / R) (a f + 2 u tan(latitude)) du/dz, [latitude, height].
    """
    edge = np.linspace(0.0, np.pi / 2, _N_MIDPOINT + 1)
    middle = 0.5 * (edge[1:] + edge[:-1])
    wind, shear = jet(middle, height)
    coriolis = 2.0 * c.ROTATION * np.sin(middle)[:, None]
    slope = c.RADIUS * coriolis + 2.0 * wind * np.tan(middle)[:, None]
    rate = -SCALE_HEIGHT / c.GAS_CONSTANT * slope * shear
    total = np.concatenate(
        [np.zeros((1, len(height))), np.cumsum(rate * np.diff(edge)[:, None], 0)]
    )
    return np.stack([np.interp(latitude, edge, column) for column in total.T], axis=1)


def baroclinic_wave(equations: PrimitiveEquations, *, warm_spot_k: float = 1.0) -> State:
    """Give the initial state; `warm_spot_k` of nought leaves the jet alone, which then stays."""
    grid, levels = equations.transform.grid, equations.levels
    latitude, height = grid.latitude.numpy(), -SCALE_HEIGHT * np.log(levels.full)
    wind, _ = jet(latitude, height)
    temperature = balanced_temperature(latitude, height)
    area = grid.area_weight.sum(0).numpy()
    temperature += np.interp(height, _STANDARD_M, _STANDARD_K) - area @ temperature
    shape = (grid.n_lon, grid.n_lat, levels.n_level)
    # longitude from -pi to pi, so that the spot is whole
    longitude = np.angle(np.exp(1j * grid.longitude.numpy()))
    spot = np.outer(
        np.cosh(longitude / _WIDTH_LON) ** -2, np.cosh((latitude - _LATITUDE) / _WIDTH_LAT) ** -2
    )
    tensor = equations.transform.tensor
    u = tensor(wind.copy()).expand(shape)
    return equations.from_grid(
        GridState(
            u,
            torch.zeros_like(u),
            tensor(temperature + warm_spot_k * spot[:, :, None]),
            torch.zeros_like(u),
            torch.full(shape[:2], c.MEAN_PRESSURE, dtype=u.dtype, device=u.device),
        )
    )
