"""A state on another truncation and other levels: how a finer model begins from a coarser one."""

from __future__ import annotations

import numpy as np
import torch

from apps.weather.atmosphere.levels import SigmaLevels
from apps.weather.atmosphere.state import State
from apps.weather.model import Model, ModelState


def level_weights(ours: SigmaLevels, theirs: SigmaLevels, *, extrapolate: bool) -> np.ndarray:
    """Weights of `ours` that give values at `theirs`, float64 [ours, theirs].

    Linear in ln sigma. Beyond the outermost levels the nearest value holds; with `extrapolate`
    the slope of the lowest two is carried down to levels below the lowest, as for temperature.
    """
    x, at = np.log(ours.full), np.log(theirs.full)
    low = (np.searchsorted(x, at, side="right") - 1).clip(0, ours.n_level - 2)
    share = (at - x[low]) / (x[low + 1] - x[low])
    share = share.clip(0.0, None if extrapolate else 1.0)
    weight = np.zeros((ours.n_level, theirs.n_level))
    column = np.arange(theirs.n_level)
    weight[low, column] = 1.0 - share
    weight[low + 1, column] = share
    return weight


def regrid(state: ModelState, ours: Model, theirs: Model) -> ModelState:
    """Begin `theirs` from the current fields of a state of `ours`, by a forward step.

    Harmonics that one truncation has and the other has not are nought or left out. Equal levels
    keep their values; others are interpolated (`level_weights`), and smaller scales and new levels
    take a week or two to find their own climate.
    """
    m, n = torch.triu_indices(*[1 + min(ours.grid.truncation, theirs.grid.truncation)] * 2)
    fields = []
    for name, field in state.levels.current._asdict().items():
        kept = field[:, m, n].double()
        if name != "log_pressure" and ours.levels.half != theirs.levels.half:
            weight = level_weights(ours.levels, theirs.levels, extrapolate=name == "temperature")
            kept = kept @ torch.from_numpy(weight).to(kept.device)
        new = theirs.transform.zeros(kept.shape[-1])
        new[:, m, n] = kept.to(new)
        fields.append(new)
    return theirs.begin(State(*fields), state.time_s)
