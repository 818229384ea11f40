"""The weather model: spectral dynamics, column physics and the clock that couples them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from apps.weather.atmosphere import constants as c
from apps.weather.atmosphere.cases import isothermal_rest
from apps.weather.atmosphere.dynamics import GridForcing, PrimitiveEquations
from apps.weather.atmosphere.grid import GaussianGrid, parse_resolution
from apps.weather.atmosphere.levels import SigmaLevels
from apps.weather.atmosphere.spectral import HarmonicTransform
from apps.weather.atmosphere.state import GridState, State
from apps.weather.atmosphere.stepping import SemiImplicitLeapfrog, TimeLevels, start
from apps.weather.boundary import Boundary
from apps.weather.physics.columns import Columns, RadiationResult, Tendencies
from core.errors import ConfigError

# Seconds; each divides three hours and respects `stepping.longest_step`.
DEFAULT_STEP_S = {5: 3600.0, 10: 3600.0, 21: 2160.0, 31: 1800.0, 42: 1200.0, 63: 720.0}


class ColumnPhysics(Protocol):
    """What the model asks of a physics package; `Physics` and `HeldSuarez` answer."""

    def radiate(self, columns: Columns) -> Any:
        """Radiation of the columns, or None; called every `radiation_interval_s`."""
        ...

    def tendencies(self, columns: Columns, dt: float, radiation: Any) -> Tendencies:
        """Rates of change given the last radiation; called every step."""
        ...


class ModelState(NamedTuple):
    """All that the next step needs, and what the last one rained."""

    levels: TimeLevels
    time_s: float
    """Seconds since the model's midnight at the vernal equinox."""
    radiation: RadiationResult | None = None
    """The last radiation, kept until the next call."""
    precipitation: Tensor | None = None
    """Rate of the last step, kg m-2 s-1, [lon, lat]."""
    evaporation: Tensor | None = None
    """Rate of the last step, kg m-2 s-1, [lon, lat]."""
    sensible_heat: Tensor | None = None
    """Turbulent flux into the air in the last step, W m-2, [lon, lat]."""


