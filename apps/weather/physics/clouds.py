"""Clouds diagnosed from relative humidity: the water that radiation sees."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from apps.weather.physics.columns import Columns
from apps.weather.physics.thermodynamics import layer_mass, saturation_humidity

PROFILE_POWER = 4.0


@dataclass(frozen=True)
class Clouds:
    """Cover grows from a critical humidity to saturation; its water is a share of saturation.

    The critical humidity rises towards the ground, where air is moist without cloud: Xu and
    Krueger 1991 (Mon. Wea. Rev. 119, 342) in the exponential form of Lohmann and Roeckner 1996
    (Clim. Dyn. 12, 557), c + (c_ground - c) exp(1 - (p_s / p)^4). The numbers are tuned so that
    absorbed solar and outgoing longwave radiation balance within 2 W/m2 in the spun-up T21L8 and
    T31L10 aquaplanets.

    Parameters
    ----------
    critical_humidity, critical_humidity_ground : float
        Relative humidity at which cover begins, aloft and in the limit of the ground.
    water_share : float
        Condensate in full cover, as a share of saturation humidity.
    full_pressure : float
        Pa; above this level the water falls off with the square of pressure (thin ice clouds).
    """

    critical_humidity: float = 0.7
    critical_humidity_ground: float = 0.92
    water_share: float = 0.0032
    full_pressure: float = 3.0e4

    def water_path(self, columns: Columns) -> Tensor:
        """Cloud water of each layer, kg/m2 [column, level], averaged over the grid box."""
        saturation = saturation_humidity(columns.temperature, columns.pressure)
        relative = columns.humidity / saturation
        near = torch.exp(1.0 - (columns.pressure_half[:, -1:] / columns.pressure) ** PROFILE_POWER)
        rise = self.critical_humidity_ground - self.critical_humidity
        critical = self.critical_humidity + rise * near
        cover = ((relative - critical) / (1.0 - critical)).clamp(0, 1)
        fade = torch.clamp(columns.pressure / self.full_pressure, max=1.0) ** 2
        return cover**2 * fade * self.water_share * saturation * layer_mass(columns.pressure_half)
