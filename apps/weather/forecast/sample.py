"""The spun-up state that ships with the project, so that a demonstration need not spin up.

Made by ``python -m apps.weather.forecast.sample``: see data/samples/README.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from apps.weather.atmosphere.constants import DAY_S
from apps.weather.forecast.restart import load_state, save_state
from apps.weather.model import Model, ModelState
from apps.weather.physics import ExactRadiation, Physics

SAMPLE_FILE = Path(__file__).resolve().parents[3] / "data" / "samples" / "weather_t21l8.safetensors"
SPIN_UP_DAY = 240
SEED = 0
# The run of the sample: converged longwave would cost twice the time and change nothing here.
N_LONGWAVE, N_SHORTWAVE = 64, 32


def load_sample(model: Model) -> ModelState:
    """Give the shipped state (T21L8, `SPIN_UP_DAY` days from rest); other grids are refused."""
    return load_state(SAMPLE_FILE, model)


def main() -> None:
    """Spin up and write the sample."""
    torch.set_num_threads(1)
    model = Model("T21L8", physics=Physics(ExactRadiation(N_LONGWAVE, N_SHORTWAVE)))
    state = model.initial(seed=SEED)
    for day in range(10, SPIN_UP_DAY + 1, 10):
        state = model.run(state, 10 * DAY_S)
        print(day, {k: round(v, 2) for k, v in model.diagnose(state).items()}, file=sys.stderr)
    save_state(SAMPLE_FILE, model, state, note=f"{SPIN_UP_DAY} days from rest, seed {SEED}")


if __name__ == "__main__":
    main()
