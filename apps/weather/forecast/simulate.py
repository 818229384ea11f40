"""Free runs: from a state, through time, to netCDF files and a restart."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field

from apps.lab.config import Config, config_sha256
from apps.lab.launch import resolve_device, start_run
from apps.lab.progress import track
from apps.lab.record import RECORD_FILE, Record, new_record, read_record, write_record
from apps.weather.atmosphere.cases import mountain
from apps.weather.atmosphere.constants import DAY_S
from apps.weather.atmosphere.grid import GaussianGrid, parse_resolution
from apps.weather.atmosphere.held_suarez import HeldSuarez
from apps.weather.atmosphere.levels import SigmaLevels
from apps.weather.boundary import Boundary, SeaSurface
from apps.weather.forecast.budget import EnergyBudget
from apps.weather.forecast.figures import (
    hovmoller_figure,
    map_figure,
    spectrum_figure,
    zonal_figure,
)
from apps.weather.forecast.netcdf import (
    Snapshot,
    dataset,
    model_state,
    open_dataset,
    snapshot,
    write_dataset,
)
from apps.weather.forecast.restart import load_extra, load_state, save_state
from apps.weather.forecast.sample import load_sample
from apps.weather.forecast.sea import sea_surface
from apps.weather.model import Model, ModelState
from apps.weather.physics import MOST_POINTS, ExactRadiation, Physics
from apps.weather.physics.surface import SstShape
from core.errors import ConfigError, DataError

PRECISIONS = {"fp32": torch.float32, "fp64": torch.float64}
RESTART_FILE = "restart.safetensors"
#: Of the states of one file, which is written in one go.
MOST_GIGABYTE = 4.0


class ModelConfig(Config):
    """Which model: resolution, physics and what surrounds the air.

    `sst` is ``control``, ``qobs``, or a file (.nc, .zarr) as `sea_surface` reads it; `mountain_m`
    is the height of a lone cone at 30 degrees north; none without it.
    """

    resolution: str = "T21L8"
    physics: Literal["moist", "held-suarez"] = "moist"
    dt_s: float | None = Field(default=None, ge=1.0)
    precision: Literal["fp32", "fp64"] = "fp32"
    n_longwave: int = Field(default=128, ge=2, le=MOST_POINTS)
    n_shortwave: int = Field(default=32, ge=8, le=MOST_POINTS)
    radiation_interval_h: float = Field(default=3.0, gt=0)
    sst: str = "qobs"
    warming_k: float = Field(default=0.0, ge=-50.0, le=50.0)
    co2_ppmv: float = Field(default=348.0, gt=0, le=1e6)
    seasonal: bool = False
    diurnal: bool = True
    mountain_m: float = Field(default=0.0, ge=0, le=10_000)
    vertical_scheme: Literal["simmons-burridge", "trapezoidal"] = "simmons-burridge"

    def build(self, device: torch.device | str = "cpu") -> Model:
        """Make the model, with the exact radiation where it is moist."""
        moist = self.physics == "moist"
        truncation, n_level = parse_resolution(self.resolution)
        ground = None
        if self.mountain_m > 0:
            ground = mountain(GaussianGrid(truncation), self.mountain_m)
        radiation = ExactRadiation(self.n_longwave, self.n_shortwave) if moist else None
        return Model(
            self.resolution,
            physics=Physics(radiation) if moist else HeldSuarez(),
            dt=self.dt_s,
            radiation_interval_s=3600.0 * self.radiation_interval_h,
            boundary=Boundary(
                _sea(self.sst), self.warming_k, self.co2_ppmv, self.seasonal, self.diurnal
            ),
            levels=SigmaLevels.equidistant(n_level, self.vertical_scheme),
            surface_geopotential=ground,
            dtype=PRECISIONS[self.precision],
            device=device,
        )


def _sea(name: str) -> SstShape | SeaSurface:
    """Give the sea surface that a setting names."""
    shapes: dict[str, SstShape] = {"control": "control", "qobs": "qobs"}
    if name in shapes:
        return shapes[name]
    if Path(name).suffix in (".nc", ".zarr"):
        return sea_surface(open_dataset(name), who=name)
    raise ConfigError(
        f"model.sst must be 'control', 'qobs' or a .nc or .zarr file that holds "
        f"sea_surface_temperature, got {name!r}"
    )


class SimulateConfig(Config):
    """A free run; `start` is ``sample``, ``rest``, a restart file or a netCDF file.

    `file_format` is ``netcdf``, or ``zarr`` where that package is installed.
    """

    model: ModelConfig = ModelConfig(resolution="T31L10")
    start: str = "sample"
    n_day: int = Field(default=10, ge=1, le=1_000_000)
    output_every_h: float = Field(default=12.0, gt=0)
    file_day: int = Field(default=30, ge=1)
    file_format: Literal["netcdf", "zarr"] = "netcdf"


def run_data(config: Config, start: str, n_test: int, unit: str) -> dict[str, Any]:
    """Give the record's `data` of a run that makes its own: settings and start decide it."""
    return {
        "name": start,
        "source": "embedded" if start in ("sample", "rest") else "file",
        "sha256": config_sha256(config),
        "n_train": 0,
        "n_valid": 0,
        "n_test": n_test,
        "unit": unit,
    }


