"""A long free run, averaged day by day, that a killed process takes up again to the same bits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from apps.lab.line import fit_line
from apps.lab.progress import track
from apps.weather.atmosphere.constants import DAY_S
from apps.weather.forecast.budget import energy, fluxes, gained
from apps.weather.forecast.netcdf import open_dataset, write_dataset
from apps.weather.forecast.restart import load_state, save_state
from apps.weather.learned.audit import AuditedRadiation
from apps.weather.model import Model, ModelState

if TYPE_CHECKING:
    from xarray import Dataset

# name: unit, of daily zonal means by latitude and of daily sections by level and latitude
ZONAL = {"precipitation": "mm day-1", "olr": "W m-2", "asr": "W m-2"}
SECTION = {"temperature": "K", "u": "m s-1", "humidity": "1"}
# global: the store of moist energy at the day's end, and the mean of the fluxes that feed it
STORE = {"energy": "J m-2", "energy_gained": "W m-2"}
CHUNK_DAY = 30


class _Daily:
    """Averages a run day by day; give `observe` to `Model.run`."""

    def __init__(self, model: Model) -> None:
        self.model, self.per_day = model, max(1, round(DAY_S / model.dt))
        self.n_step = 0
        self.today: dict[str, Tensor | float] = {}
        self.days: dict[str, list[np.ndarray]] = {n: [] for n in (*ZONAL, *SECTION, *STORE)}

    def observe(self, state: ModelState) -> None:
        """Add one step; a day's end adds the sections."""
        model, radiation = self.model, state.radiation
        shape = (model.grid.n_lon, model.grid.n_lat)
        assert radiation is not None
        assert state.precipitation is not None
        step: dict[str, Tensor | float] = {
            "precipitation": (state.precipitation * DAY_S).double().mean(0),
            "olr": radiation.toa_lw.view(shape).double().mean(0),
            "asr": radiation.toa_sw.view(shape).double().mean(0),
            "energy_gained": gained(fluxes(model, state)),
        }
        for name, value in step.items():
            self.today[name] = self.today.get(name, 0.0) + value / self.per_day
        self.n_step += 1
        if self.n_step % self.per_day:
            return
        for name, value in self.today.items():
            self.days[name].append(np.asarray(value))
        self.today = {}
        grid = model.equations.to_grid(state.levels.current)._asdict()
        for name in SECTION:
            self.days[name].append(grid[name].double().mean(0).T.numpy())
        self.days["energy"].append(np.asarray(sum(energy(model, state).values())))

    def dataset(self, first_day: int) -> Dataset:
        """Give the days so far."""
        import xarray as xr

        axes = (
            dict.fromkeys(ZONAL, ("day", "lat"))
            | dict.fromkeys(SECTION, ("day", "level", "lat"))
            | dict.fromkeys(STORE, ("day",))
        )
        units = ZONAL | SECTION | STORE
        n_day = len(self.days["energy"])
        return xr.Dataset(
            {n: (axes[n], np.stack(v), {"units": units[n]}) for n, v in self.days.items()},
            coords={
                "day": np.arange(first_day, first_day + n_day),
                "level": self.model.levels.full,
                "lat": np.degrees(self.model.grid.latitude.numpy()),
            },
        )


class LongRun(NamedTuple):
    """One run: its model and start, and where it keeps what it has done.

    Attributes
    ----------
    label : str
        Names its files and its progress.
    audited : AuditedRadiation, optional
        The model's radiation, if it is audited: its history and counters are kept too.
    folder : Path, optional
        Holds a restart and one file for each `CHUNK_DAY` days; nothing is kept without it.
    """

    model: Model
    start: ModelState
    label: str
    audited: AuditedRadiation | None = None
    folder: Path | None = None


def run_daily(what: LongRun, n_settle_day: int, n_day: int) -> Dataset:
    """Run on; give daily sections [day, level, lat], zonal means [day, lat] and the energy [day].

    The first `n_settle_day` days are run and left out. A run whose folder holds its first days
    goes on from there.

    Raises
    ------
    DataError
        If the run stops being finite; the message names field, level and day.
    """
    import xarray as xr

    chunks: list[Dataset] = []
    state, done = what.start, -n_settle_day
    restart = what.folder and what.folder / f"{what.label}.safetensors"
    if restart and restart.exists():
        state = load_state(restart, what.model)
        done += round((state.time_s - what.start.time_s) / DAY_S)
        chunks = [open_dataset(_chunk(what, end)) for end in _ends(n_settle_day, n_day, done)]
        if chunks and what.audited is not None:
            what.audited.restore(json.loads(chunks[-1].attrs["audit"]))
    for end in _ends(n_settle_day, n_day, n_day)[len(chunks) :]:
        daily = _Daily(what.model)
        if what.audited is not None:
            what.audited.generator.manual_seed(end)
        for day in track(range(done, end), f"{what.label}, days {done} to {end}"):
            state = what.model.run(state, DAY_S, daily.observe if day >= 0 else None)
        chunks.append(daily.dataset(max(done, 0)))
        if what.audited is not None:
            chunks[-1].attrs["audit"] = json.dumps(what.audited.progress())
        done = end
        if restart:
            write_dataset(_chunk(what, end), chunks[-1])
            save_state(restart, what.model, state)
    return xr.concat(chunks, "day", combine_attrs="override").drop_attrs(deep=False)


def _ends(n_settle_day: int, n_day: int, done: int) -> list[int]:
    """Days at which chunks end, up to `done`; the first one holds what has to settle."""
    ends = [*range(CHUNK_DAY, n_day, CHUNK_DAY), n_day]
    return [end for end in ends if end <= done]


def _chunk(what: LongRun, end: int) -> Path:
    assert what.folder is not None
    return what.folder / f"{what.label}_day{end:05d}.nc"


def clear(folder: Path, labels: list[str]) -> None:
    """Remove what the runs kept for being taken up again."""
    for label in labels:
        for path in [*folder.glob(f"{label}_day*.nc"), folder / f"{label}.safetensors"]:
            path.unlink(missing_ok=True)


def trend(daily: np.ndarray) -> tuple[float, float]:
    """Give the mean, and the slope per 360 days."""
    return float(daily.mean()), fit_line(np.arange(len(daily)) / 360.0, daily)[0]


def residual(run: Dataset) -> float:
    """Give what the store of energy gained beyond its fluxes, W/m2; NaN for a single day."""
    n = run.sizes["day"] - 1
    if n < 1:
        return float("nan")
    stored = float(run.energy[-1] - run.energy[0]) / (n * DAY_S)
    return stored - float(run.energy_gained[1:].mean())


def energy_trend(run: Dataset) -> float:
    """Give the slope of the store of energy in time, W/m2; NaN for a single day."""
    if run.sizes["day"] < 2:
        return float("nan")
    return fit_line(np.arange(run.sizes["day"]) * DAY_S, run.energy.values)[0]


def global_mean(model: Model, run: Dataset, name: str) -> np.ndarray:
    """Daily global (and mass) mean [day] of a zonal mean or a section.

    Summed in one order: bits of a library's product hang on how its operands lie in memory, which
    differs between a run as it was made and one read from its files.
    """
    area = model.grid.area_weight.sum(0).numpy()
    weights = [area, model.levels.thickness] if name in SECTION else [area]
    values = run[name].values
    for weight in weights:
        values = np.multiply(values, weight, order="C").sum(axis=-1)
    return values


def twin(model: Model, start: ModelState, noise_k: float, seed: int) -> ModelState:
    """Give a start apart from `start` by white noise drawn from `seed`."""
    return model.perturbed(start, noise_k, torch.Generator().manual_seed(seed))
