"""The spun-up state that ships with the project, so that a demonstration need not spin up.

Made by `spin_up`; see data/samples/README.md.
"""

from __future__ import annotations

from pathlib import Path

from apps.weather.forecast.restart import begin_finer, load_state
from apps.weather.model import Model, ModelState

SAMPLE_FILE = Path(__file__).resolve().parents[3] / "data" / "samples" / "weather_t21l8.safetensors"
SPIN_UP_DAY = 240
TRUNCATION = 21


def load_sample(model: Model) -> ModelState:
    """Give the shipped state, T21L8 after `SPIN_UP_DAY` days from rest.

    A finer model on the same levels begins from it by a forward step; its smaller scales take a
    week or two to fill. Other levels and coarser grids are refused.
    """
    if model.grid.truncation == TRUNCATION:
        return load_state(SAMPLE_FILE, model)
    return begin_finer(SAMPLE_FILE, model)
