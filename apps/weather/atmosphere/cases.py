"""Initial states of published test cases, and the Held-Suarez forcing."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from apps.weather.atmosphere import constants as c
from apps.weather.atmosphere.dynamics import PrimitiveEquations
from apps.weather.atmosphere.grid import GaussianGrid
from apps.weather.atmosphere.state import GridState, State


def isothermal_rest(
    equations: PrimitiveEquations,
    *,
    temperature: float = 288.0,
    noise: float = 0.0,
    generator: torch.Generator | None = None,
) -> State:
    """Air at rest at one temperature, optionally with random vorticity of `noise` s-1.

    Keep `noise` below 1e-6 s-1: 1e-5 is already a wind of 160 m/s in the largest scales.
    """
    transform, n = equations.transform, equations.levels.n_level
    z = transform.zeros
    state = State(z(n), z(n), z(n), z(n), z(1))
    state.temperature[0, 0, 0] = temperature
    if noise > 0.0:
        drawn = torch.randn(*state.vorticity.shape[:3], 1, generator=generator, dtype=torch.float64)
        drawn[1, 0] = 0.0
        damped = drawn / (1.0 + transform.total_wavenumber).reshape(1, 1, -1, 1)
        state.vorticity.copy_(noise * transform.tensor(damped) * transform.mask)
        state.vorticity[:, 0, 0] = 0.0
    return state


def mountain(
    grid: GaussianGrid,
    height_m: float,
    *,
    latitude_degree: float = 30.0,
    longitude_degree: float = 90.0,
    radius_degree: float = 20.0,
) -> Tensor:
    """Surface geopotential of a lone cone, m2 s-2, float64 [lon, lat].

    Place and width are those of test case 5 of Williamson et al. 1992, but by distance on the
    sphere; the model keeps what its harmonics resolve.
    """
    longitude = grid.longitude.reshape(-1, 1) - math.radians(longitude_degree)
    latitude, there = grid.latitude.reshape(1, -1), math.radians(latitude_degree)
    cosine = latitude.sin() * math.sin(there) + latitude.cos() * math.cos(there) * longitude.cos()
    share = torch.arccos(cosine.clamp(-1.0, 1.0)) / math.radians(radius_degree)
    return c.GRAVITY * height_m * (1.0 - share).clamp(min=0.0)


def resting_over(equations: PrimitiveEquations, temperature: float = 288.0) -> State:
    """Isothermal air at rest over the equations' own ground, an exact steady state.

    ln p_s falls by surface geopotential / (R T); its mean is set so that the mean pressure is
    `constants.MEAN_PRESSURE`.
    """
    state = isothermal_rest(equations, temperature=temperature)
    if equations.surface_geopotential is not None:
        head = -equations.surface_geopotential / (c.GAS_CONSTANT * temperature)
        state.log_pressure.copy_(head)
        mean = equations.transform.grid.mean(equations.transform.synthesise(head).exp())
        state.log_pressure[0, 0, 0] -= mean.log().to(head.dtype)
    return state


def _grids(equations: PrimitiveEquations) -> tuple[Tensor, Tensor]:
    """Longitude and latitude [lon, lat, 1], radian, float64."""
    grid = equations.transform.grid
    longitude = grid.longitude.reshape(-1, 1, 1).expand(grid.n_lon, grid.n_lat, 1)
    latitude = grid.latitude.reshape(1, -1, 1).expand(grid.n_lon, grid.n_lat, 1)
    return longitude, latitude


def _barotropic(
    equations: PrimitiveEquations, u: Tensor, v: Tensor, head: Tensor, temperature: float
) -> State:
    """Isothermal air whose wind does not vary with height; `head` is the balanced R T ln p_s."""
    n = equations.levels.n_level
    log_pressure = head / (c.GAS_CONSTANT * temperature)
    weight = equations.transform.grid.mean(log_pressure.exp())
    pressure = c.MEAN_PRESSURE * log_pressure.exp() / weight
    fields = [field.expand(*field.shape[:2], n) for field in (u, v)]
    grid = GridState(
        fields[0],
        fields[1],
        torch.full_like(fields[0], temperature),
        torch.zeros_like(fields[0]),
        pressure.squeeze(-1),
    )
    dtype, device = equations.transform.dtype, equations.transform.device
    return equations.from_grid(GridState(*(field.to(device, dtype) for field in grid)))


def steady_zonal_flow(
    equations: PrimitiveEquations, *, speed: float = 20.0, temperature: float = 288.0
) -> State:
    """Solid-body westerlies in balance, an exact steady state.

    u = speed cos(lat) balances R T ln p_s = -(radius rotation speed + speed^2 / 2) sin^2(lat): test
    case 2 of Williamson et al. 1992 (J. Comput. Phys. 102, 211), carried to an isothermal column.
    """
    _, latitude = _grids(equations)
    u = speed * latitude.cos()
    drop = c.RADIUS * c.ROTATION * speed + 0.5 * speed**2
    return _barotropic(equations, u, torch.zeros_like(u), -drop * latitude.sin() ** 2, temperature)


def rossby_haurwitz(
    equations: PrimitiveEquations,
    *,
    wavenumber: int = 4,
    rate: float = 7.848e-6,
    temperature: float = 288.0,
) -> State:
    """Rossby-Haurwitz wave, test case 6 of Williamson et al. 1992, equal at every level.

    `rate` is both the zonal and the wave angular velocity (s-1); the balanced head is that of
    their equations 146-149 with R T ln p_s in the place of the geopotential.
    """
    longitude, latitude = _grids(equations)
    r, w, k = wavenumber, rate, rate
    cos, sin = latitude.cos(), latitude.sin()
    wave_cos, wave_sin = (r * longitude).cos(), (r * longitude).sin()
    u = c.RADIUS * (w * cos + k * cos ** (r - 1) * (r * sin**2 - cos**2) * wave_cos)
    v = -c.RADIUS * k * r * cos ** (r - 1) * sin * wave_sin
    square = cos**2
    zonal = 0.5 * w * (2.0 * c.ROTATION + w) * square + 0.25 * k**2 * square**r * (
        (r + 1) * square + (2 * r * r - r - 2) - 2 * r * r / square
    )
    single = (
        2.0 * (c.ROTATION + w) * k / ((r + 1) * (r + 2)) * cos**r
        * ((r * r + 2 * r + 2) - (r + 1) ** 2 * square)
    )  # fmt: skip
    double = 0.25 * k**2 * square**r * ((r + 1) * square - (r + 2))
    head = c.RADIUS**2 * (zonal + single * wave_cos + double * (2 * r * longitude).cos())
    return _barotropic(equations, u, v, head, temperature)


def rossby_haurwitz_speed(wavenumber: int = 4, rate: float = 7.848e-6) -> float:
    """Eastward angular phase speed of the non-divergent wave, rad/s (Williamson et al. 1992)."""
    r = wavenumber
    return (r * (3 + r) * rate - 2.0 * c.ROTATION) / ((1 + r) * (2 + r))
