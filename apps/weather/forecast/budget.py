"""Where the energy of the air comes from and goes: every flux, the store, and what is left.

The air's moist energy is the integral of c_p T + L q + (u^2 + v^2) / 2 over its mass, and of the
ground's geopotential: that of the air above the ground is in the first term (Lorenz 1967, The
nature and theory of the general circulation of the atmosphere, chapter V). It changes by the
radiation at the top less that into the surface, by the sensible heat, and by the latent heat of
what evaporates; rain takes none away. What the store gains beyond these fluxes is the model's own
error, the residual.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from apps.weather.atmosphere import constants as c
from apps.weather.model import Model, ModelState


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
    ground = model.equations.surface_geopotential
    if ground is not None:
        lifted = model.transform.synthesise(ground).double()
        parts["enthalpy"] = parts["enthalpy"] + lifted
    return {name: float(model.grid.mean(mass * (part @ depth))) for name, part in parts.items()}


def fluxes(model: Model, state: ModelState) -> dict[str, float]:
    """Give the global mean fluxes of the last step, W/m2; ``surface_radiation`` is into the sea."""
    assert state.evaporation is not None
    assert state.sensible_heat is not None
    mean, shape = model.grid.mean, (model.grid.n_lon, model.grid.n_lat)
    out = {
        "sensible_heat": float(mean(state.sensible_heat)),
        "latent_heat": c.LATENT_HEAT * float(mean(state.evaporation)),
    }
    r = state.radiation
    if r is not None:
        into_sea = r.surface_lw + r.surface_sw
        parts = {"asr": r.toa_sw, "olr": r.toa_lw, "surface_radiation": into_sea}
        out |= {name: float(mean(flux.view(shape))) for name, flux in parts.items()}
    return out


def gained(flux: Mapping[str, float]) -> float:
    """Give what the air gains by the fluxes, W/m2."""
    radiation = flux.get("asr", 0.0) - flux.get("olr", 0.0) - flux.get("surface_radiation", 0.0)
    return radiation + flux["sensible_heat"] + flux["latent_heat"]


@dataclass
class EnergyBudget:
    """Sums the fluxes of a run; give it to `Model.run` as `observe`.

    The store is that between the first and the last state seen: take some days or more, since the
    leapfrog's two levels differ by a step's fluxes.
    """

    model: Model
    n_step: int = 0
    start: dict[str, float] = field(default_factory=dict)
    end: ModelState | None = None
    sums: dict[str, float] = field(default_factory=dict)

    def __call__(self, state: ModelState) -> None:
        """Take account of one new state."""
        self.end = state
        if not self.start:
            self.start = energy(self.model, state)
            return
        for name, value in fluxes(self.model, state).items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.n_step += 1

    def saved(self) -> dict[str, Any]:
        """Give what a stopped run needs to go on summing, as JSON values."""
        return {"n_step": self.n_step, "sums": self.sums, "start": self.start}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from what `saved` gave; its keys are those."""
        self.n_step, self.sums, self.start = saved["n_step"], saved["sums"], saved["start"]

    def close(self) -> dict[str, float]:
        """Give mean fluxes, the gain of each store, and the residual, W/m2.

        ``residual`` = ``stored`` - `gained` (fluxes); empty before the second state.
        """
        if self.end is None or self.n_step == 0:
            return {}
        out = {name: value / self.n_step for name, value in self.sums.items()}
        expected, span = gained(out), self.n_step * self.model.dt
        store = energy(self.model, self.end)
        out |= {f"stored_{name}": (store[name] - self.start[name]) / span for name in store}
        out["stored"] = sum(out[f"stored_{name}"] for name in store)
        return out | {"residual": out["stored"] - expected}
