"""One run: columns, training, scores on unseen days, a short forecast, cost, record."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, model_validator

from apps.lab import parallel
from apps.lab.config import Config
from apps.lab.fit import FitResult
from apps.lab.launch import Run, set_seed, start_run
from apps.lab.progress import say
from apps.lab.record import Figure, Record, new_record, write_record
from apps.lab.step_figure import draw_step
from apps.lab.variant import Variant
from apps.weather.atmosphere.grid import parse_resolution
from apps.weather.cost import EXACT_POINTS, cost_entries, cost_reports
from apps.weather.forecast.forecast import (
    COARSE,
    LEARNED,
    ForecastConfig,
    at_home,
    columns_of,
    verify_radiation,
)
from apps.weather.forecast.forecast import save_figure as forecast_figure
from apps.weather.forecast.simulate import ModelConfig, first_state
from apps.weather.forecast.verify import NOISE_FLOOR, PERSISTENCE
from apps.weather.learned.columns import (
    ColumnsConfig,
    LabelledColumns,
    cached_columns,
    check_columns,
    split_index,
)
from apps.weather.learned.emulator import (
    EMULATOR_FILE,
    Emulator,
    save_emulator,
)
from apps.weather.learned.figures import (
    flux_map_figure,
    history_figure,
    profile_figure,
    scatter_figure,
)
from apps.weather.learned.fitting import (
    NetworkConfig,
    fit_emulator,
    make_emulator,
    make_optimizer,
    tensors_of,
)
from apps.weather.learned.scheme import LearnedRadiation
from apps.weather.learned.scores import (
    COARSE_POINTS,
    baselines,
    cpu_ratio,
    forcing,
    forcing_error,
    score_scheme,
)
from apps.weather.physics import Clouds, ExactRadiation
from core.errors import ConfigError

APPLICATION = "weather"
CHECKPOINT_FILE = "checkpoint.safetensors"
# Columns of the training split that are scored, and of a timed call: the T21 grid.
N_SCORED_TRAIN = 4096
N_TIMED = 2048
# Calls of which the fastest counts: enough to find a quiet moment on a shared machine.
N_CALL = 200


class TrainConfig(Config):
    """Everything a training run depends on.

    Attributes
    ----------
    variant : Variant
        Density and number formats of the network; a preset's name will do.
    columns : ColumnsConfig
        What it learns from; kept beside the run folder for other runs.
    network : NetworkConfig
    forecast : ForecastConfig, optional
        The short online verification, at the resolution of the columns unless
        ``forecast.model.resolution`` is set; ``none`` leaves it out.
    cost : bool
        Model the cost on every machine.
    """

    variant: Variant = Variant(name="dense-fp32")
    columns: ColumnsConfig = ColumnsConfig()
    network: NetworkConfig = NetworkConfig()
    forecast: ForecastConfig | None = Field(default_factory=lambda: ForecastConfig(n_date=2))
    cost: bool = True

    @model_validator(mode="after")
    def _at_the_columns_resolution(self) -> TrainConfig:
        """Verify where the network lives: other levels would be refused once training is over."""
        if self.forecast is None:
            return self
        own, other = self.columns.resolution, self.forecast.model.resolution
        if "resolution" not in self.forecast.model.model_fields_set:
            forecast = at_home(self.forecast, {"columns": {"resolution": own}})
            object.__setattr__(self, "forecast", forecast)
        elif parse_resolution(own)[1] != parse_resolution(other)[1]:
            raise ConfigError(
                f"train: forecast.model.resolution = {other} has other levels than "
                f"columns.resolution = {own}, which the network learns; leave it out, or set both"
            )
        return self


def run(
    config: TrainConfig, *, out: Path, seed: int, device: str = "auto", resume: bool = False
) -> Record:
    """Train and judge one learned radiation scheme and leave the run in the folder `out`.

    Parameters
    ----------
    config : TrainConfig
    out : Path
        New or empty, or the run to resume. Receives `record.json`, `emulator.safetensors` and the
        figures; the columns go to its parent, once for all runs that share their configuration.
    seed : int
        Seeds columns, weights, patterns and the order of training.
    device : str
        "auto" and "cpu" train on the CPU: the network is too small to gain from more.
    resume : bool
        Go on where an interrupted run of the same configuration and seed stopped.

    Returns
    -------
    Record
        As written. Accuracy is that of the frozen scheme, against labels of the converged one.

    Raises
    ------
    DataError
        If the start of the columns cannot be read, or the folder holds something else.
    ConfigError
        If the settings do not fit together; the folder is not made then.
    """
    check_columns(config.columns)
    # what cannot be built is told before minutes are spent on columns
    n_level, spec = parse_resolution(config.columns.resolution)[1], config.variant.layer_spec()
    make_emulator(n_level, config.network, spec, torch.Generator())
    with start_run(
        out,
        config,
        seed=seed,
        device="cpu" if device == "auto" else device,
        resume=resume,
        command="weather train",
        application=APPLICATION,
    ) as place:
        with parallel.first_goes_first():
            found, sha256 = cached_columns(config.columns, seed=seed, folder=place.dir.parent)
        index = split_index(found.time_s, config.columns)
        parts = {name: found.take(rows) for name, rows in index.items()}
        generator = set_seed(seed)
        emulator = make_emulator(n_level, config.network, spec, generator)
        fitted = fit_emulator(
            emulator,
            parts["train"],
            parts["valid"],
            config.network,
            seed=seed,
            clouds=Clouds(),
            checkpoint=place.dir / CHECKPOINT_FILE,
            resume=resume,
            label=config.variant.name,
        )
        parallel.leave_unless_first()
        save_emulator(
            place.dir / EMULATOR_FILE,
            emulator,
            {"seed": seed, "columns": config.columns.model_dump(mode="json")},
        )
        data = {
            "name": f"columns of {config.columns.resolution} from {config.columns.start}",
            "source": "embedded",
            "sha256": sha256,
            **{f"n_{name}": len(part) for name, part in parts.items()},
            "unit": "K/day and W/m2",
        }
        record = _judged(config, place, emulator, fitted, parts, data, seed)
        write_record(place.dir, record)
    return record


def _judged(
    config: TrainConfig,
    place: Run,
    emulator: Emulator,
    fitted: FitResult,
    parts: dict[str, LabelledColumns],
    data: dict[str, Any],
    seed: int,
) -> Record:
    """Score the trained network on every split, in the model, and on every machine."""
    clouds, scheme = Clouds(), LearnedRadiation(emulator)
    exact = ExactRadiation(config.columns.label_longwave, config.columns.label_shortwave)
    some = torch.arange(min(N_SCORED_TRAIN, len(parts["train"])))
    scored = {**parts, "train": parts["train"].take(some)}
    accuracy = {name: score_scheme(scheme, part) for name, part in scored.items()}
    test = parts["test"]
    timed = test.take(torch.arange(min(N_TIMED, len(test))))
    accuracy["test"]["co2_forcing_w_m2"] = forcing(scheme, timed)
    accuracy["test"]["co2_forcing_error_w_m2"] = forcing_error(scheme, timed, exact)
    accuracy["test"]["radiation_cpu_ratio"] = cpu_ratio(exact, scheme, timed.columns)
    lines = baselines(parts["train"], {k: scored[k] for k in ("valid", "test")}, clouds)

    results = {config.variant.name: scheme(test.columns)}
    for name, points in COARSE_POINTS.items():
        results[name] = ExactRadiation(*points, clouds)(test.columns)
    figures: list[Figure | dict[str, str]] = [
        profile_figure(place.dir, test, results),
        scatter_figure(place.dir, test, results[config.variant.name]),
        _map(config, place, scheme, exact, seed),
        history_figure(place.dir, fitted.history),
    ]
    if config.forecast is not None:
        verified, _ = verify_radiation(config.forecast, scheme, seed=seed)
        accuracy["test"] |= verified.scores(LEARNED)
        for name in (PERSISTENCE, NOISE_FLOOR, COARSE):
            lines[name] = {"test": verified.scores(name)}
        figures.append(forecast_figure(verified, place.dir))
        say(str(verified), 1)
    walls = []
    for _ in range(N_CALL):
        begun = time.perf_counter()
        scheme(timed.columns)
        walls.append(time.perf_counter() - begun)
    cost = []
    if config.cost:
        batch = tensors_of(emulator, parts["train"].take(some[: config.network.batch]), clouds)
        reports = cost_reports(
            emulator,
            batch,
            variant=config.variant.name,
            make_optimizer=lambda model: make_optimizer(model, config.network),
            exact_points=EXACT_POINTS,
        )
        cost = cost_entries(reports)
        figures += draw_step((report for _, report in reports), place.dir)
    return new_record(
        application=APPLICATION,
        command="weather train",
        config=config,
        seed=seed,
        device=place.device,
        data=data,
        accuracy=accuracy,
        baselines=lines,
        throughput={
            "item": "column",
            "train_item_per_s": fitted.item_per_s,
            "infer_item_per_s": len(timed) / min(walls),
        },
        cost=cost,
        figures=figures,
        history=fitted.history,
    )


def _map(
    config: TrainConfig, place: Run, scheme: LearnedRadiation, exact: ExactRadiation, seed: int
) -> dict[str, str]:
    """Draw the globe at the start of the columns' run, whose first days are not trained on."""
    model = ModelConfig(resolution=config.columns.resolution).build()
    columns = columns_of(model, first_state(model, config.columns.start, seed))
    return flux_map_figure(place.dir, model.grid, exact(columns), scheme(columns))


def table(record: Record) -> str:
    """Spell what a run found, beside the lines that it had to beat."""
    metrics = ("lw_rmse_k_per_day", "sw_rmse_k_per_day", "r2_min", "olr_bias_w_m2")
    lines = {f"learned, {record.variant}": record.accuracy, **record.baselines}
    rows = [
        f"{name:32s}" + "".join(f"{scores['test'][metric]:>20.4f}" for metric in metrics)
        for name, scores in lines.items()
        if metrics[0] in scores["test"]
    ]
    head = f"{'on unseen days':32s}" + "".join(f"{metric:>20s}" for metric in metrics)
    test = record.accuracy["test"]
    tail = f"exact radiation takes {test['radiation_cpu_ratio']:.0f} times its CPU time"
    return "\n".join([head, *rows, tail])
