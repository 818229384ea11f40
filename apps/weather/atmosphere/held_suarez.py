"""The dry forcing of Held and Suarez 1994 (Bull. Amer. Meteor. Soc. 75, 1825), their section 2."""

from __future__ import annotations

import torch

from apps.weather.atmosphere import constants as c
from apps.weather.physics.columns import Columns, RadiationResult, Tendencies

_REFERENCE_PRESSURE = 1.0e5  # Pa
_BOUNDARY_LAYER = 0.7  # sigma
_FRICTION = 1.0 / c.DAY_S
_COOLING_ALOFT = 1.0 / (40.0 * c.DAY_S)
_COOLING_SURFACE = 1.0 / (4.0 * c.DAY_S)


class HeldSuarez:
    """Newtonian cooling to a radiative equilibrium and Rayleigh drag near the ground."""

    def radiate(self, columns: Columns) -> RadiationResult | None:
        """Nothing: the cooling is part of the tendencies."""
        return None

    def tendencies(
        self, columns: Columns, dt: float, radiation: RadiationResult | None
    ) -> Tendencies:
        """Rates per second for [column, level]; dry and without surface fluxes."""
        sin2 = columns.latitude.sin().square().unsqueeze(-1)
        cos2 = 1.0 - sin2
        exner_log = (columns.pressure / _REFERENCE_PRESSURE).log()
        equilibrium = (315.0 - 60.0 * sin2 - 10.0 * exner_log * cos2) * (c.KAPPA * exner_log).exp()
        sigma = columns.pressure / columns.pressure_half[:, -1:]
        low = ((sigma - _BOUNDARY_LAYER) / (1.0 - _BOUNDARY_LAYER)).clamp(min=0.0)
        rate = _COOLING_ALOFT + (_COOLING_SURFACE - _COOLING_ALOFT) * low * cos2.square()
        none = torch.zeros_like(columns.sst)
        return Tendencies(
            temperature=rate * (equilibrium.clamp(min=200.0) - columns.temperature),
            humidity=torch.zeros_like(columns.humidity),
            u=-_FRICTION * low * columns.u,
            v=-_FRICTION * low * columns.v,
            precipitation=none,
            evaporation=none,
            sensible_heat=none,
        )
