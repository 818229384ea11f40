"""Forecasts with other radiation, scored against the exact scheme in a perfect model.

Truth is one long run. From each of several dates the model runs on with each scheme; the root
mean square error of upper-level temperature is area-weighted and averaged over dates before the
root (the WeatherBench convention). Three lines stand beside the schemes: persistence, the noise
floor (the exact scheme from a start disturbed by `NOISE_K`), and the exact scheme with fewer
spectral points. How fast the noise floor doubles says how hard the test is.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from apps.lab.progress import track
from apps.weather.atmosphere.constants import DAY_S
from apps.weather.model import Model, ModelState
from apps.weather.physics.columns import Columns, RadiationResult

NOISE_K = 1e-3
UPPER_SIGMA = 0.2
PERSISTENCE, NOISE_FLOOR = "persistence", "noise_floor"


@dataclass(frozen=True)
class Verification:
    """Scores by scheme and lead.

    Attributes
    ----------
    lead_day : list of int
        1, 2, ... days.
    t_upper_rmse_k : dict of str to list of float
        Per scheme, `persistence` and `noise_floor`, one value a lead, K.
    doubling_day : float
        Doubling time of the noise floor over these leads; infinite where it does not grow.
    upper_sigma : float
        Sigma of the level scored.
    cpu_s_per_day : dict of str to float
        CPU seconds of this process per simulated day, `truth` among them.
    """

    lead_day: list[int]
    t_upper_rmse_k: dict[str, list[float]]
    doubling_day: float
    upper_sigma: float
    cpu_s_per_day: dict[str, float] = field(default_factory=dict)

    def scores(self, name: str) -> dict[str, float]:
        """Give the metrics of one line as a record spells them, ``t_upper_rmse_k_day5``."""
        return {
            f"t_upper_rmse_k_day{lead}": value
            for lead, value in zip(self.lead_day, self.t_upper_rmse_k[name], strict=True)
        }

    def __str__(self) -> str:
        head = "T upper RMSE, K   " + "".join(f"  day {lead:<4d}" for lead in self.lead_day)
        rows = [
            f"{name:18s}" + "".join(f"{value:10.4f}" for value in values)
            for name, values in self.t_upper_rmse_k.items()
        ]
        tail = f"noise doubles in {self.doubling_day:.1f} days (sigma {self.upper_sigma:.2f})"
        return "\n".join([head, *rows, tail])


def verify(
    truth: Model,
    schemes: Mapping[str, Model],
    start: ModelState,
    *,
    n_date: int = 3,
    spacing_day: int = 5,
    lead_day: int = 5,
    seed: int = 0,
) -> Verification:
    """Score `schemes` against `truth` from `n_date` dates, `spacing_day` days apart.

    Parameters
    ----------
    truth : Model
        With the exact radiation.
    schemes : mapping of str to Model
        The same model with other radiation.
    start : ModelState
        First date; the truth runs on from here.
    seed : int
        Of the noise.
    """
    level = int(np.abs(truth.levels.full - UPPER_SIGMA).argmin())
    generator = torch.Generator().manual_seed(seed)
    cpu_s: dict[str, float] = {}
    n_run: dict[str, int] = {}

    def forward(name: str, model: Model, state: ModelState) -> ModelState:
        begun = time.process_time()
        state = model.run(state, DAY_S)
        cpu_s[name] = cpu_s.get(name, 0.0) + time.process_time() - begun
        n_run[name] = n_run.get(name, 0) + 1
        return state

    # A forecast starts with its own radiation, not with what the truth last computed.
    days = [start._replace(radiation=None)]
    for _ in track(range((n_date - 1) * spacing_day + lead_day), "truth"):
        days.append(forward("truth", truth, days[-1]))
    upper = [_upper(truth, state, level) for state in days]

    square: dict[str, np.ndarray] = {}

    def score(name: str, lead: int, field: Tensor, date: int) -> None:
        error = (field - upper[date + lead]).double().square()
        line = square.setdefault(name, np.zeros(lead_day))
        line[lead - 1] += float(truth.grid.mean(error)) / n_date

    models = {**schemes, NOISE_FLOOR: truth}
    for date in track(range(0, n_date * spacing_day, spacing_day), "dates"):
        for name, model in models.items():
            state = days[date]._replace(radiation=None)
            if name == NOISE_FLOOR:
                state = truth.perturbed(state, NOISE_K, generator)
            for lead in range(1, lead_day + 1):
                state = forward(name, model, state)
                score(name, lead, _upper(truth, state, level), date)
        for lead in range(1, lead_day + 1):
            score(PERSISTENCE, lead, upper[date], date)

    rmse = {name: [math.sqrt(x) for x in line] for name, line in square.items()}
    leads = list(range(1, lead_day + 1))
    return Verification(
        lead_day=leads,
        t_upper_rmse_k=rmse,
        doubling_day=doubling_time(leads, rmse[NOISE_FLOOR]),
        upper_sigma=float(truth.levels.full[level]),
        cpu_s_per_day={name: cpu_s[name] / n_run[name] for name in cpu_s},
    )


def _upper(model: Model, state: ModelState, level: int) -> Tensor:
    temperature = state.levels.current.temperature[..., level : level + 1]
    return model.transform.synthesise(temperature).squeeze(-1)


def doubling_time(time_day: list[int], error: list[float]) -> float:
    """Days in which `error` doubles, from a straight line through its logarithm."""
    if len(time_day) < 2:
        return math.inf
    slope = float(np.polyfit(time_day, np.log2(error), 1)[0])
    return 1.0 / slope if slope > 0 else math.inf


def radiation_cpu_s(
    radiation: Callable[[Columns], RadiationResult | None], columns: Columns, *, n_repeat: int = 5
) -> float:
    """Least CPU seconds of this process for one call on `columns`, after one unmeasured call."""
    with torch.no_grad():
        radiation(columns)
        times = []
        for _ in range(n_repeat):
            begun = time.process_time()
            radiation(columns)
            times.append(time.process_time() - begun)
    return min(times)
