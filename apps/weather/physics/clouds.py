"""Clouds diagnosed from relative humidity: the water that radiation sees."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from apps.weather.physics.columns import Columns
from apps.weather.physics.thermodynamics import layer_mass, saturation_humidity


@dataclass(frozen=True)
class Clouds:
    """Cover grows from `critical_humidity` to saturation; its water is a share of saturation.

    The three numbers are tuned so that absorbed solar and outgoing longwave radiation balance in
    the spun-up T21L8 aquaplanet, within 3 W/m2 over 20 days (data/samples/README.md).

    Parameters
    ----------
    critical_humidity : float
        Relative humidity at which cover begins (Sundqvist-like diagnosis).
    water_share : float
        Condensate in full cover, as a share of saturation humidity.
    full_pressure : float
        Pa; above this level the water falls off with the square of pressure (thin ice clouds).
    """

    critical_humidity: float = 0.69
    water_share: float = 0.022
    full_pressure: float = 7.5e4

    def water_path(self, columns: Columns) -> Tensor:
        """Cloud water of each layer, kg/m2 [column, level], averaged over the grid box."""
        saturation = saturation_humidity(columns.temperature, columns.pressure)
        relative = columns.humidity / saturation
        cover = ((relative - self.critical_humidity) / (1.0 - self.critical_humidity)).clamp(0, 1)
        fade = torch.clamp(columns.pressure / self.full_pressure, max=1.0) ** 2
        return cover**2 * fade * self.water_share * saturation * layer_mass(columns.pressure_half)
