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
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from apps.lab.checkpoint import load_checkpoint, save_checkpoint
from apps.lab.line import fit_line
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


@dataclass(frozen=True)
class Truth:
    """The run that schemes are scored against, and the lines that need no scheme to be known.

    Attributes
    ----------
    model : Model
    dates : dict of int to ModelState
        The state at each date, by day since the start.
    upper : list of Tensor
        Temperature [lon, lat] at `level`, day by day.
    level : int
    lead_day : int
    lines : dict of str to list of float
        RMSE by lead of `persistence`, `noise_floor` and what else was asked for, K.
    cpu_s_per_day : dict of str to float
    """

    model: Model
    dates: dict[int, ModelState]
    upper: list[Tensor]
    level: int
    lead_day: int
    lines: dict[str, list[float]] = field(default_factory=dict)
    cpu_s_per_day: dict[str, float] = field(default_factory=dict)


def make_truth(
    model: Model,
    start: ModelState,
    *,
    others: Mapping[str, Model] | None = None,
    n_date: int = 3,
    spacing_day: int = 5,
    lead_day: int = 5,
    seed: int = 0,
    kept: Path | None = None,
) -> Truth:
    """Run the truth on from `start` and score persistence, the noise floor and `others` on it.

    Parameters
    ----------
    model : Model
        With the exact radiation.
    start : ModelState
        First of `n_date` dates, which lie `spacing_day` days apart.
    seed : int
        Of the noise.
    kept : Path, optional
        File of the lines that a stopped run had scored, which are read from there; the others are
        added to it.
    """
    level = int(np.abs(model.levels.full - UPPER_SIGMA).argmin())
    # A forecast starts with its own radiation, not with what the truth last computed.
    state = start._replace(radiation=None)
    upper, dates = [_upper(model, state, level)], {0: state}
    n_day = (n_date - 1) * spacing_day + lead_day
    begun = time.process_time()
    for day in track(range(1, n_day + 1), "truth, days"):
        state = model.run(state, DAY_S)
        upper.append(_upper(model, state, level))
        if day % spacing_day == 0 and day < n_date * spacing_day:
            dates[day] = state._replace(radiation=None)
    truth = Truth(model, dates, upper, level, lead_day)
    truth.cpu_s_per_day["truth"] = (time.process_time() - begun) / n_day

    square = np.zeros(lead_day)
    for day in dates:
        errors = [upper[day + lead] - upper[day] for lead in range(1, lead_day + 1)]
        square += [float(model.grid.mean(error.square())) / len(dates) for error in errors]
    truth.lines[PERSISTENCE] = np.sqrt(square).tolist()

    generator = torch.Generator().manual_seed(seed)
    disturbed = {day: model.perturbed(state, NOISE_K, generator) for day, state in dates.items()}
    _score(truth, NOISE_FLOOR, model, disturbed, kept)
    for name, other in (others or {}).items():
        _score(truth, name, other, dates, kept)
    return truth


def _score(
    truth: Truth,
    name: str,
    model: Model,
    starts: Mapping[int, ModelState],
    kept: Path | None,
) -> None:
    done = load_checkpoint(kept)[1] if kept and kept.exists() else {}
    if name in done:
        truth.lines[name], truth.cpu_s_per_day[name] = done[name]
        return
    square = np.zeros(truth.lead_day)
    begun = time.process_time()
    for day, state in track(starts.items(), name, len(starts)):
        for lead in range(truth.lead_day):
            state = model.run(state, DAY_S)
            error = _upper(model, state, truth.level) - truth.upper[day + lead + 1]
            square[lead] += float(model.grid.mean(error.square())) / len(starts)
    truth.lines[name] = np.sqrt(square).tolist()
    n_day = len(starts) * truth.lead_day
    truth.cpu_s_per_day[name] = (time.process_time() - begun) / n_day
    if kept:
        done[name] = [truth.lines[name], truth.cpu_s_per_day[name]]
        save_checkpoint(kept, {}, done)


def score_forecasts(
    truth: Truth, schemes: Mapping[str, Model], kept: Path | None = None
) -> Verification:
    """Score `schemes`, the truth's model with other radiation, from the dates of `truth`.

    `kept` is as for `make_truth`.
    """
    found = replace(truth, lines=dict(truth.lines), cpu_s_per_day=dict(truth.cpu_s_per_day))
    for name, model in schemes.items():
        _score(found, name, model, truth.dates, kept)
    leads = list(range(1, truth.lead_day + 1))
    return Verification(
        lead_day=leads,
        t_upper_rmse_k={**{name: found.lines[name] for name in schemes}, **found.lines},
        doubling_day=doubling_time(leads, found.lines[NOISE_FLOOR]),
        upper_sigma=float(truth.model.levels.full[truth.level]),
        cpu_s_per_day=found.cpu_s_per_day,
    )


def _upper(model: Model, state: ModelState, level: int) -> Tensor:
    temperature = state.levels.current.temperature[..., level : level + 1]
    return model.transform.synthesise(temperature).squeeze(-1)


def doubling_time(time_day: list[int], error: list[float]) -> float:
    """Days in which `error` doubles, from a straight line through its logarithm."""
    if len(time_day) < 2:
        return math.inf
    slope = fit_line(time_day, np.log2(error))[0]
    return 1.0 / slope if slope > 0 else math.inf


def radiation_cpu_s(
    radiation: Callable[[Columns], RadiationResult | None], columns: Columns, *, n_repeat: int = 5
) -> float:
    """Least CPU seconds of one call on `columns`, on one thread, after one unmeasured call.

    By the clock of the thread: that of the process counts in ticks under a limit on CPU time.
    """
    n_thread = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            radiation(columns)
            times = []
            for _ in range(n_repeat):
                begun = time.thread_time()
                radiation(columns)
                times.append(time.thread_time() - begun)
    finally:
        torch.set_num_threads(n_thread)
    return min(times)
