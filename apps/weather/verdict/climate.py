"""A learned scheme let run: its climate beside that of several runs of the exact scheme.

Runs of the exact scheme that differ by a small disturbance in their start show how far two equal
climates lie apart in so many days: the noise bars. A difference of the learned run is a bias only
beyond them. While it runs the learned scheme is audited (see `apps.weather.learned.audit`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from apps.lab.config import Config
from apps.lab.figures import COLORS, new_figure, save_svg
from apps.lab.launch import resolve_device, start_run
from apps.lab.progress import track
from apps.lab.record import Record, new_record, write_record
from apps.weather.atmosphere.constants import DAY_S
from apps.weather.forecast.forecast import with_radiation
from apps.weather.forecast.netcdf import write_dataset
from apps.weather.forecast.simulate import ModelConfig, first_state, run_data
from apps.weather.learned import (
    ColumnsConfig,
    LearnedRadiation,
    cached_columns,
    load_emulator,
    split_index,
)
from apps.weather.learned.audit import AuditedRadiation, RangeDetector
from apps.weather.model import Model, ModelState
from apps.weather.physics import ExactRadiation

if TYPE_CHECKING:
    from xarray import Dataset

LEARNED = "learned"
# Kelvin of white noise that sets twins apart.
TWIN_NOISE_K = 0.1
CLIMATE_FILE = "climate.nc"
# name: unit, of zonal means by latitude and of sections by level and latitude
ZONAL = {"precipitation": "mm day-1", "olr": "W m-2", "asr": "W m-2"}
SECTION = {"temperature": "K", "u": "m s-1", "humidity": "1"}


class ClimateConfig(Config):
    """How long, and how many runs of the exact scheme.

    Attributes
    ----------
    n_settle_day : int
        Days before the means begin, in which twins part.
    n_twin : int
        Runs of the exact scheme.
    audit_every_day, n_audit : int
        Days between audits, and columns of each.
    fallback : bool
        Give columns unlike the training's to the exact scheme.
    """

    model: ModelConfig = ModelConfig()
    start: str = "sample"
    n_day: int = Field(default=360, ge=2)
    n_settle_day: int = Field(default=20, ge=0)
    n_twin: int = Field(default=2, ge=2)
    audit_every_day: int = Field(default=5, ge=1)
    n_audit: int = Field(default=256, ge=1)
    fallback: bool = True


class _Means:
    """Sums a run as it goes; give `observe` to `Model.run`."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.per_day = max(1, round(DAY_S / model.dt))
        self.n_step = self.n_day = 0
        self.zonal: dict[str, Tensor | float] = dict.fromkeys(ZONAL, 0.0)
        self.section: dict[str, Tensor | float] = dict.fromkeys(SECTION, 0.0)
        self.today: dict[str, Tensor | float] = dict.fromkeys(ZONAL, 0.0)
        self.daily: dict[str, list[float]] = {name: [] for name in (*ZONAL, "temperature")}

    def observe(self, state: ModelState) -> None:
        """Add one step; a day's end adds the sections."""
        model, radiation = self.model, state.radiation
        shape = (model.grid.n_lon, model.grid.n_lat)
        assert radiation is not None
        assert state.precipitation is not None
        for name, field in (
            ("precipitation", state.precipitation * DAY_S),
            ("olr", radiation.toa_lw.view(shape)),
            ("asr", radiation.toa_sw.view(shape)),
        ):
            self.today[name] = self.today[name] + field.double().mean(0) / self.per_day
        self.n_step += 1
        if self.n_step % self.per_day:
            return
        weight = model.grid.area_weight.sum(0)
        for name, value in self.today.items():
            self.zonal[name] = self.zonal[name] + value
            self.daily[name].append(float((weight * value).sum()))
        self.today = dict.fromkeys(ZONAL, 0.0)
        grid = model.equations.to_grid(state.levels.current)._asdict()
        for name in SECTION:
            self.section[name] = self.section[name] + grid[name].double().mean(0).T
        mean = model.grid.mean(grid["temperature"]) @ model.equations.thickness.double()
        self.daily["temperature"].append(float(mean))
        self.n_day += 1


