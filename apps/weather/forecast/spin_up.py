"""Make the sample state: ``python -m apps.weather.forecast.spin_up`` (see data/samples)."""

from __future__ import annotations

import sys

import torch

from apps.weather.atmosphere.constants import DAY_S
from apps.weather.forecast.restart import save_state
from apps.weather.forecast.sample import SAMPLE_FILE, SPIN_UP_DAY
from apps.weather.model import Model
from apps.weather.physics import ExactRadiation, Physics

SEED = 0
# Half the points that train a network: twice as many change the climate by less than its noise.
N_LONGWAVE, N_SHORTWAVE = 64, 32


def main() -> None:
    """Spin up from rest and write the sample."""
    torch.set_num_threads(1)
    model = Model("T21L8", physics=Physics(ExactRadiation(N_LONGWAVE, N_SHORTWAVE)))
    state = model.initial(seed=SEED)
    for day in range(10, SPIN_UP_DAY + 1, 10):
        state = model.run(state, 10 * DAY_S)
        print(day, {k: round(v, 2) for k, v in model.diagnose(state).items()}, file=sys.stderr)
    save_state(SAMPLE_FILE, model, state, note=f"{SPIN_UP_DAY} days from rest, seed {SEED}")


if __name__ == "__main__":
    main()
