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

from apps.lab.config import Config
from apps.lab.launch import resolve_device, start_run
from apps.lab.record import Record, new_record, write_record
from apps.weather.atmosphere.constants import DAY_S
from apps.weather.forecast.forecast import at_home, with_radiation
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
from apps.weather.model import Model
from apps.weather.physics import ExactRadiation
from apps.weather.verdict.figures import (
    LEARNED,
    audit_figure,
    bias_and_noise,
    section_figure,
    zonal_figure,
)
from apps.weather.verdict.longrun import (
    SECTION,
    ZONAL,
    LongRun,
    clear,
    energy_trend,
    global_mean,
    residual,
    run_daily,
    trend,
    twin,
)

if TYPE_CHECKING:
    from xarray import Dataset

# Kelvin of white noise that sets twins apart.
TWIN_NOISE_K = 0.1
CLIMATE_FILE = "climate.nc"
SEASON_DAY = 90


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
    n_day: int = Field(default=360, ge=2, le=100_000)
    n_settle_day: int = Field(default=20, ge=0)
    n_twin: int = Field(default=2, ge=2, le=100)
    audit_every_day: int = Field(default=5, ge=1)
    n_audit: int = Field(default=256, ge=1)
    fallback: bool = True


def compare(runs: Mapping[str, Dataset], model: Model) -> dict[str, float]:
    """Give the learned run's distance from the mean of the others, and the noise to beat.

    For each field ``*_bias_rms`` is the root mean square over the globe (and mass), ``*_noise_rms``
    the same expected of one more run of the exact scheme, from the variance among the twins, and
    ``*_beyond_noise`` what is left, in quadrature; ``*_season_over_noise`` is bias over noise of
    `SEASON_DAY` means, over all whole seasons: 1 for one more run of the exact scheme, NaN for a
    run shorter than a season. Drifts are slopes of daily means, per 360 days;
    ``energy_trend_w_m2`` is the slope of the store of energy itself, ``energy_residual_w_m2`` what
    the store gained beyond its fluxes.
    """
    twins = [run for name, run in runs.items() if name != LEARNED]
    area = model.grid.area_weight.sum(0).numpy()
    out: dict[str, float] = {}
    for name in (*SECTION, *ZONAL):
        weight = area * model.levels.thickness[:, None] if name in SECTION else area
        bias, variance = bias_and_noise(runs, name)
        bias2, noise2 = float((weight * bias**2).sum()), float((weight * variance).sum())
        out[f"{name}_bias_rms"] = math.sqrt(bias2)
        out[f"{name}_noise_rms"] = math.sqrt(noise2)
        out[f"{name}_beyond_noise"] = math.sqrt(max(0.0, bias2 - noise2))
        out[f"{name}_season_over_noise"] = _season_over_noise(runs, name, weight)
    for name in (*ZONAL, "temperature"):
        mean, slope = trend(global_mean(model, runs[LEARNED], name))
        others = np.array([trend(global_mean(model, run, name)) for run in twins])
        out[f"{name}_mean"] = mean
        out[f"{name}_mean_exact"] = float(others[:, 0].mean())
        out[f"{name}_drift_per_year"] = slope
        out[f"{name}_drift_per_year_exact"] = float(others[:, 1].mean())
    for name, of in (("energy_residual_w_m2", residual), ("energy_trend_w_m2", energy_trend)):
        out[name] = of(runs[LEARNED])
        out[f"{name}_exact"] = float(np.mean([of(run) for run in twins]))
    return out


def _season_over_noise(runs: Mapping[str, Dataset], name: str, weight: np.ndarray) -> float:
    n_day = next(iter(runs.values())).sizes["day"]
    bias2 = noise2 = 0.0
    for first in range(0, n_day - SEASON_DAY + 1, SEASON_DAY):
        days = slice(first, first + SEASON_DAY)
        season = {label: one[[name]].isel(day=days) for label, one in runs.items()}
        bias, variance = bias_and_noise(season, name)
        bias2 += float((weight * bias**2).sum())
        noise2 += float((weight * variance).sum())
    return math.sqrt(bias2 / noise2) if noise2 > 0.0 else math.nan


def run(
    config: ClimateConfig,
    *,
    emulator: Path,
    out: Path,
    seed: int = 0,
    device: str = "auto",
    resume: bool = False,
) -> tuple[Record, str]:
    """Run every climate into the folder `out`; write record, netCDF and figures, give a table.

    With `resume` a run that was stopped goes on from its last `CHUNK_DAY` days, to the same bits.
    """
    network, meta = load_emulator(emulator)
    config = at_home(config, meta)
    model = config.model.build(resolve_device(device))
    learned = LearnedRadiation(network)
    learned.check_levels(model.levels.n_level)
    per_day = round(DAY_S / model.radiation_interval_s)
    audited = AuditedRadiation(
        learned,
        ExactRadiation(config.model.n_longwave, config.model.n_shortwave),
        detector=_detector(learned, meta, Path(emulator)) if config.fallback else None,
        every=max(1, config.audit_every_day * per_day),
        n_column=config.n_audit,
        generator=torch.Generator().manual_seed(seed),
    )
    with_learned = with_radiation(config.model, audited, model.transform.device.type)
    with start_run(
        out,
        config,
        seed=seed,
        device=device,
        resume=resume,
        command="weather climate",
        application="weather",
    ) as folder:
        start = first_state(model, config.start, seed)._replace(radiation=None)
        plan = [LongRun(with_learned, start, LEARNED, audited, folder.dir)]
        for i in range(config.n_twin):
            apart = twin(model, start, TWIN_NOISE_K, seed + i)
            plan.append(LongRun(model, apart, f"exact_{i}", folder=folder.dir))
        runs = {one.label: run_daily(one, config.n_settle_day, config.n_day) for one in plan}
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
                section_figure(folder.dir, runs),
                zonal_figure(folder.dir, runs),
                audit_figure(folder.dir, audited.history, per_day),
            ],
            history=audited.history,
        )
        write_record(folder.dir, record)
        clear(folder.dir, list(runs))
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
    if not math.isnan(scores["olr_season_over_noise"]):
        seasons = ", ".join(f"{name} {scores[f'{name}_season_over_noise']:.2f}" for name in units)
        rows.append(f"{SEASON_DAY}-day means, error over that of one more exact run: {seasons}")
    rows += [
        f"audit: longwave {scores['audit_lw_rmse_k_per_day_start']:.4f} -> "
        f"{scores['audit_lw_rmse_k_per_day_end']:.4f} K/day, shortwave "
        f"{scores['audit_sw_rmse_k_per_day_start']:.4f} -> "
        f"{scores['audit_sw_rmse_k_per_day_end']:.4f} K/day; "
        f"{100 * scores['share_outside']:.2f} % of columns refused",
        f"energy of the air: trend {scores['energy_trend_w_m2']:+.3f} "
        f"(exact {scores['energy_trend_w_m2_exact']:+.3f}) W m-2, gained beyond its fluxes "
        f"{scores['energy_residual_w_m2']:+.3f} "
        f"(exact {scores['energy_residual_w_m2_exact']:+.3f}) W m-2",
    ]
    return "\n".join(rows)
