"""The ocean surface, turbulent fluxes, and mixing of the boundary layer, solved implicitly."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from apps.weather.atmosphere.constants import (
    GAS_CONSTANT,
    GRAVITY,
    HEAT_CAPACITY,
    VIRTUAL,
)
from apps.weather.physics.columns import Columns
from apps.weather.physics.thermodynamics import height, layer_mass, saturation_humidity

SstShape = Literal["control", "qobs"]
MELTING_K = 273.15
ICE_EDGE = math.pi / 3
SURFACE_ALBEDO = 0.07
CALM_SHEAR_M_S = 1.0


def aquaplanet_sst(latitude: Tensor, shape: SstShape = "qobs", warming: float = 0.0) -> Tensor:
    """Sea surface temperature, K, of the aquaplanet experiment; `latitude` in radian.

    27 degrees C at the equator, freezing poleward of 60 degrees. Source: Neale and Hoskins 2000
    (Atmos. Sci. Lett. 1, 101), CONTROL and QOBS; `warming` is added everywhere.
    """
    s2 = torch.sin(1.5 * latitude) ** 2
    celsius = 27.0 * (1.0 - s2) if shape == "control" else 27.0 * (1.0 - 0.5 * (s2 + s2**2))
    inside = latitude.abs() < ICE_EDGE
    return MELTING_K + warming + torch.where(inside, celsius, torch.zeros_like(celsius))


class SurfaceStep(NamedTuple):
    """State after surface exchange and mixing, and the fluxes into the air.

    Attributes
    ----------
    temperature, humidity, u, v : Tensor [column, level]
        K, kg/kg, m/s, m/s.
    sensible_heat : Tensor [column]
        W/m2.
    evaporation : Tensor [column]
        kg/m2/s.
    """

    temperature: Tensor
    humidity: Tensor
    u: Tensor
    v: Tensor
    sensible_heat: Tensor
    evaporation: Tensor


@dataclass(frozen=True)
class Surface:
    """Bulk fluxes and boundary-layer diffusion.

    Dry static energy, humidity and both winds are mixed by one tridiagonal system per column
    whose lowest row exchanges with the surface, so that what the column gains is what the surface
    gives. The kinetic energy that mixing and drag take warms the layers on either side of the
    shear, and the lowest layer, by as much (about 2 W/m2).

    Parameters
    ----------
    exchange : float
        Coefficient of the bulk formulas for heat, vapour and momentum.
    gust : float
        m/s, added in quadrature to the lowest wind.
    diffusivity : float
        m2/s of an unstable boundary layer at the ground; falls to nought at sigma `depth_sigma`.
    depth_sigma : float
        Top of the boundary layer, share of surface pressure.
    critical_richardson : float
        Where the air is stable, mixing falls as (1 - Ri / `critical_richardson`)^2, Ri the
        gradient Richardson number of virtual dry static energy between neighbouring layers: the
        form and the value of Frierson, Held and Zurita-Gotor 2006 (J. Atmos. Sci. 63, 2548),
        whose Ri is that of the whole layer. Infinite for mixing that does not know stability.
    background : float
        Share of the mixing that no stability ends: what shallow clouds lift out of a layer that
        is a kilometre deep, tuned with `Clouds`.
    """

    exchange: float = 1.2e-3
    gust: float = 5.0
    diffusivity: float = 30.0
    depth_sigma: float = 0.7
    critical_richardson: float = 1.0
    background: float = 0.06

    def step(self, columns: Columns, dt: float) -> SurfaceStep:
        """Advance by `dt` seconds."""
        c = columns
        mass = layer_mass(c.pressure_half)
        z = height(c.temperature, c.humidity, c.pressure, c.pressure_half[:, -1])
        static = HEAT_CAPACITY * c.temperature + GRAVITY * z
        fields = torch.stack([static, c.humidity, c.u, c.v])  # [field, column, level]
        saturated = saturation_humidity(c.sst, c.pressure_half[:, -1])
        calm = torch.zeros_like(c.sst)
        surface = torch.stack([HEAT_CAPACITY * c.sst, saturated, calm, calm])

        virtual = c.temperature * (1.0 + VIRTUAL * c.humidity)
        speed = torch.sqrt(c.u[:, -1] ** 2 + c.v[:, -1] ** 2 + self.gust**2)
        density = c.pressure_half[:, -1] / (GAS_CONSTANT * virtual[:, -1])
        bulk = density * self.exchange * speed  # kg/m2/s

        inner = c.pressure_half[:, 1:-1]
        between = 0.5 * (virtual[:, 1:] + virtual[:, :-1])
        shape = (inner / c.pressure_half[:, -1:] - self.depth_sigma) / (1.0 - self.depth_sigma)
        shape = shape.clamp(min=0) * self.stability(richardson(c, virtual, z))
        mixing = self.diffusivity * shape * inner / (GAS_CONSTANT * between)
        mixing = mixing / (z[:, :-1] - z[:, 1:])  # kg/m2/s

        new = solve_exchange(fields, surface, mass, mixing, bulk, dt)
        flux = bulk * (surface - new[:, :, -1])
        # Kinetic energy lost at each interface: its stress times the shear of the mean wind.
        wind, mean = new[2:], 0.5 * (fields[2:] + new[2:])
        lost = 0.5 * mixing * (wind.diff(dim=2) * mean.diff(dim=2)).sum(0)
        drag = bulk[:, None] * (wind[:, :, -1:] * mean[:, :, -1:]).sum(0)
        friction = torch.cat([torch.zeros_like(drag), lost], 1) + torch.cat([lost, drag], 1)
        # Heat moves as static energy at fixed heights, so all of its change is cp dT.
        gained = new[0] - static + dt * friction / mass
        temperature = c.temperature + gained / HEAT_CAPACITY
        return SurfaceStep(temperature, new[1], new[2], new[3], flux[0], flux[1])

    def stability(self, number: Tensor) -> Tensor:
        """Share of the neutral mixing that is left at a Richardson number, `background` to 1."""
        left = (1.0 - number / self.critical_richardson).clamp(0.0, 1.0) ** 2
        return self.background + (1.0 - self.background) * left


def richardson(columns: Columns, virtual: Tensor, z: Tensor) -> Tensor:
    """Gradient Richardson number between neighbouring layers, [column, level - 1].

    Buoyancy over the shear of the wind, the latter no less than `CALM_SHEAR_M_S` between layers.

    Parameters
    ----------
    columns : Columns
    virtual, z : Tensor [column, level]
        Virtual temperature, K, and height, m.
    """
    static = HEAT_CAPACITY * virtual + GRAVITY * z
    depth, between = z[:, :-1] - z[:, 1:], 0.5 * (virtual[:, 1:] + virtual[:, :-1])
    shear = columns.u.diff(dim=1) ** 2 + columns.v.diff(dim=1) ** 2
    buoyancy = GRAVITY * depth * (static[:, :-1] - static[:, 1:]) / (HEAT_CAPACITY * between)
    return buoyancy / shear.clamp(min=CALM_SHEAR_M_S**2)


def solve_exchange(
    fields: Tensor, surface: Tensor, mass: Tensor, mixing: Tensor, bulk: Tensor, dt: float
) -> Tensor:
    """Backward Euler for layers that exchange with their neighbours and the lowest with a surface.

    Parameters
    ----------
    fields : Tensor [field, column, level]
        Before the step; `surface` [field, column] is what the lowest layer relaxes to.
    mass : Tensor [column, level]
        kg/m2.
    mixing : Tensor [column, level - 1]
        Exchange between neighbours, kg/m2/s.
    bulk : Tensor [column]
        Exchange with the surface, kg/m2/s.

    Returns
    -------
    Tensor [field, column, level]
        After `dt`. Sum of mass times field changes by exactly dt * bulk * (surface - lowest).
    """
    n_level = fields.shape[-1]
    lower = dt * torch.cat([mixing, bulk[:, None]], dim=1)  # towards the layer below
    upper = dt * torch.cat([torch.zeros_like(bulk)[:, None], mixing], dim=1)
    diagonal = mass + lower + upper
    right = mass * fields
    # Thomas algorithm, top to bottom and back.
    ratios: list[Tensor] = []
    values: list[Tensor] = []
    for k in range(n_level):
        pivot = diagonal[:, k] - (upper[:, k] * ratios[k - 1] if k else 0.0)
        carried = right[:, :, k] + (upper[:, k] * values[k - 1] if k else 0.0)
        ratios.append(lower[:, k] / pivot)
        values.append(carried / pivot)
    out = [values[-1] + ratios[-1] * surface]
    for k in reversed(range(n_level - 1)):
        out.append(values[k] + ratios[k] * out[-1])
    return torch.stack(out[::-1], dim=-1)