def first_state(model: Model, start: str, seed: int) -> ModelState:
    """Find the state that a run starts from."""
    if start == "rest":
        return model.initial(seed=seed)
    if start == "sample":
        return load_sample(model)
    path = Path(start)
    if path.suffix == ".safetensors":
        return load_state(path, model)
    if path.suffix in (".nc", ".zarr"):
        return model_state(model, open_dataset(path), who=str(path))
    raise ConfigError(
        f"start must be 'sample', 'rest', a .safetensors restart or a .nc file, got {start!r}"
    )


def run(
    config: SimulateConfig,
    *,
    out: Path,
    seed: int = 0,
    device: str = "auto",
    resume: bool = False,
) -> Record:
    """Simulate into the folder `out`: one netCDF file per `file_day` days, a restart, a record.

    A run that was stopped goes on from the end of its last file, with `resume`, to the same bits.
    """
    # Before the folder is made: a setting that cannot work leaves nothing behind.
    model = config.model.build(resolve_device(device))
    every = _output_every(config, model)
    state = first_state(model, config.start, seed)
    run_folder = start_run(
        out,
        config,
        seed=seed,
        device=device,
        resume=resume,
        command="simulate",
        application="weather",
    )
    with run_folder, torch.no_grad():
        restart = run_folder.dir / RESTART_FILE
        done, budget = 0, EnergyBudget(model)
        if run_folder.resumed and restart.exists():
            begin_s = state.time_s
            state = load_state(restart, model)
            done = round((state.time_s - begin_s) / DAY_S)
            if done >= config.n_day and (run_folder.dir / RECORD_FILE).exists():
                return read_record(run_folder.dir)
            if extra := load_extra(restart):
                budget.restore(extra)
        begun, before = time.perf_counter(), done
        taken: list[Snapshot] = []
        while done < config.n_day:
            n_day = min(config.file_day, config.n_day - done)
            taken = []
            n_step = model.n_step(n_day * DAY_S)
            for i in track(range(1, n_step + 1), f"days {done} to {done + n_day}"):
                state = model.step(state)
                budget(state)
                if i % every == 0:
                    _check_finite(state, restart)
                    taken.append(snapshot(model, state))
            done += n_day
            if taken:
                suffix = "nc" if config.file_format == "netcdf" else "zarr"
                file = run_folder.dir / f"atmosphere_day{done:05d}.{suffix}"
                write_dataset(file, dataset(model, taken))
            if done < config.n_day:
                save_state(restart, model, state, extra=budget.saved())
        # without radiation the heating is no flux that a budget could hold against the store
        closed = budget.close() if state.radiation is not None else {}
        energy = {f"energy_{name}_w_m2": value for name, value in closed.items()}
        speed = (done - before) / max(time.perf_counter() - begun, 1e-9)
        record = new_record(
            application="weather",
            command="simulate",
            config=config,
            seed=seed,
            device=run_folder.device,
            data=run_data(config, config.start, config.n_day, "simulated day"),
            accuracy={"test": model.diagnose(state) | energy},
            throughput={"item": "simulated day", "infer_item_per_s": speed},
            figures=_figures(run_folder.dir, model, state, taken),
        )
        write_record(run_folder.dir, record)
        # last: a run killed before this does its last file again, and has all that the record tells
        save_state(restart, model, state, extra=budget.saved())
    return record


def _output_every(config: SimulateConfig, model: Model) -> int:
    """Count the steps between outputs; ConfigError unless files hold some, evenly, not too many."""
    every = model.n_step(3600.0 * config.output_every_h, "output_every_h")
    day, last = min(config.file_day, config.n_day), config.n_day % config.file_day
    if any(n and model.n_step(n * DAY_S) % every for n in (day, last)):
        rest = f" and one of {last}" if last not in (0, day) else ""
        raise ConfigError(
            f"simulate: files of {day} days{rest} hold no whole number of outputs "
            f"{config.output_every_h:g} h apart; choose an output_every_h that divides them, or "
            "other file_day and n_day"
        )
    n_output = model.n_step(day * DAY_S) // every
    n_value = model.grid.n_lon * model.grid.n_lat * (4 * model.levels.n_level + 4)
    gigabyte = n_output * n_value * torch.finfo(model.transform.dtype).bits / 8e9
    if gigabyte > MOST_GIGABYTE:
        raise ConfigError(
            f"simulate: a file of {day} days would hold {n_output:,} states of {model.resolution}, "
            f"{gigabyte:,.1f} GB that stay in memory until it is written, more than "
            f"{MOST_GIGABYTE:g}; lower file_day or raise output_every_h"
        )
    return every


def _check_finite(state: ModelState, restart: Path) -> None:
    try:
        state.levels.current.check_finite(f"simulate, day {state.time_s / DAY_S:g}")
    except DataError as error:
        kept = f"the last good state is {restart}" if restart.exists() else "no state was kept yet"
        raise DataError(f"{error}; {kept}") from error


def _figures(
    folder: Path, model: Model, state: ModelState, taken: Sequence[Snapshot]
) -> list[dict[str, str]]:
    out = [spectrum_figure(folder, model, state)]
    if taken:
        out = [map_figure(folder, model, taken[-1]), zonal_figure(folder, model, taken), *out]
        out.append(hovmoller_figure(folder, model, taken))
    return out
