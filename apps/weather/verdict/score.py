"""The scorecard: a learned scheme against the exact one, by variable, region and lead.

Truth is one long run of the exact scheme. From each date the model runs on with every scheme.
Beside the learned scheme stand persistence, climatology, the exact scheme with fewer spectral
points, the exact scheme called less often, and the noise floor (the exact scheme from a start
disturbed by 0.001 K). Since nobody's start is perfect, the exact and the learned scheme also run
from a start in error by `analysis_error` climatological spreads, in a balanced pattern: the
scaled difference of two states of another time. Between these two, "hours of skill
lost" says how much earlier the learned forecast is as wrong as the exact one.

Several networks may be judged against one truth: the first is the one that the scorecard and the
record's headline are about, the others stand beside it.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from pydantic import Field

from apps.lab.checkpoint import load_checkpoint, save_checkpoint
from apps.lab.config import Config
from apps.lab.launch import Run, resolve_device, start_run
from apps.lab.progress import track
from apps.lab.record import Record, new_record, write_record
from apps.lab.variant import Variant
from apps.weather.atmosphere.constants import DAY_S
from apps.weather.forecast.forecast import COARSE, LEARNED, at_home, check_moist, with_radiation
from apps.weather.forecast.simulate import ModelConfig, first_state, run_data
from apps.weather.forecast.verify import NOISE_FLOOR, NOISE_K, PERSISTENCE
from apps.weather.learned import LearnedRadiation, load_emulator
from apps.weather.model import Model, ModelState
from apps.weather.physics import MOST_POINTS, ExactRadiation, Radiation
from apps.weather.verdict.card import (
    EXACT_ANALYSIS,
    FROM_ANALYSIS,
    doubling_day,
    headline,
    scorecard,
    surely_better,
    table,
)
from apps.weather.verdict.ensemble import balanced_error
from apps.weather.verdict.fields import judged_fields
from apps.weather.verdict.figures import error_figure, map_figure, scorecard_figure
from core.errors import ConfigError

if TYPE_CHECKING:
    from xarray import Dataset

INFREQUENT, CLIMATOLOGY = "infrequent_radiation", "climatology"
# Days apart at which states are kept, whose differences are balanced errors.
_KEPT_EVERY_DAY = 5
MAP_DAY = 5
SCORECARD_FILE = "scorecard.nc"
# Holds the forecasts of the lines that are done, until all are.
KEPT_FOLDER = "forecasts"


class ScoreConfig(Config):
    """Which dates, leads and rivals.

    Attributes
    ----------
    model : ModelConfig
        Its resolution is the network's own unless it is set.
    n_climatology_day : int
        Days run before the first date: their zonal and time mean is the climatology.
    infrequent_h : float
        Hours between the calls of the rival that calls the exact scheme less often.
    analysis_error : float
        Error of an imperfect start, in climatological standard deviations.
    """

    model: ModelConfig = ModelConfig()
    start: str = "sample"
    n_date: int = Field(default=20, ge=2, le=1000)
    spacing_day: int = Field(default=5, ge=1, le=360)
    lead_day: int = Field(default=14, ge=1, le=360)
    n_climatology_day: int = Field(default=60, ge=10, le=10_000)
    coarse_longwave: int = Field(default=16, ge=2, le=MOST_POINTS)
    coarse_shortwave: int = Field(default=8, ge=8, le=MOST_POINTS)
    infrequent_h: float = Field(default=12.0, gt=0)
    analysis_error: float = Field(default=0.1, gt=0, le=10.0)
    significance: float = Field(default=0.05, gt=0, lt=1)


class Reference(NamedTuple):
    """What forecasts are scored against.

    Attributes
    ----------
    dates : list of ModelState
    disturbed : list of ModelState
        The same in error by `analysis_error`.
    truth : ndarray [date, lead, variable, lat, lon]
        Leads 0, 1, ... days.
    climatology : ndarray [variable, lat, lon]
    """

    dates: list[ModelState]
    disturbed: list[ModelState]
    truth: np.ndarray
    climatology: np.ndarray


def make_reference(config: ScoreConfig, model: Model, seed: int) -> Reference:
    """Run the truth from its start: first the days of the climatology, then the dates."""
    state, fields, kept = first_state(model, config.start, seed), [], []
    for day in track(range(config.n_climatology_day), "climatology, days"):
        state = model.run(state, DAY_S)
        fields.append(judged_fields(model, state))
        if day % _KEPT_EVERY_DAY == 0:
            kept.append(state)
    mean = np.stack(fields).mean(axis=(0, -1), dtype=np.float64)
    climatology = np.repeat(mean[..., None], model.grid.n_lon, axis=-1)
    daily, dates = [judged_fields(model, state)], [state]
    n_day = (config.n_date - 1) * config.spacing_day + config.lead_day
    for day in track(range(1, n_day + 1), "truth, days"):
        state = model.run(state, DAY_S)
        daily.append(judged_fields(model, state))
        if day % config.spacing_day == 0 and len(dates) < config.n_date:
            dates.append(state)
    span = range(config.lead_day + 1)
    truth = np.stack(
        [[daily[i * config.spacing_day + lead] for lead in span] for i in range(config.n_date)]
    )
    generator = torch.Generator().manual_seed(seed)
    disturbed = [balanced_error(date, kept, config.analysis_error, generator) for date in dates]
    fresh = [date._replace(radiation=None) for date in dates]
    return Reference(fresh, disturbed, truth, climatology)


def forecast_fields(
    model: Model, starts: Sequence[ModelState], lead_day: int, name: str
) -> np.ndarray:
    """Run `model` from each start; give fields [date, lead, variable, lat, lon], leads from 0."""
    out = []
    for start in track(starts, name, len(starts)):
        state, leads = start, [judged_fields(model, start)]
        for _ in range(lead_day):
            state = model.run(state, DAY_S)
            leads.append(judged_fields(model, state))
        out.append(np.stack(leads))
    return np.stack(out)


def all_forecasts(
    config: ScoreConfig,
    networks: Mapping[str, Radiation],
    reference: Reference,
    model: Model,
    seed: int,
    folder: Path | None = None,
) -> dict[str, np.ndarray]:
    """Make the forecasts of every line, [date, lead, variable, lat, lon] each.

    `networks` are the schemes to judge by the name of their line. Lines that `folder` holds from a
    run that was stopped are read from there.
    """
    generator = torch.Generator().manual_seed(seed)
    noisy = [model.perturbed(date, NOISE_K, generator) for date in reference.dates]
    device = model.transform.device.type
    coarse = ExactRadiation(config.coarse_longwave, config.coarse_shortwave)
    seldom = config.model.model_copy(update={"radiation_interval_h": config.infrequent_h})
    runs: dict[str, tuple[Model, Sequence[ModelState]]] = {
        COARSE: (with_radiation(config.model, coarse, device), reference.dates),
        INFREQUENT: (seldom.build(device), reference.dates),
        NOISE_FLOOR: (model, noisy),
        EXACT_ANALYSIS: (model, reference.disturbed),
    }
    for name, network in networks.items():
        learned = with_radiation(config.model, network, device)
        runs[name] = (learned, reference.dates)
        runs[name + FROM_ANALYSIS] = (learned, reference.disturbed)
    out = {}
    for name, (scheme, starts) in runs.items():
        path = folder and folder / f"{name}.safetensors"
        if path and path.exists():
            out[name] = load_checkpoint(path)[0]["fields"].numpy()
            continue
        out[name] = forecast_fields(scheme, starts, config.lead_day, name)
        if path:
            path.parent.mkdir(exist_ok=True)
            save_checkpoint(path, {"fields": torch.from_numpy(out[name])}, {})
    out[PERSISTENCE] = np.repeat(reference.truth[:, :1], config.lead_day + 1, axis=1)
    out[CLIMATOLOGY] = np.broadcast_to(reference.climatology, reference.truth.shape)
    return out


def run(
    config: ScoreConfig,
    *,
    emulator: Path | Sequence[Path],
    out: Path,
    seed: int = 0,
    device: str = "auto",
    resume: bool = False,
) -> tuple[Record, str]:
    """Score the scheme trained in the folder `emulator`; write record, scorecard and figures.

    Of several the first is ``learned``, the others are ``learned_`` and their variant's name. With
    `resume` a run that was stopped keeps the lines that it had finished.
    """
    paths = [emulator] if isinstance(emulator, Path) else emulator
    networks = load_networks(paths)
    config = at_home(config, load_emulator(paths[0])[1])
    check_moist(config.model)
    if math.ceil(config.lead_day / config.spacing_day) >= config.n_date:
        raise ConfigError(
            f"score: {config.n_date} dates {config.spacing_day} days apart cannot judge leads of "
            f"{config.lead_day} days; take more dates or space them wider"
        )
    model = config.model.build(resolve_device(device))
    model.n_step(3600.0 * config.infrequent_h, "infrequent_h")
    for network in networks.values():
        network.check_levels(model.levels.n_level)
    with start_run(
        out,
        config,
        seed=seed,
        device=device,
        resume=resume,
        command="weather score",
        application="weather",
    ) as folder:
        kept = folder.dir / KEPT_FOLDER
        reference = make_reference(config, model, seed)
        forecasts = all_forecasts(config, networks, reference, model, seed, kept)
        card = scorecard(config, model, reference, forecasts)
        shown = {name: forecasts[name][0] for name in (LEARNED, COARSE)}
        day = min(MAP_DAY, config.lead_day)
        drawn = map_figure(folder.dir, card, reference.truth[0], shown, model.grid, day=day)
        record = _recorded(config, folder, card, seed, drawn)
        write_record(folder.dir, record)
        shutil.rmtree(kept)
    return record, table(card)


def load_networks(paths: Sequence[Path]) -> dict[str, LearnedRadiation]:
    """Load trained schemes by the names of their lines.

    Raises
    ------
    ConfigError
        If two of them would have one name.
    """
    out: dict[str, LearnedRadiation] = {}
    for path in paths:
        net, _ = load_emulator(path)
        spec = net.spec
        variant = Variant(
            density=spec.density,
            weight_format=spec.weight_format,
            activation_format=spec.activation_format,
        )
        name = f"{LEARNED}_{variant.name}" if out else LEARNED
        if name in out:
            raise ConfigError(f"score: two networks after the first are {variant.name}; give one")
        out[name] = LearnedRadiation(net)
    return out


def _recorded(
    config: ScoreConfig, folder: Run, card: Dataset, seed: int, drawn: dict[str, str]
) -> Record:
    from apps.weather.forecast.netcdf import write_dataset

    write_dataset(folder.dir / SCORECARD_FILE, card)
    scores = headline(card, LEARNED)
    scores["noise_doubling_day"] = doubling_day(card)
    for rival in (COARSE, INFREQUENT):
        better = surely_better(card, rival, config.significance)
        scores[f"share_better_than_{rival}"] = float((better > 0).mean())
        scores[f"share_worse_than_{rival}"] = float((better < 0).mean())
    rivals = [str(name) for name in card.scheme.values if name != LEARNED]
    return new_record(
        application="weather",
        command="weather score",
        config=config,
        seed=seed,
        device=folder.device,
        data=run_data(config, config.start, config.n_date, "forecast"),
        accuracy={"test": scores},
        baselines={name: {"test": headline(card, name)} for name in rivals},
        figures=[
            scorecard_figure(folder.dir, card, (COARSE, INFREQUENT), config.significance),
            error_figure(folder.dir, card),
            drawn,
        ],
    )
