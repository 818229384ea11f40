"""The exact scheme: longwave and shortwave at chosen numbers of spectral points."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from apps.weather.physics.clouds import Clouds
from apps.weather.physics.columns import Columns, RadiationResult
from apps.weather.physics.radiation.longwave import ENTRIES_PER_CHUNK, Longwave
from apps.weather.physics.radiation.shortwave import Shortwave
from apps.weather.physics.thermodynamics import heating_from_net_flux

#: Spectral points that a setting may ask for: 128 are converged, more than this only takes time.
MOST_POINTS = 4096


class Radiation(Protocol):
    """Anything that turns columns into radiative heating and fluxes."""

    def __call__(self, columns: Columns) -> RadiationResult:
        """Give heating rates and fluxes."""


class ExactRadiation:
    """Two-stream radiation with any number of spectral points.

    Parameters
    ----------
    n_longwave : int
        Wavenumbers; 41 are Williams's, 128 are converged.
    n_shortwave : int
        Points of the solar spectrum, at least 8.
    clouds : Clouds
        Where the cloud water comes from.
    entries_per_chunk : int
        Layers x columns x points worked on at a time; the answer does not depend on it.
    """

    def __init__(
        self,
        n_longwave: int = 128,
        n_shortwave: int = 32,
        clouds: Clouds | None = None,
        *,
        entries_per_chunk: int = ENTRIES_PER_CHUNK,
    ) -> None:
        self.longwave = Longwave(n_longwave, entries_per_chunk)
        self.shortwave = Shortwave(n_shortwave, entries_per_chunk)
        self.clouds = clouds or Clouds()

    def __call__(self, columns: Columns) -> RadiationResult:
        """Heating rates and fluxes; the heating of a column is what it takes from the fluxes."""
        water = self.clouds.water_path(columns)
        net_up = self.longwave.net_up(columns, water)
        net_down = self.shortwave.net_down(columns, water)
        return result_from_fluxes(net_up, net_down, columns.pressure_half)


def result_from_fluxes(net_up: Tensor, net_down: Tensor, pressure_half: Tensor) -> RadiationResult:
    """Give the result from net fluxes, W/m2 [column, level + 1]: longwave up, shortwave down."""
    return RadiationResult(
        heating_lw=heating_from_net_flux(net_up, pressure_half),
        heating_sw=heating_from_net_flux(-net_down, pressure_half),
        toa_lw=net_up[:, 0],
        toa_sw=net_down[:, 0],
        surface_lw=-net_up[:, -1],
        surface_sw=net_down[:, -1],
    )
