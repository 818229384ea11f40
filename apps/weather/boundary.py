"""What surrounds the air: sea surface, sun and carbon dioxide."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from apps.weather.physics.radiation.sun import cos_zenith, daily_mean_cos_zenith, declination
from apps.weather.physics.surface import SURFACE_ALBEDO, SstShape, aquaplanet_sst

# Temperature in K at a latitude and a longitude, both in radian.
SeaSurface = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Boundary:
    """An aquaplanet under a diurnal sun.

    Parameters
    ----------
    sst : "control", "qobs", or a function
        Shape of the sea surface temperature (Neale and Hoskins 2000), or your own: a function of
        latitude and longitude (radian, [column]) that gives K, such as `forecast.sea_surface`
        makes of a dataset.
    warming_k : float
        Added to it everywhere, K.
    co2_ppmv : float
        Carbon dioxide; 348 is the aquaplanet experiment's.
    seasonal : bool
        Let the sun move through the year; at the equinox without it.
    diurnal : bool
        Let the sun move through the day; its mean over the day shines at every hour without it.
    """

    sst: SstShape | SeaSurface = "qobs"
    warming_k: float = 0.0
    co2_ppmv: float = 348.0
    seasonal: bool = False
    diurnal: bool = True

    def at(
        self, time_s: float, longitude: Tensor, latitude: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Surface temperature (K), cosine of the zenith angle, albedo and CO2 (ppmv), [column]."""
        if callable(self.sst):
            sst = self.sst(latitude, longitude).to(latitude) + self.warming_k
        else:
            sst = aquaplanet_sst(latitude, self.sst, self.warming_k)
        tilt = declination(time_s) if self.seasonal else 0.0
        if self.diurnal:
            sun = cos_zenith(latitude, longitude, time_s, tilt)
        else:
            sun = daily_mean_cos_zenith(latitude, tilt)
        albedo = torch.full_like(latitude, SURFACE_ALBEDO)
        return sst, sun, albedo, torch.full_like(latitude, self.co2_ppmv)
