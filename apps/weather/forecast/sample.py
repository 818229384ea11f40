"""The spun-up states that ship with the project, so that a demonstration need not spin up.

Made by `spin_up`; see data/samples/README.md.
"""

from __future__ import annotations

from pathlib import Path

from apps.weather.forecast.regrid import regrid
from apps.weather.forecast.restart import load_state
from apps.weather.model import Model, ModelState

FOLDER = Path(__file__).resolve().parents[3] / "data" / "samples"
RESOLUTION = "T21L8"
SPIN_UP_DAY = 600
# Days that a sample of its own resolution ran after those of T21L8, from which it began.
FURTHER_DAY = {RESOLUTION: 0, "T31L10": 300}


def sample_file(resolution: str) -> Path:
    """Give the file a model of `resolution` begins from: its own, or that of T21L8."""
    name = resolution if resolution in FURTHER_DAY else RESOLUTION
    return FOLDER / f"weather_{name.lower()}.safetensors"


SAMPLE_FILE = sample_file(RESOLUTION)


def load_sample(model: Model) -> ModelState:
    """Give the shipped state, after `SPIN_UP_DAY` days from rest and `FURTHER_DAY` of its own.

    A model of another grid, other levels or another step begins from the fields of T21L8 by a
    forward step (`regrid`): smaller scales and other levels take a week or two to settle, the
    stratosphere some months.
    """
    if model.resolution in FURTHER_DAY:
        own = Model(model.resolution, dtype=model.transform.dtype)
        if (model.levels, model.dt) == (own.levels, own.dt):
            return load_state(sample_file(model.resolution), model)
    coarse = Model(RESOLUTION, dtype=model.transform.dtype)
    return regrid(load_state(SAMPLE_FILE, coarse), coarse, model)
