"""What physics reads and gives: columns of air, their tendencies, and what radiation did to them.

Axes everywhere: `column` is any flattening of the horizontal grid, `level` runs from the top
(0) to the ground (L - 1), half levels from the top of the atmosphere (0) to the surface (L).
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Columns(NamedTuple):
    """The state that physics sees, SI units, level 0 at the top.

    Attributes
    ----------
    temperature : Tensor [column, level]
        K.
    humidity : Tensor [column, level]
        Specific humidity, kg/kg.
    u, v : Tensor [column, level]
        Eastward and northward wind, m/s.
    pressure : Tensor [column, level]
        Pa, at the middle of the layers.
    pressure_half : Tensor [column, level + 1]
        Pa, at the interfaces: top of the atmosphere first, surface last.
    sst : Tensor [column]
        Surface temperature, K.
    cos_zenith : Tensor [column]
        Cosine of the sun's zenith angle; zero or less is night.
    albedo : Tensor [column]
        Shortwave albedo of the surface.
    co2_ppmv : Tensor [column]
        Carbon dioxide, parts per million by volume.
    latitude : Tensor [column]
        Radian.
    """

    temperature: Tensor
    humidity: Tensor
    u: Tensor
    v: Tensor
    pressure: Tensor
    pressure_half: Tensor
    sst: Tensor
    cos_zenith: Tensor
    albedo: Tensor
    co2_ppmv: Tensor
    latitude: Tensor

    def take(self, index: Tensor | slice) -> Columns:
        """Those columns alone."""
        return Columns(*(field[index] for field in self))

    def to(self, *args, **kwargs) -> Columns:
        """Every field in another dtype or on another device, as `Tensor.to`."""
        return Columns(*(field.to(*args, **kwargs) for field in self))


class Tendencies(NamedTuple):
    """Rates of change by physics, and the rain that reached the ground.

    Attributes
    ----------
    temperature : Tensor [column, level]
        K/s, radiation included.
    humidity : Tensor [column, level]
        kg/kg/s.
    u, v : Tensor [column, level]
        m/s2.
    precipitation, evaporation : Tensor [column]
        kg/m2/s.
    sensible_heat : Tensor [column]
        Turbulent flux from the surface into the air, W/m2.
    """

    temperature: Tensor
    humidity: Tensor
    u: Tensor
    v: Tensor
    precipitation: Tensor
    evaporation: Tensor
    sensible_heat: Tensor


class RadiationResult(NamedTuple):
    """Heating of each layer and the fluxes at both ends of the column.

    Attributes
    ----------
    heating_lw, heating_sw : Tensor [column, level]
        K/s.
    toa_lw : Tensor [column]
        Outgoing longwave radiation, W/m2, upward positive.
    toa_sw : Tensor [column]
        Net shortwave radiation at the top (absorbed by column and surface), W/m2.
    surface_lw, surface_sw : Tensor [column]
        Net radiation into the surface, W/m2, downward positive.
    """

    heating_lw: Tensor
    heating_sw: Tensor
    toa_lw: Tensor
    toa_sw: Tensor
    surface_lw: Tensor
    surface_sw: Tensor