def climate_of(
    model: Model, start: ModelState, n_settle_day: int, n_day: int, label: str
) -> Dataset:
    """Run and average: sections [level, lat], zonal means [lat] and daily global means [day].

    Raises
    ------
    DataError
        If the run stops being finite; the message names field, level and day.
    """
    import xarray as xr

    means, state = _Means(model), start
    for day in track(range(n_settle_day + n_day), f"{label}, days"):
        state = model.run(state, DAY_S, means.observe if day >= n_settle_day else None)
    variables: dict[str, tuple] = {}
    for name, unit in SECTION.items():
        total = means.section[name]
        assert isinstance(total, Tensor)
        variables[name] = (("level", "lat"), total.numpy() / n_day, {"units": unit})
    for name, unit in ZONAL.items():
        total = means.zonal[name]
        assert isinstance(total, Tensor)
        variables[name] = ("lat", total.numpy() / n_day, {"units": unit})
    for name, values in means.daily.items():
        variables[f"{name}_daily"] = ("day", values, {"units": (ZONAL | SECTION)[name]})
    coords = {
        "level": model.levels.full,
        "lat": np.degrees(model.grid.latitude.numpy()),
        "day": np.arange(n_day),
    }
    return xr.Dataset(variables, coords=coords)


def compare(runs: Mapping[str, Dataset], model: Model) -> dict[str, float]:
    """Give the learned run's distance from the mean of the others, and the noise to beat.

    For each field ``*_bias_rms`` is the root mean square over the globe (and mass), ``*_noise_rms``
    the same expected of one more run of the exact scheme, from the variance among the twins, and
    ``*_beyond_noise`` what is left, in quadrature. Drifts are slopes of daily means, per 360 days.
    """
    twins = [run for name, run in runs.items() if name != LEARNED]
    n, area = len(twins), model.grid.area_weight.sum(0).numpy()
    out: dict[str, float] = {}
    for name in (*SECTION, *ZONAL):
        weight = area * model.levels.thickness[:, None] if name in SECTION else area
        stack = np.stack([run[name].values for run in twins])
        bias = runs[LEARNED][name].values - stack.mean(0)
        noise = stack.var(0, ddof=1) * (1.0 + 1.0 / n)
        bias2, noise2 = float((weight * bias**2).sum()), float((weight * noise).sum())
        out[f"{name}_bias_rms"] = math.sqrt(bias2)
        out[f"{name}_noise_rms"] = math.sqrt(noise2)
        out[f"{name}_beyond_noise"] = math.sqrt(max(0.0, bias2 - noise2))
    for name in (*ZONAL, "temperature"):
        mean, slope = _trend(runs[LEARNED][f"{name}_daily"].values)
        others = np.array([_trend(run[f"{name}_daily"].values) for run in twins])
        out[f"{name}_mean"] = mean
        out[f"{name}_mean_exact"] = float(others[:, 0].mean())
        out[f"{name}_drift_per_year"] = slope
        out[f"{name}_drift_per_year_exact"] = float(others[:, 1].mean())
    return out


def _trend(daily: np.ndarray) -> tuple[float, float]:
    """Mean, and slope per 360 days."""
    return float(daily.mean()), float(np.polyfit(np.arange(len(daily)) / 360.0, daily, 1)[0])


