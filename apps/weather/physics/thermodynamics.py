"""Saturation of water vapour, and heights of a column in hydrostatic balance."""

from __future__ import annotations

import torch
from torch import Tensor

from apps.weather.atmosphere.constants import (
    GAS_CONSTANT,
    GAS_CONSTANT_VAPOUR,
    GRAVITY,
    HEAT_CAPACITY,
    LATENT_HEAT,
    VIRTUAL,
)

EPSILON = GAS_CONSTANT / GAS_CONSTANT_VAPOUR
FREEZING_K = 273.16  # triple point, where the saturation pressure is known best
SATURATION_AT_FREEZING_PA = 611.2

# Below this share of saturation pressure the air is always far from boiling; the cap only serves
# the thin top layers, where saturation pressure may exceed the pressure of the air itself.
VAPOUR_SHARE_MAX = 0.5


def saturation_humidity(temperature: Tensor, pressure: Tensor) -> Tensor:
    """Specific humidity at saturation over liquid, kg/kg, from K and Pa.

    Clausius-Clapeyron with constant latent heat, which keeps the moist enthalpy cp T + L q exact.
    """
    rate = LATENT_HEAT / GAS_CONSTANT_VAPOUR
    vapour = SATURATION_AT_FREEZING_PA * torch.exp(rate * (1.0 / FREEZING_K - 1.0 / temperature))
    vapour = torch.minimum(vapour, VAPOUR_SHARE_MAX * pressure)
    return EPSILON * vapour / (pressure - (1.0 - EPSILON) * vapour)


def saturation_slope(temperature: Tensor, saturation: Tensor) -> Tensor:
    """Give d(saturation humidity)/dT, 1/K, to first order in humidity."""
    return LATENT_HEAT * saturation / (GAS_CONSTANT_VAPOUR * temperature**2)


def layer_mass(pressure_half: Tensor) -> Tensor:
    """Mass of each layer, kg/m2 [column, level]."""
    return (pressure_half[:, 1:] - pressure_half[:, :-1]) / GRAVITY


def height(temperature: Tensor, humidity: Tensor, pressure: Tensor, surface: Tensor) -> Tensor:
    """Height of the layer centres above the ground, m [column, level].

    Trapezoidal in ln p between the centres, isothermal below the lowest.
    """
    virtual = temperature * (1.0 + VIRTUAL * humidity)
    log_p = pressure.log()
    between = 0.5 * (virtual[:, 1:] + virtual[:, :-1]) * (log_p[:, 1:] - log_p[:, :-1])
    lowest = virtual[:, -1:] * (surface.log() - log_p[:, -1])[:, None]
    steps = torch.cat([between, lowest], dim=1)
    return GAS_CONSTANT / GRAVITY * steps.flip(1).cumsum(1).flip(1)


def heating_from_net_flux(net_up: Tensor, pressure_half: Tensor) -> Tensor:
    """Heating K/s [column, level] from the net upward flux W/m2 [column, level + 1]."""
    return (net_up[:, 1:] - net_up[:, :-1]) / (HEAT_CAPACITY * layer_mass(pressure_half))
