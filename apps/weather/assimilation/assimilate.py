"""The command's experiment: how good is a start made from observations, and what a basin is worth.

In a perfect model an ensemble follows a hidden truth through radiosondes, aircraft and a
satellite's swath. The 1944 question, after the forecast for the landing in Normandy that hung on
the few reports from the Atlantic: from some day on a second ensemble goes without any observation
over one ocean basin, and forecasts from both means are compared downstream of it.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from apps.lab.config import Config
from apps.lab.launch import resolve_device, start_run
from apps.lab.progress import track
from apps.lab.record import RECORD_FILE, Record, new_record, read_record, write_record
from apps.weather.assimilation.cycle import (
    Filter,
    Follow,
    by_kind,
    column_weight,
    fields_of,
    follow,
    state_of,
)
from apps.weather.assimilation.figures import error_figure, forecast_figure, rank_figure
from apps.weather.assimilation.kept import load_follow, save_follow
from apps.weather.assimilation.networks import aircraft, radiosondes, stations, swath
from apps.weather.assimilation.observations import (
    KINDS,
    ObservationOperator,
    Places,
    in_box,
    join,
)
from apps.weather.atmosphere.constants import DAY_S, HEAT_CAPACITY
from apps.weather.forecast.simulate import ModelConfig, first_state, run_data
from apps.weather.model import Model, ModelState
from apps.weather.verdict.metrics import box_weight, hours_lost
from core.errors import ConfigError

# South, north, west, east in degrees; the second adjoins the first on the side of the westerlies.
Box = tuple[float, float, float, float]
FULL, WITHHELD = "full_coverage", "basin_withheld"
_ROWS = (
    ("error / climate", "analysis_over_climate"),
    ("spread / skill", "spread_skill"),
)
_REFERENCE_K = 300.0  # of the energy norm
N_REPORT = 12  # of one flight
# Holds the ensembles on their way, until the record is written; kept every so many cycles.
KEPT_FOLDER = "ensembles"
_KEPT_EVERY = 4


class AssimilateConfig(Config):
    """Which ensemble, which observations, how long.

    Attributes
    ----------
    n_day, n_withheld_day : int
        Days of cycling with every observation; then days of the two ensembles side by side.
    forecast_day, forecast_every_day : int
        Length of the forecasts from both means, and days between them.
    member_spacing_day : int
        Days between the states of one free run that begin as members.
    n_station, n_flight : int
        Radiosonde stations, and flights a cycle; no more places in all than the grid has columns.
    use_swath : bool
        Whether the satellite flies.
    basin, downstream : tuple of float
        South, north, west, east (degrees) of what is withheld, and of where the loss is measured.
    """

    model: ModelConfig = ModelConfig(n_longwave=41, n_shortwave=16)
    start: str = "sample"
    n_member: int = Field(default=20, ge=3, le=200)
    member_spacing_day: int = Field(default=2, ge=1, le=360)
    cycle_h: float = Field(default=6.0, gt=0)
    n_day: int = Field(default=8, ge=1)
    n_withheld_day: int = Field(default=6, ge=1)
    forecast_day: int = Field(default=5, ge=1)
    forecast_every_day: int = Field(default=1, ge=1)
    n_station: int = Field(default=150, ge=2)
    n_flight: int = Field(default=12, ge=0)
    use_swath: bool = True
    radius_km: float = Field(default=3000.0, gt=0)
    inflation: float = Field(default=1.0, ge=1.0, le=10.0)
    relaxation: float = Field(default=0.7, ge=0.0, le=1.0)
    basin: Box = (-60.0, 60.0, 150.0, 240.0)
    downstream: Box = (-60.0, 60.0, 240.0, 330.0)


class Experiment(NamedTuple):
    """What both ensembles have in common.

    Attributes
    ----------
    members : list of ModelState
        Drawn from the climate, one cycle before the first analysis.
    truth : list of ModelState
        At every analysis, and on to the end of the last forecast.
    observed : list of (Places, Tensor)
        One for each analysis.
    spread : dict of str to float
        Climatological standard deviation over the globe of each quantity that varies.
    """

    members: list[ModelState]
    truth: list[ModelState]
    observed: list[tuple[Places, Tensor]]
    spread: dict[str, float]


def check(config: AssimilateConfig, model: Model) -> None:
    """Raise ConfigError unless days hold whole cycles, a forecast begins, and the grid has room.

    Time and memory of an analysis grow with columns times places, and a grid tells no more places
    apart than it has columns.
    """
    model.n_step(3600.0 * config.cycle_h, "cycle_h")
    if not (24.0 / config.cycle_h).is_integer():
        raise ConfigError(
            f"assimilate: cycle_h must divide the 24 hours of a day, got {config.cycle_h:g}; take 6"
        )
    if config.forecast_every_day > config.n_withheld_day:
        raise ConfigError(
            f"assimilate: forecasts every {config.forecast_every_day} days begin on none of the "
            f"{config.n_withheld_day} days side by side; lower forecast_every_day"
        )
    n_column = model.grid.n_lon * model.grid.n_lat
    n_place = config.n_station + N_REPORT * config.n_flight
    if n_place > n_column:
        raise ConfigError(
            f"assimilate: {config.n_station:,} stations and {config.n_flight:,} flights of "
            f"{N_REPORT} reports are {n_place:,} places, more than the {n_column:,} columns of "
            f"{config.model.resolution}; lower n_station or n_flight, or raise model.resolution"
        )


def prepare(config: AssimilateConfig, model: Model, seed: int) -> Experiment:
    """Draw the members from a free run, then let it run on as the truth and observe it."""
    state, members = first_state(model, config.start, seed), []
    for _ in track(range(config.n_member), "members"):
        state = model.run(state, config.member_spacing_day * DAY_S)
        members.append(state)
    # far enough on to be no neighbour of the last member
    state = model.run(state, 10 * DAY_S)
    members = [member._replace(time_s=state.time_s, radiation=None) for member in members]

    climate = torch.stack([fields_of(model, member) for member in members])
    shape = (len(members), model.grid.n_lon, model.grid.n_lat, -1)
    mean = climate.view(shape).mean((0, 1), keepdim=True)
    variance = (climate.view(shape) - mean).square().mean(0).flatten(0, 1)
    spread = _global(model, variance)

    generator = torch.Generator().manual_seed(seed)
    levels = torch.from_numpy(model.levels.full.copy())
    where = stations(config.n_station, generator)
    fixed = radiosondes(where, levels)
    cycle_s = 3600.0 * config.cycle_h
    n_cycle = round((config.n_day + config.n_withheld_day) * DAY_S / cycle_s)
    n_beyond = round(config.forecast_day * DAY_S / cycle_s)
    truth, observed = [], []
    for i in track(range(n_cycle + n_beyond), "truth, cycles"):
        state = model.run(state, cycle_s)
        truth.append(state)
        if i >= n_cycle:
            continue
        networks = [fixed, aircraft(where, config.n_flight, N_REPORT, generator)]
        if config.use_swath:
            networks.append(swath(state.time_s, cycle_s, levels[1::2]))
        places = join(networks)
        shown = ObservationOperator(model, places)(fields_of(model, state).unsqueeze(0))[0]
        noise = torch.randn(len(shown), generator=generator, dtype=torch.float64)
        observed.append((places, shown + places.error * noise))
    return Experiment(members, truth, observed, spread)


def _global(model: Model, variance: Tensor) -> dict[str, float]:
    """Root of the global mean of a variance [column, K], by quantity."""
    area = column_weight(model).unsqueeze(-1)
    depth = torch.from_numpy(model.levels.thickness.copy())
    return {
        name: float((area * (depth if part.shape[-1] > 1 else 1.0) * part).sum().sqrt())
        for name, part in by_kind(model, variance).items()
        if bool((part > 0.0).any())
    }


def withhold(observed: Sequence[tuple[Places, Tensor]], box: Box) -> list[tuple[Places, Tensor]]:
    """Leave out every observation in a box."""
    out = []
    for places, value in observed:
        kept = torch.nonzero(~in_box(places, *box)).squeeze(1)
        out.append((places.take(kept), value[kept]))
    return out


def forecast_errors(
    config: AssimilateConfig, model: Model, experiment: Experiment, means: Sequence[Tensor]
) -> np.ndarray:
    """Give the energy error downstream, m/s [lead], leads from nought by one cycle.

    Each forecast starts from a mean analysis of the days side by side. The error of wind and
    temperature is that of their energy, sqrt(u'^2 + v'^2 + c_p/T_r T'^2) in m/s with T_r = 300 K
    (Talagrand 1981, Tellus 33, 43, in its dry form without the pressure term).
    """
    cycle_s = 3600.0 * config.cycle_h
    first = round(config.n_day * DAY_S / cycle_s)
    every = round(config.forecast_every_day * DAY_S / cycle_s)
    n_lead = round(config.forecast_day * DAY_S / cycle_s)
    box = torch.from_numpy(box_weight(model.grid, *config.downstream)).T.reshape(-1, 1)
    weight = box * torch.from_numpy(model.levels.thickness.copy())
    square, starts = np.zeros(n_lead + 1), range(every - 1, len(means), every)
    for i in track(starts, "forecasts", len(starts)):
        at = first + i
        state = state_of(model, means[i], experiment.truth[at].time_s)
        for lead in range(n_lead + 1):
            if lead > 0:
                state = model.run(state, cycle_s)
            true = fields_of(model, experiment.truth[at + lead])
            error = by_kind(model, (fields_of(model, state) - true).square())
            energy = error["u"] + error["v"] + HEAT_CAPACITY / _REFERENCE_K * error["temperature"]
            square[lead] += float((weight * energy).sum()) / len(starts)
    return np.sqrt(square)


class Answer(NamedTuple):
    """What the experiment found."""

    spun_up: Follow
    full: Follow
    withheld: Follow
    lead_h: np.ndarray
    error_full: np.ndarray
    error_withheld: np.ndarray
    lost_h: np.ndarray


def answer(
    config: AssimilateConfig, model: Model, experiment: Experiment, folder: Path | None = None
) -> Answer:
    """Cycle, fork, forecast; see `Answer`. What `folder` holds of a stopped run is not redone."""
    cycle_s = 3600.0 * config.cycle_h
    n_first = round(config.n_day * DAY_S / cycle_s)
    settings = Filter(1e3 * config.radius_km, config.inflation, config.relaxation)
    truth = [fields_of(model, state) for state in experiment.truth[: len(experiment.observed)]]

    def cycled(name, members, label, begin, end, observed) -> Follow:
        path, n_cycle = folder and folder / f"{name}.safetensors", end - begin
        begun = load_follow(path) if path and path.exists() else None

        def keep(done: Follow) -> None:
            if path and (len(done.history) % _KEPT_EVERY == 0 or len(done.history) == n_cycle):
                path.parent.mkdir(exist_ok=True)
                save_follow(path, done)

        progress = functools.partial(
            track, label=label, total=n_cycle - (len(begun.history) if begun else 0)
        )
        return follow(
            model, members, truth[begin:end], observed, settings, cycle_s=cycle_s,
            progress=progress, begun=begun, keep=keep,
        )  # fmt: skip

    n = len(truth)
    observed = experiment.observed
    spun_up = cycled(
        "spin_up", experiment.members, "spin-up, cycles", 0, n_first, observed[:n_first]
    )
    rest = observed[n_first:]
    full = cycled(FULL, spun_up.members, "full coverage, cycles", n_first, n, rest)
    without = withhold(rest, config.basin)
    withheld = cycled(WITHHELD, spun_up.members, "basin withheld, cycles", n_first, n, without)
    one, other = (forecast_errors(config, model, experiment, arm.means) for arm in (full, withheld))
    lead_h = config.cycle_h * np.arange(len(one))
    return Answer(spun_up, full, withheld, lead_h, one, other, hours_lost(lead_h, one, other))


def run(
    config: AssimilateConfig,
    *,
    out: Path,
    seed: int = 0,
    device: str = "auto",
    resume: bool = False,
) -> tuple[Record, str]:
    """Run the experiment in the folder `out`; write record and figures, give a table.

    With `resume` a run that was stopped goes on from the last ensembles it kept, to the same bits:
    truth and observations are made again, the cycles that are done are not.
    """
    model = config.model.build(resolve_device(device))
    check(config, model)
    for box in (config.basin, config.downstream):
        box_weight(model.grid, *box)
    with start_run(
        out,
        config,
        seed=seed,
        device=device,
        resume=resume,
        command="weather assimilate",
        application="weather",
    ) as folder:
        kept = folder.dir / KEPT_FOLDER
        if folder.resumed and (folder.dir / RECORD_FILE).exists() and not kept.exists():
            record = read_record(folder.dir)
            return record, table(record)
        experiment = prepare(config, model, seed)
        found = answer(config, model, experiment, kept)
        arms = {FULL: found.full, WITHHELD: found.withheld}
        scores = {name: _summary(arm, experiment.spread) for name, arm in arms.items()}
        middle = len(found.lead_h) // 2
        for name, error in ((FULL, found.error_full), (WITHHELD, found.error_withheld)):
            scores[name]["downstream_error_m_s"] = float(error[middle])
        scores[WITHHELD]["downstream_lead_h"] = float(found.lead_h[middle])
        scores[WITHHELD]["hours_lost_downstream"] = float(found.lost_h[middle])
        record = new_record(
            application="weather",
            command="weather assimilate",
            config=config,
            seed=seed,
            device=folder.device,
            data=run_data(config, config.start, len(found.full.history), "analysis"),
            accuracy={"test": scores[FULL]},
            baselines={WITHHELD: {"test": scores[WITHHELD]}},
            figures=[
                error_figure(folder.dir, found, experiment.spread),
                rank_figure(folder.dir, found),
                forecast_figure(folder.dir, found),
            ],
            history=found.spun_up.history + found.full.history,
        )
        write_record(folder.dir, record)
        shutil.rmtree(kept)
    return record, table(record)


def _summary(arm: Follow, spread: dict[str, float]) -> dict[str, float]:
    """Means over the cycles: error of the analysis over the climatological spread, and others."""

    def mean(key: str) -> float:
        return float(np.mean([row[key] for row in arm.history]))

    out = {}
    for kind in spread:
        out[f"{kind}_analysis_over_climate"] = mean(f"{kind}_analysis_rmse") / spread[kind]
        out[f"{kind}_background_over_climate"] = mean(f"{kind}_background_rmse") / spread[kind]
        out[f"{kind}_spread_skill"] = mean(f"{kind}_spread_skill")
        out[f"{kind}_crps"] = mean(f"{kind}_crps")
    return out


def table(record: Record) -> str:
    """Spell the answer for a reader."""
    withheld = record.baselines[WITHHELD]["test"]
    scores = {FULL: record.accuracy["test"], WITHHELD: withheld}
    head = f"{'':32s}" + "".join(f"{name.replace('_', ' '):>18s}" for name in scores)
    rows = [
        f"{kind.replace('_', ' ') + ', ' + label:32s}"
        + "".join(f"{values[f'{kind}_{key}']:18.3f}" for values in scores.values())
        for kind in KINDS
        if f"{kind}_spread_skill" in scores[FULL]
        for label, key in _ROWS
    ]
    errors = [values["downstream_error_m_s"] for values in scores.values()]
    tail = f"downstream at {withheld['downstream_lead_h']:.0f} h: {errors[0]:.2f} m/s, "
    tail += f"without the basin {errors[1]:.2f}; "
    lost = withheld["hours_lost_downstream"]
    if lost is None or np.isnan(lost):
        tail += "without it the forecast starts worse than that"
    else:
        tail += f"without it that error comes {lost:.1f} h sooner"
    return "\n".join([head, *rows, tail])
