"""All physics of a column in the order in which the model applies it."""

from __future__ import annotations

from apps.weather.physics.columns import Columns, RadiationResult, Tendencies
from apps.weather.physics.convection import Convection, condense
from apps.weather.physics.radiation import ExactRadiation, Radiation
from apps.weather.physics.surface import Surface


class Physics:
    """Radiation, surface and boundary layer, convection, condensation, one after the other.

    Parameters
    ----------
    radiation : Radiation
        Exact or learned.
    surface : Surface
    convection : Convection
    """

    def __init__(
        self,
        radiation: Radiation | None = None,
        surface: Surface | None = None,
        convection: Convection | None = None,
    ) -> None:
        self.radiation = radiation or ExactRadiation()
        self.surface = surface or Surface()
        self.convection = convection or Convection()

    def radiate(self, columns: Columns) -> RadiationResult:
        """Give radiative heating and fluxes; call it as rarely as its cost demands."""
        return self.radiation(columns)

    def tendencies(self, columns: Columns, dt: float, radiation: RadiationResult) -> Tendencies:
        """Give the rates of change that take the columns through `dt` seconds of physics.

        `dt` is the span over which the caller applies them (twice the time step in a leapfrog).
        """
        heated = columns.temperature + dt * (radiation.heating_lw + radiation.heating_sw)
        surface = self.surface.step(columns._replace(temperature=heated), dt)
        air = (columns.pressure, columns.pressure_half)
        convected = self.convection.step(surface.temperature, surface.humidity, *air, dt)
        rained = condense(convected.temperature, convected.humidity, *air, dt)
        return Tendencies(
            temperature=(rained.temperature - columns.temperature) / dt,
            humidity=(rained.humidity - columns.humidity) / dt,
            u=(surface.u - columns.u) / dt,
            v=(surface.v - columns.v) / dt,
            precipitation=convected.precipitation + rained.precipitation,
            evaporation=surface.evaporation,
            sensible_heat=surface.sensible_heat,
        )
