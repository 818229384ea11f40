"""Made-up columns: plausible air without a model run, for costs, examples and tests."""

from __future__ import annotations

import math

import torch

from apps.weather.atmosphere.constants import MEAN_PRESSURE
from apps.weather.physics.columns import Columns
from apps.weather.physics.surface import SURFACE_ALBEDO, aquaplanet_sst
from apps.weather.physics.thermodynamics import saturation_humidity

_LAPSE = 0.19  # d ln T / d ln p of the troposphere, 6.5 K/km
_STRATOSPHERE_K = 205.0


def soundings(
    n_column: int,
    n_level: int = 8,
    *,
    generator: torch.Generator,
    co2_ppmv: float = 348.0,
    dtype: torch.dtype = torch.float32,
) -> Columns:
    """Give columns spread evenly over the sphere and the day.

    A constant lapse rate up to an isothermal stratosphere over the aquaplanet's sea, with noise of
    2 K and 5 m/s; relative humidity of the troposphere is uniform in 0..1, level by level.
    """

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    latitude = torch.asin(2.0 * uniform(n_column) - 1.0)
    sst = aquaplanet_sst(latitude)
    surface = MEAN_PRESSURE + 1000.0 * normal(n_column)
    half = surface[:, None] * torch.linspace(0.0, 1.0, n_level + 1, dtype=torch.float64)
    pressure = 0.5 * (half[:, 1:] + half[:, :-1])
    air = (sst[:, None] - 2.0) * (pressure / surface[:, None]) ** _LAPSE
    temperature = air.clamp(min=_STRATOSPHERE_K) + 2.0 * normal(n_column, n_level)
    relative = torch.where(air > _STRATOSPHERE_K, uniform(n_column, n_level), 0.01)
    noon = torch.cos(2.0 * math.pi * uniform(n_column))
    columns = Columns(
        temperature=temperature,
        humidity=relative * saturation_humidity(temperature, pressure),
        u=5.0 * normal(n_column, n_level),
        v=5.0 * normal(n_column, n_level),
        pressure=pressure,
        pressure_half=half,
        sst=sst,
        cos_zenith=(torch.cos(latitude) * noon).clamp(min=0.0),
        albedo=torch.full_like(sst, SURFACE_ALBEDO),
        co2_ppmv=torch.full_like(sst, co2_ppmv),
        latitude=latitude,
    )
    return columns.to(dtype)
