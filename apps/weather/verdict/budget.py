"""Where the energy of the air comes from and goes: every flux, the store, and what is left.

The air's moist energy is the integral of c_p T + L q + (u^2 + v^2) / 2 over its mass: with flat
ground the geopotential is in the first term (Lorenz 1967, The nature and theory of the general
circulation of the atmosphere, chapter V). It changes by the radiation at the top less that into
the surface, by the sensible heat, and by the latent heat of what evaporates; rain takes none
away. What the store gains beyond these fluxes is the model's own error, the residual.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from apps.weather.atmosphere import constants as c
from apps.weather.model import Model, ModelState

FLUXES = ("asr", "olr", "surface_radiation", "sensible_heat", "latent_heat")


def energy(model: Model, state: ModelState) -> dict[str, float]:
    """Give the global mean ``enthalpy``, ``kinetic`` and ``latent`` energy of the air, J/m2."""
    grid = model.equations.to_grid(state.levels.current)
    parts = {
        "enthalpy": c.HEAT_CAPACITY * grid.temperature.double(),
        "kinetic": 0.5 * (grid.u.double().square() + grid.v.double().square()),
        "latent": c.LATENT_HEAT * grid.humidity.double(),
    }
    depth = torch.as_tensor(model.levels.thickness, device=grid.u.device)
    mass = grid.surface_pressure.double() / c.GRAVITY
    return {name: float(model.grid.mean(mass * (part @ depth))) for name, part in parts.items()}


@dataclass
class EnergyBudget:
    """Sums the fluxes of a run; give it to `Model.run` as `observe`.

    The store is that between the first and the last state seen, so that a run of some days or
    more is needed: the leapfrog's two levels differ by a step's fluxes.
    """

    model: Model
    n_step: int = 0
    start: dict[str, float] = field(default_factory=dict)
    end: ModelState | None = None
    sums: dict[str, float] = field(default_factory=lambda: dict.fromkeys(FLUXES, 0.0))

    def __call__(self, state: ModelState) -> None:
        """Take account of one new state."""
        self.end = state
        if not self.start:
            self.start = energy(self.model, state)
            return
        assert state.evaporation is not None
        assert state.sensible_heat is not None
        mean, shape = self.model.grid.mean, (self.model.grid.n_lon, self.model.grid.n_lat)
        self.sums["sensible_heat"] += float(mean(state.sensible_heat))
        self.sums["latent_heat"] += c.LATENT_HEAT * float(mean(state.evaporation))
        if state.radiation is not None:
            r = state.radiation
            self.sums["asr"] += float(mean(r.toa_sw.view(shape)))
            self.sums["olr"] += float(mean(r.toa_lw.view(shape)))
            down = r.surface_lw + r.surface_sw
            self.sums["surface_radiation"] += float(mean(down.view(shape)))
        self.n_step += 1

    def close(self) -> dict[str, float]:
        """Give mean fluxes, gains of each store and the residual, W/m2.

        ``residual`` = ``stored`` - (asr - olr - surface_radiation + sensible_heat + latent_heat).
        """
        assert self.end is not None
        span = self.n_step * self.model.dt
        end = energy(self.model, self.end)
        out = {name: value / self.n_step for name, value in self.sums.items()}
        out |= {f"stored_{name}": (end[name] - self.start[name]) / span for name in end}
        out["stored"] = sum(out[f"stored_{name}"] for name in end)
        gained = out["asr"] - out["olr"] - out["surface_radiation"]
        out["residual"] = out["stored"] - (gained + out["sensible_heat"] + out["latent_heat"])
        return out