def run(
    config: ClimateConfig, *, emulator: Path, out: Path, seed: int = 0, device: str = "auto"
) -> tuple[Record, str]:
    """Run every climate into the folder `out`; write record, netCDF and figures, give a table."""
    network, meta = load_emulator(emulator)
    exact = ExactRadiation(config.model.n_longwave, config.model.n_shortwave)
    model = config.model.build(resolve_device(device))
    name = model.transform.device.type
    generator = torch.Generator().manual_seed(seed)
    learned = LearnedRadiation(network)
    per_day = round(DAY_S / model.radiation_interval_s)
    audited = AuditedRadiation(
        learned,
        exact,
        detector=_detector(learned, meta, Path(emulator)) if config.fallback else None,
        every=max(1, config.audit_every_day * per_day),
        n_column=config.n_audit,
        generator=generator,
    )
    with_learned = with_radiation(config.model, audited, name)
    with start_run(
        out, config, seed=seed, device=device, command="weather climate", application="weather"
    ) as folder:
        start = first_state(model, config.start, seed)._replace(radiation=None)
        span = (config.n_settle_day, config.n_day)
        runs = {LEARNED: climate_of(with_learned, start, *span, LEARNED)}
        for i in range(config.n_twin):
            apart = model.perturbed(start, TWIN_NOISE_K, generator)
            runs[f"exact_{i}"] = climate_of(model, apart, *span, f"exact, twin {i}")
        scores = compare(runs, model) | _audit_scores(audited)
        _write(folder.dir / CLIMATE_FILE, runs)
        record = new_record(
            application="weather",
            command="weather climate",
            config=config,
            seed=seed,
            device=folder.device,
            data=run_data(config, config.start, config.n_day, "simulated day"),
            accuracy={"test": scores},
            figures=[
                _section_figure(folder.dir, runs),
                _zonal_figure(folder.dir, runs),
                _audit_figure(folder.dir, audited, per_day),
            ],
            history=audited.history,
        )
        write_record(folder.dir, record)
    return record, table(scores)


def _detector(learned: LearnedRadiation, meta: dict, emulator: Path) -> RangeDetector:
    """Make the detector from the columns the network was trained on, found beside its run."""
    folder = emulator if emulator.is_dir() else emulator.parent
    columns = ColumnsConfig(**meta["columns"])
    found, _ = cached_columns(columns, seed=meta["seed"], folder=folder.resolve().parent)
    train = found.take(split_index(found.time_s, columns)["train"])
    return RangeDetector(learned.emulator, train.columns)


