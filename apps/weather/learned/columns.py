"""Columns to learn from: sampled while the model runs, labelled by a converged exact scheme."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from apps.lab.checkpoint import load_checkpoint, save_checkpoint
from apps.lab.config import Config, config_sha256
from apps.lab.progress import say, track
from apps.weather.atmosphere.constants import DAY_S
from apps.weather.atmosphere.grid import GaussianGrid, parse_resolution
from apps.weather.forecast.sample import sample_file
from apps.weather.forecast.simulate import ModelConfig, first_state
from apps.weather.physics import MOST_POINTS, Columns, ExactRadiation, Physics, RadiationResult
from apps.weather.physics.surface import SstShape
from apps.weather.physics.thermodynamics import saturation_humidity
from core.errors import ConfigError, DataError

SPLITS = ("train", "valid", "test")
_WEATHER = Path(__file__).resolve().parents[1]
# What decides how columns look and what they are labelled with: any change makes them anew.
_SOURCES = (
    "atmosphere/*.py",
    "physics/**/*.py",
    "boundary.py",
    "model.py",
    "forecast/simulate.py",
    "learned/columns.py",
)


class Climate(Config):
    """A world that differs from the control one by its sea surface and its carbon dioxide."""

    sst: SstShape = "qobs"
    warming_k: float = Field(default=0.0, ge=-50.0, le=50.0)
    co2_factor: float = Field(default=1.0, gt=0.0, le=1e3)


class ColumnsConfig(Config):
    """Which columns a network learns from.

    Attributes
    ----------
    resolution : str
        Of the model that is run.
    start : str
        ``sample``, ``rest``, or a file, as for `tessera weather simulate`.
    skip_day : int
        Days run before sampling, which leaves them unseen for forecasts that begin at `start`;
        from rest take 450, until the stratosphere has settled.
    n_day : int
        Simulated days, in time order: `train_share` of them to train, half of the rest to
        validate, the last to test, with `gap_day` days left out between.
    n_column_per_call : int
        Columns drawn at each radiation call, uniform over the sphere.
    run_longwave, run_shortwave : int
        Spectral points of the scheme that drives the run.
    label_longwave, label_shortwave : int
        Spectral points of the scheme that labels the columns: better than the run needs, as
        Chantry et al. 2021 trained on more than the operational scheme.
    other_co2_share : float
        Share of the training columns with carbon dioxide drawn log-uniformly from 1/2 to 4 times.
    other_warmth_share : float
        Share of the training columns warmed by -4 to 8 K at unchanged relative humidity, up to
        twice as much aloft as at the ground and not at all above a tropopause.
    climate : Climate
        Of the run.
    other_climates : tuple of Climate
        Whose runs add training columns: each from the same start, `other_skip_day` days left out
        while the air adjusts and `other_day` days sampled. The error in a sea 4 K warmer, which
        none of the runs has, is then 1.4 times the usual one (`tessera bench weather --part
        climates`).
    """

    resolution: str = "T21L8"
    start: str = "sample"
    skip_day: int = Field(default=25, ge=0)
    n_day: int = Field(default=45, ge=1)
    train_share: float = Field(default=0.7, gt=0.0, lt=1.0)
    gap_day: float = Field(default=1.0, ge=0.0)
    n_column_per_call: int = Field(default=256, ge=1)
    run_longwave: int = Field(default=41, ge=2, le=MOST_POINTS)
    run_shortwave: int = Field(default=16, ge=8, le=MOST_POINTS)
    label_longwave: int = Field(default=128, ge=2, le=MOST_POINTS)
    label_shortwave: int = Field(default=32, ge=8, le=MOST_POINTS)
    other_co2_share: float = Field(default=0.25, ge=0.0, le=1.0)
    other_warmth_share: float = Field(default=0.4, ge=0.0, le=1.0)
    climate: Climate = Climate()
    other_climates: tuple[Climate, ...] = (
        Climate(warming_k=-4.0, co2_factor=0.5),
        Climate(warming_k=8.0, co2_factor=2.0),
    )
    other_skip_day: int = Field(default=15, ge=0)
    other_day: int = Field(default=5, ge=1)


class LabelledColumns(NamedTuple):
    """Columns, what the labelling scheme says of them, and when they were drawn.

    Attributes
    ----------
    columns : Columns
    label : RadiationResult
    time_s : Tensor, float64 [column]
        From the start of sampling to the end of the day on which the column was drawn.
    """

    columns: Columns
    label: RadiationResult
    time_s: Tensor

    def take(self, index: Tensor) -> LabelledColumns:
        """Those columns alone."""
        label = RadiationResult(*(field[index] for field in self.label))
        return LabelledColumns(self.columns.take(index), label, self.time_s[index])

    def __len__(self) -> int:
        return len(self.time_s)


def label_columns(columns: Columns, config: ColumnsConfig) -> RadiationResult:
    """Give what the labelling scheme says of the columns."""
    return ExactRadiation(config.label_longwave, config.label_shortwave)(columns)


class _Sampler(Physics):
    """Physics that keeps some of the columns that each radiation call sees."""

    def __init__(self, config: ColumnsConfig, area: Tensor, generator: torch.Generator) -> None:
        super().__init__(ExactRadiation(config.run_longwave, config.run_shortwave))
        self.config, self.area, self.generator = config, area, generator
        self.kept: list[Columns] = []

    def radiate(self, columns: Columns) -> RadiationResult:
        n = self.config.n_column_per_call
        index = torch.multinomial(self.area, n, replacement=False, generator=self.generator)
        self.kept.append(columns.take(index))
        return super().radiate(columns)


def check_columns(config: ColumnsConfig) -> None:
    """Raise ConfigError if days do not make three splits, or a call has too few columns to draw."""
    if config.n_day * (1.0 - config.train_share) < 2.0 * config.gap_day + 2.0:
        raise ConfigError(
            f"sample_columns: n_day = {config.n_day} leaves no days to validate and test after a "
            f"train_share of {config.train_share} and gaps of {config.gap_day} days; run longer"
        )
    grid = GaussianGrid(parse_resolution(config.resolution)[0])
    if config.n_column_per_call > grid.n_lon * grid.n_lat:
        raise ConfigError(
            f"sample_columns: n_column_per_call = {config.n_column_per_call} is more than the "
            f"{grid.n_lon * grid.n_lat} columns of {config.resolution}; draw fewer, or run a finer "
            "model"
        )


def sample_columns(config: ColumnsConfig, *, seed: int) -> LabelledColumns:
    """Run the model and draw labelled columns from it.

    Raises
    ------
    ConfigError
        As `check_columns` does.
    """
    check_columns(config)
    generator = torch.Generator().manual_seed(seed)
    columns, time_s = _drawn(config, config.climate, config.skip_day, config.n_day, seed, generator)
    for climate in config.other_climates:
        others, _ = _drawn(
            config, climate, config.other_skip_day, config.other_day, seed, generator
        )
        columns = Columns(*(torch.cat(fields) for fields in zip(columns, others, strict=True)))
        # Before all else in time, which makes them training columns.
        time_s = torch.cat([time_s, torch.zeros(len(others.sst), dtype=time_s.dtype)])
    found = LabelledColumns(columns, label_columns(columns, config), time_s)
    return _widened(found, config, generator)


def _drawn(
    config: ColumnsConfig,
    climate: Climate,
    skip_day: int,
    n_day: int,
    seed: int,
    generator: torch.Generator,
) -> tuple[Columns, Tensor]:
    """Columns of one run, and the time at the end of the day on which each was drawn."""
    control = ModelConfig()
    model = ModelConfig(
        resolution=config.resolution,
        n_longwave=config.run_longwave,
        n_shortwave=config.run_shortwave,
        sst=climate.sst,
        warming_k=climate.warming_k,
        co2_ppmv=climate.co2_factor * control.co2_ppmv,
    ).build()
    area = model.grid.area_weight.expand(model.grid.n_lon, -1).reshape(-1)
    state = first_state(model, config.start, seed)
    for _ in track(range(skip_day), "before sampling, days"):
        state = model.run(state, DAY_S)
    sampler = _Sampler(config, area, generator)
    model.physics = sampler
    begin = state.time_s
    times: list[float] = []
    for _ in track(range(n_day), "columns, days"):
        state = model.run(state, DAY_S)
        times += [state.time_s - begin] * (len(sampler.kept) - len(times))
    columns = Columns(*(torch.cat(fields) for fields in zip(*sampler.kept, strict=True)))
    time_s = torch.tensor(times, dtype=torch.float64).repeat_interleave(config.n_column_per_call)
    return columns, time_s


def _widened(
    found: LabelledColumns, config: ColumnsConfig, generator: torch.Generator
) -> LabelledColumns:
    """Training columns in other air and carbon dioxide, and the sun up where it was down."""
    train = split_index(found.time_s, config)["train"]
    pick = train[torch.rand(len(train), generator=generator) < config.other_warmth_share]
    columns = _warmed(found.columns, pick, generator)
    co2, sun = columns.co2_ppmv.clone(), columns.cos_zenith.clone()
    pick = train[torch.rand(len(train), generator=generator) < config.other_co2_share]
    factor = torch.exp2(3.0 * torch.rand(len(pick), generator=generator) - 1.0)
    co2[pick] *= factor.to(co2)
    night, day = train[sun[train] <= 0], train[sun[train] > 0]
    if len(day):
        other = torch.randint(len(day), (len(night),), generator=generator)
        sun[night] = sun[day[other]]
    columns = columns._replace(co2_ppmv=co2, cos_zenith=sun)
    label = RadiationResult(*(field.clone() for field in found.label))
    for whole, part in zip(label, label_columns(columns.take(train), config), strict=True):
        whole[train] = part
    return LabelledColumns(columns, label, found.time_s)


def _warmed(columns: Columns, pick: Tensor, generator: torch.Generator) -> Columns:
    """Warm the picked columns at unchanged relative humidity, each by its own amount."""
    air = columns.take(pick)
    by, more, top = (torch.rand(len(pick), generator=generator).to(air.sst) for _ in range(3))
    by = 12.0 * by - 4.0
    sigma = air.pressure / air.pressure_half[:, -1:]
    # Warming ends at a tropopause, anywhere between the top and sigma .5.
    below = ((sigma - 0.5 * top[:, None] + 0.15) / 0.15).clamp(0.0, 1.0)
    temperature = air.temperature + by[:, None] * (1.0 + more[:, None] * (1.0 - sigma)) * below
    relative = air.humidity / saturation_humidity(air.temperature, air.pressure)
    humidity = relative * saturation_humidity(temperature, air.pressure)
    return columns._replace(
        temperature=columns.temperature.index_copy(0, pick, temperature),
        humidity=columns.humidity.index_copy(0, pick, humidity),
        sst=columns.sst.index_copy(0, pick, air.sst + by),
    )


def split_index(time_s: Tensor, config: ColumnsConfig) -> dict[str, Tensor]:
    """Give the indices of each split: blocks of time in order, gaps left out, never random."""
    day = time_s / DAY_S
    end_train = config.train_share * config.n_day
    end_valid = 0.5 * (end_train + config.n_day)
    gap = config.gap_day
    masks = (
        day <= end_train,
        (day > end_train + gap) & (day <= end_valid),
        day > end_valid + gap,
    )
    return {name: torch.nonzero(mask).squeeze(1) for name, mask in zip(SPLITS, masks, strict=True)}


def cached_columns(
    config: ColumnsConfig, *, seed: int, folder: Path
) -> tuple[LabelledColumns, str]:
    """Give `sample_columns`, made once for all that decides them and kept in `folder`.

    Runs that share the folder wait for the one that makes the file. A file of another
    configuration, seed, start or physics has another name; one that is damaged is made again.
    Returns the columns and a sha256 of their values.
    """
    path = folder / f"columns-{columns_key(config, seed)[:16]}.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(path.with_suffix(".lock")):
        found = None
        if path.exists():
            try:
                found = _load(path)
            except DataError as error:
                say(f"columns are made again, as {path} cannot be used: {error}")
        if found is None:
            _save(path, sample_columns(config, seed=seed))
            found = _load(path)
        return found, _digest(found)


def columns_key(config: ColumnsConfig, seed: int) -> str:
    """Digest of all that decides what `sample_columns` gives: settings, start, and the sources."""
    digest = hashlib.sha256(f"{config_sha256(config)} {seed}".encode())
    is_sample = config.start == "sample"
    begin = sample_file(config.resolution) if is_sample else Path(config.start)
    sources = (path for part in _SOURCES for path in _WEATHER.glob(part))
    for path in (*([begin] if begin.is_file() else []), *sorted(sources)):
        digest.update(b"\0" + path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _digest(found: LabelledColumns) -> str:
    digest = hashlib.sha256()
    for tensor in (*found.columns, *found.label, found.time_s):
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _save(path: Path, found: LabelledColumns) -> None:
    tensors = {f"columns.{k}": v for k, v in found.columns._asdict().items() if k not in "uv"}
    tensors |= {f"label.{k}": v for k, v in found.label._asdict().items()}
    save_checkpoint(path, {**tensors, "time_s": found.time_s}, {})


def _load(path: Path) -> LabelledColumns:
    tensors, _ = load_checkpoint(path)
    calm = torch.zeros_like(tensors["columns.temperature"])
    fields = {k: tensors.get(f"columns.{k}", calm) for k in Columns._fields}
    label = {k: tensors[f"label.{k}"] for k in RadiationResult._fields}
    return LabelledColumns(Columns(**fields), RadiationResult(**label), tensors["time_s"])


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Let one process at a time pass; where the system has no such lock, all do."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    file = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)
