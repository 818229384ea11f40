"""Make a sample state: ``python -m apps.weather.forecast.spin_up T21L8`` (see data/samples)."""

from __future__ import annotations

import sys

import torch

from apps.weather.atmosphere.constants import DAY_S
from apps.weather.forecast.regrid import regrid
from apps.weather.forecast.restart import load_state, save_state
from apps.weather.forecast.sample import (
    FURTHER_DAY,
    RESOLUTION,
    SAMPLE_FILE,
    SPIN_UP_DAY,
    sample_file,
)
from apps.weather.model import Model
from apps.weather.physics import ExactRadiation, Physics

SEED = 0
# Half the points that train a network: twice as many change the climate by less than its noise.
N_LONGWAVE, N_SHORTWAVE = 64, 32


def main(resolution: str = RESOLUTION) -> None:
    """Spin up from rest, or go on from the sample of `RESOLUTION`, and write the sample."""
    torch.set_num_threads(1)
    model = Model(resolution, physics=Physics(ExactRadiation(N_LONGWAVE, N_SHORTWAVE)))
    state, n_day = model.initial(seed=SEED), SPIN_UP_DAY
    note = f"{SPIN_UP_DAY} days from rest, seed {SEED}"
    if resolution != RESOLUTION:
        coarse, n_day = Model(RESOLUTION), FURTHER_DAY[resolution]
        state = regrid(load_state(SAMPLE_FILE, coarse), coarse, model)
        note = f"{n_day} days from that of {RESOLUTION}, {note}"
    for day in range(10, n_day + 1, 10):
        state = model.run(state, 10 * DAY_S)
        print(day, {k: round(v, 2) for k, v in model.diagnose(state).items()}, file=sys.stderr)
    save_state(sample_file(resolution), model, state, note=note)


if __name__ == "__main__":
    main(*sys.argv[1:])