def _audit_scores(audited: AuditedRadiation) -> dict[str, float]:
    """Error at the first and the last fifth of the audits, and the share of columns refused."""
    rows = audited.history
    n = max(1, len(rows) // 5)
    out = {}
    for kind in ("lw", "sw"):
        key = f"{kind}_rmse_k_per_day"
        first, last = (
            math.sqrt(np.mean([row[key] ** 2 for row in part])) for part in (rows[:n], rows[-n:])
        )
        out[f"audit_{key}_start"], out[f"audit_{key}_end"] = first, last
    out["share_outside"] = float(np.mean([row["share_outside"] for row in rows]))
    return out


def _write(path: Path, runs: Mapping[str, Dataset]) -> None:
    import xarray as xr

    write_dataset(path, xr.concat(list(runs.values()), xr.Variable("run", list(runs))))


def table(scores: Mapping[str, float]) -> str:
    """Spell the climate for a reader."""
    units = SECTION | ZONAL
    rows = [f"{'':16s}{'bias':>12s}{'noise':>12s}{'beyond':>12s}"]
    rows += [
        f"{name:16s}"
        + "".join(f"{scores[f'{name}_{key}']:12.4g}" for key in ("bias_rms", "noise_rms"))
        + f"{scores[f'{name}_beyond_noise']:12.4g} {unit}"
        for name, unit in units.items()
    ]
    rows += [
        f"{name} {scores[f'{name}_mean']:.2f} (exact {scores[f'{name}_mean_exact']:.2f}) {unit}, "
        f"drift {scores[f'{name}_drift_per_year']:+.2f} "
        f"(exact {scores[f'{name}_drift_per_year_exact']:+.2f}) in 360 days"
        for name, unit in ZONAL.items()
    ]
    rows += [
        f"audit: longwave {scores['audit_lw_rmse_k_per_day_start']:.4f} -> "
        f"{scores['audit_lw_rmse_k_per_day_end']:.4f} K/day, shortwave "
        f"{scores['audit_sw_rmse_k_per_day_start']:.4f} -> "
        f"{scores['audit_sw_rmse_k_per_day_end']:.4f} K/day; "
        f"{100 * scores['share_outside']:.2f} % of columns refused"
    ]
    return "\n".join(rows)


def _section_figure(folder: Path, runs: Mapping[str, Dataset]) -> dict[str, str]:
    figure, axes = new_figure(1, 2, width_inch=8.0, height_inch=3.2)
    twins = [run for name, run in runs.items() if name != LEARNED]
    learned = runs[LEARNED]
    for ax, name in zip(axes, ("temperature", "u"), strict=True):
        stack = np.stack([run[name].values for run in twins])
        bias = learned[name].values - stack.mean(0)
        noise = np.sqrt(stack.var(0, ddof=1) * (1.0 + 1.0 / len(twins)))
        most = max(float(np.abs(bias).max()), 1e-12)
        drawn = ax.pcolormesh(
            learned.lat, learned.level, bias, cmap="RdBu_r", vmin=-most, vmax=most,
            shading="nearest", rasterized=True,
        )  # fmt: skip
        row, column = np.nonzero(np.abs(bias) < 2.0 * noise)
        ax.scatter(learned.lat[column], learned.level[row], s=3, color="#000000", linewidths=0)
        unit = SECTION[name]
        ax.set(title=f"{name}, {unit}", xlabel="latitude", ylabel="sigma", ylim=(1.0, 0.0))
        ax.grid(visible=False)
        figure.colorbar(drawn, ax=ax)
    save_svg(figure, folder / "zonal_sections.svg")
    return {
        "file": "zonal_sections.svg",
        "title": "Zonal mean bias",
        "caption": (
            "Learned run less the mean of the exact ones. Dots: less than twice what one more "
            "exact run would differ by."
        ),
        "wrong_if": "no dots at all, or a stripe in one level from pole to pole",
    }


def _zonal_figure(folder: Path, runs: Mapping[str, Dataset]) -> dict[str, str]:
    figure, axes = new_figure(1, 3, width_inch=9.0, height_inch=2.8)
    for ax, (name, unit) in zip(axes, ZONAL.items(), strict=True):
        for label, data in runs.items():
            is_learned = label == LEARNED
            ax.plot(
                data.lat,
                data[name],
                color=COLORS[0] if is_learned else COLORS[5],
                linewidth=1.4 if is_learned else 0.8,
                label=label.replace("_", " "),
            )
        ax.set(title=name, xlabel="latitude", ylabel=unit)
    axes[0].legend()
    save_svg(figure, folder / "zonal_means.svg")
    return {
        "file": "zonal_means.svg",
        "title": "Rain and radiation at the top, zonal means",
        "caption": "The learned run and each run of the exact scheme.",
        "wrong_if": "the learned line leaves the others by more than they leave each other",
    }


def _audit_figure(folder: Path, audited: AuditedRadiation, per_day: int) -> dict[str, str]:
    figure, (ax,) = new_figure(height_inch=3.0)
    day = [row["call"] / per_day for row in audited.history]
    for kind, label in (("lw", "longwave"), ("sw", "shortwave, by day")):
        values = [row[f"{kind}_rmse_k_per_day"] for row in audited.history]
        ax.plot(day, values, marker="o", markersize=3, label=label)
    ax.set(xlabel="day", ylabel="RMSE of heating, K/day", ylim=(0.0, None))
    ax.legend()
    save_svg(figure, folder / "audit.svg")
    return {
        "file": "audit.svg",
        "title": "Audit of the running scheme",
        "caption": "Learned against exact heating on columns drawn while the model ran.",
        "wrong_if": "a line rises with the days: the run leaves what the network was trained on",
    }