class Model:
    """A global model at one resolution.

    Parameters
    ----------
    resolution : str
        Triangular truncation and number of levels, ``"T21L8"``.
    physics : ColumnPhysics, optional
        Without it the flow is adiabatic and frictionless.
    dt : float, optional
        Step in seconds; `DEFAULT_STEP_S` for the truncation without it.
    radiation_interval_s : float
        Seconds between radiation calls, a whole number of steps.
    boundary : Boundary, optional
        Sea surface, sun and carbon dioxide.
    levels : SigmaLevels, optional
        Equidistant Simmons-Burridge levels without it.
    surface_geopotential : Tensor, optional
        Of the ground, m2 s-2, [lon, lat]; flat without it.
    fix_mass : bool
        Hold the mean surface pressure at `constants.MEAN_PRESSURE`.
    dtype : torch.dtype
        float32 or float64. Tables are built in float64 either way.

    Raises
    ------
    ConfigError
        On an unknown resolution, a step beyond the advective limit, or an interval that is not a
        whole number of steps.

    Notes
    -----
    Physics acts at the previous leapfrog level (at the central one it is unstable). Humidity
    there is first made non-negative level by level without changing its global mass.
    """

    def __init__(
        self,
        resolution: str = "T21L8",
        *,
        physics: ColumnPhysics | None = None,
        dt: float | None = None,
        radiation_interval_s: float = 10800.0,
        boundary: Boundary | None = None,
        levels: SigmaLevels | None = None,
        surface_geopotential: Tensor | None = None,
        fix_mass: bool = True,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        truncation, n_level = parse_resolution(resolution)
        self.resolution, self.physics = resolution, physics
        self.grid = GaussianGrid(truncation)
        self.transform = HarmonicTransform(self.grid, dtype=dtype, device=device)
        self.levels = SigmaLevels.equidistant(n_level) if levels is None else levels
        if self.levels.n_level != n_level:
            raise ConfigError(
                f"Model: resolution {resolution} asks for {n_level} levels, but levels has "
                f"{self.levels.n_level}; make them agree"
            )
        self.equations = PrimitiveEquations(
            self.transform, self.levels, surface_geopotential=surface_geopotential
        )
        self.dt = DEFAULT_STEP_S[truncation] if dt is None else float(dt)
        self.stepper = SemiImplicitLeapfrog(self.equations, self.dt)
        self.radiation_interval_s = radiation_interval_s
        self.n_step_radiation = self.n_step(radiation_interval_s, "radiation_interval_s")
        self.boundary = Boundary() if boundary is None else boundary
        self.fix_mass = fix_mass
        tensor = self.transform.tensor
        shape = (self.grid.n_lon, self.grid.n_lat)
        self._sigma = tensor(self.levels.full)
        self._sigma_half = self.equations.half
        self._latitude = tensor(self.grid.latitude.expand(shape)).reshape(-1)
        self._longitude = tensor(self.grid.longitude.unsqueeze(1).expand(shape)).reshape(-1)
        self._area = tensor(self.grid.area_weight).reshape(-1, 1)

    def n_step(self, duration_s: float, who: str = "duration") -> int:
        """Count the steps in `duration_s`; ConfigError, with the nearest two, unless whole."""
        if not math.isfinite(duration_s):
            raise ConfigError(f"Model: {who} must be finite, got {duration_s} s")
        n = round(duration_s / self.dt)
        if n < 1 or abs(n * self.dt - duration_s) > 1e-6 * self.dt:
            below = int(duration_s // self.dt)
            raise ConfigError(
                f"Model: {who} of {duration_s:,.10g} s is not a whole number of {self.dt:,.10g} s "
                f"steps; nearest are {below * self.dt:,.10g} s and {(below + 1) * self.dt:,.10g} s"
            )
        return n

    # ---------------------------------------------------------------- states

    def initial(self, *, seed: int = 0, temperature: float = 280.0) -> ModelState:
        """Air at rest with a small random vorticity, from which a climate spins up."""
        state = isothermal_rest(
            self.equations,
            temperature=temperature,
            noise=5e-7,
            generator=torch.Generator().manual_seed(seed),
        )
        return ModelState(start(state), 0.0)

    def begin(self, state: State, time_s: float = 0.0) -> ModelState:
        """Make a model state whose two time levels are one given state."""
        return ModelState(start(state), time_s)

    def perturbed(
        self, state: ModelState, amplitude_k: float, generator: torch.Generator
    ) -> ModelState:
        """Add white noise of `amplitude_k` on the grid to the temperature of both time levels."""
        noise = torch.randn(
            self.grid.n_lon, self.grid.n_lat, self.levels.n_level, generator=generator
        )
        added = amplitude_k * self.transform.analyse(self.transform.tensor(noise))
        previous, current = (
            level._replace(temperature=level.temperature + added) for level in state.levels[:2]
        )
        levels = TimeLevels(previous, current, state.levels.n_step)
        return state._replace(levels=levels)

    # ---------------------------------------------------------------- coupling

    def columns(self, grid: GridState, time_s: float) -> Columns:
        """Give the columns that physics sees, [lon x lat, level], longitude outermost."""
        n = self.levels.n_level
        surface = grid.surface_pressure.reshape(-1, 1)
        sst, cos_zenith, albedo, co2 = self.boundary.at(time_s, self._longitude, self._latitude)
        return Columns(
            temperature=grid.temperature.reshape(-1, n),
            humidity=grid.humidity.reshape(-1, n),
            u=grid.u.reshape(-1, n),
            v=grid.v.reshape(-1, n),
            pressure=surface * self._sigma,
            pressure_half=surface * self._sigma_half,
            sst=sst,
            cos_zenith=cos_zenith,
            albedo=albedo,
            co2_ppmv=co2,
            latitude=self._latitude,
        )

    def filled(self, humidity: Tensor, surface_pressure: Tensor) -> Tensor:
        """Make humidity non-negative with the global mass of each level unchanged.

        Parameters
        ----------
        humidity : Tensor [column, level]
            kg/kg; what the harmonics of a sharp edge dip below nought is taken from the rest.
        surface_pressure : Tensor [column]
            Pa.
        """
        weight = self._area * surface_pressure.unsqueeze(1)
        positive = humidity.clamp(min=0.0)
        mass = (weight * humidity).sum(0).clamp(min=0.0)
        return positive * (mass / (weight * positive).sum(0).clamp(min=1e-30))

    def step(self, state: ModelState) -> ModelState:
        """Advance by `dt` seconds."""
        levels, forcing = state.levels, None
        radiation = state.radiation
        surface: tuple[Tensor | None, ...] = state[3:]
        if self.physics is not None:
            columns = self.columns(self.equations.to_grid(levels.previous), state.time_s)
            filled = self.filled(columns.humidity, columns.pressure_half[:, -1])
            interval = self.dt if levels.n_step == 0 else 2.0 * self.dt
            raw, columns = columns.humidity, columns._replace(humidity=filled)
            if radiation is None or levels.n_step % self.n_step_radiation == 0:
                radiation = self.physics.radiate(columns)
            rates = self.physics.tendencies(columns, interval, radiation)
            rate_q = rates.humidity + (filled - raw) / interval
            shape = (self.grid.n_lon, self.grid.n_lat, self.levels.n_level)
            forcing = GridForcing(
                *(rate.view(shape) for rate in (rates.u, rates.v, rates.temperature, rate_q))
            )
            fluxes = (rates.precipitation, rates.evaporation, rates.sensible_heat)
            surface = tuple(flux.view(shape[:2]) for flux in fluxes)
        explicit = self.equations.explicit(levels.current, forcing)
        levels = self.stepper.step(levels, explicit)
        if self.fix_mass:
            log_pressure = levels.current.log_pressure
            # mean of exp(x) as 1 + mean(x), a coefficient, + mean(exp(x) - 1 - x), in which the
            # transform's rounding of x counts x times: 1e-10 in float32 where exp(x) gives 1e-9
            x = self.transform.synthesise(log_pressure).double()
            mean = 1.0 + log_pressure[0, 0, 0].double() + self.grid.mean(x.expm1() - x)
            log_pressure[0, 0, 0] -= mean.log().to(log_pressure.dtype)
        return ModelState(levels, state.time_s + self.dt, radiation, *surface)

    def run(
        self,
        state: ModelState,
        duration_s: float,
        observe: Callable[[ModelState], None] | None = None,
    ) -> ModelState:
        """Advance by `duration_s`, a whole number of steps; `observe` sees each new state.

        Raises
        ------
        ConfigError
            If the duration is not a whole number of steps.
        DataError
            If the state stops being finite (looked at once a simulated day and at the end).
        """
        n = self.n_step(duration_s)
        per_day = max(1, round(c.DAY_S / self.dt))
        with torch.no_grad():
            for i in range(1, n + 1):
                state = self.step(state)
                if i % per_day == 0 or i == n:
                    state.levels.current.check_finite(f"Model.run, day {state.time_s / c.DAY_S:g}")
                if observe is not None:
                    observe(state)
        return state

    # ---------------------------------------------------------------- diagnostics

    def diagnose(self, state: ModelState) -> dict[str, float]:
        """Global means: temperature and its minimum (K), pressure (Pa), rain (mm/day), fluxes."""
        grid = self.equations.to_grid(state.levels.current)
        thickness = self.equations.thickness.double()
        out = {
            "mean_temperature_k": float(self.grid.mean(grid.temperature) @ thickness),
            "min_temperature_k": float(grid.temperature.min()),
            "max_wind_m_s": float((grid.u.square() + grid.v.square()).max().sqrt()),
            "mean_surface_pressure_pa": float(self.grid.mean(grid.surface_pressure)),
        }
        if state.precipitation is not None:
            rain = float(self.grid.mean(state.precipitation))
            out["precipitation_mm_per_day"] = rain * c.DAY_S
        if state.radiation is not None:
            shape = (self.grid.n_lon, self.grid.n_lat)
            out["olr_w_m2"] = float(self.grid.mean(state.radiation.toa_lw.view(shape)))
            out["asr_w_m2"] = float(self.grid.mean(state.radiation.toa_sw.view(shape)))
        return out
