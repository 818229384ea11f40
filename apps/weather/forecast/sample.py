"""The spun-up state that ships with the project, so that a demonstration need not spin up.

Made by `spin_up`; see data/samples/README.md.
"""

from __future__ import annotations

from pathlib import Path

from apps.weather.forecast.regrid import regrid
from apps.weather.forecast.restart import load_state
from apps.weather.model import Model, ModelState

SAMPLE_FILE = Path(__file__).resolve().parents[3] / "data" / "samples" / "weather_t21l8.safetensors"
SPIN_UP_DAY = 600
RESOLUTION = "T21L8"


def load_sample(model: Model) -> ModelState:
    """Give the shipped state, T21L8 after `SPIN_UP_DAY` days from rest.

    A model of another grid, other levels or another step begins from its fields by a forward step
    (`regrid`): smaller scales and other levels take a week or two to settle.
    """
    own = Model(RESOLUTION, dtype=model.transform.dtype)
    if (model.grid, model.levels, model.dt) == (own.grid, own.levels, own.dt):
        return load_state(SAMPLE_FILE, model)
    return regrid(load_state(SAMPLE_FILE, own), own, model)
