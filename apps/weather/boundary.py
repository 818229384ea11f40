"""What surrounds the air: sea surface, sun and carbon dioxide."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from apps.weather.physics.radiation.sun import cos_zenith, declination
from apps.weather.physics.surface import SURFACE_ALBEDO, SstShape, aquaplanet_sst


@dataclass(frozen=True)
class Boundary:
    """An aquaplanet under a diurnal sun.

    Parameters
    ----------
    sst : "control" or "qobs"
        Shape of the sea surface temperature (Neale and Hoskins 2000).
    warming_k : float
        Added to it everywhere, K.
    co2_ppmv : float
        Carbon dioxide; 348 is the aquaplanet experiment's.
    seasonal : bool
        Let the sun move through the year; at the equinox without it.
    """

    sst: SstShape = "qobs"
    warming_k: float = 0.0
    co2_ppmv: float = 348.0
    seasonal: bool = False

    def at(
        self, time_s: float, longitude: Tensor, latitude: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Surface temperature (K), cosine of the zenith angle, albedo and CO2 (ppmv), [column]."""
        sst = aquaplanet_sst(latitude, self.sst, self.warming_k)
        tilt = declination(time_s) if self.seasonal else 0.0
        sun = cos_zenith(latitude, longitude, time_s, tilt)
        albedo = torch.full_like(latitude, SURFACE_ALBEDO)
        return sst, sun, albedo, torch.full_like(latitude, self.co2_ppmv)
