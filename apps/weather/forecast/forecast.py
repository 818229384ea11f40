"""The command's forecast: a trained scheme against the exact one, from several dates."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from apps.lab.config import C, Config
from apps.lab.figures import new_figure, save_svg
from apps.lab.launch import start_run
from apps.lab.record import Record, new_record, write_record
from apps.weather.atmosphere.grid import parse_resolution
from apps.weather.forecast.simulate import ModelConfig, first_state, run_data
from apps.weather.forecast.verify import (
    NOISE_FLOOR,
    PERSISTENCE,
    Truth,
    Verification,
    make_truth,
    radiation_cpu_s,
    score_forecasts,
)
from apps.weather.model import Model, ModelState
from apps.weather.physics import MOST_POINTS, Columns, ExactRadiation, Physics, Radiation
from core.errors import ConfigError

LEARNED, COARSE = "learned", "coarse_radiation"
# Holds the lines that are scored, until the record is written.
KEPT_FILE = "lines.safetensors"
FIGURE = {
    "file": "forecast.svg",
    "title": "Upper-level temperature error by lead",
    "caption": (
        "Root mean square error of temperature near sigma 0.2 against the exact scheme, mean over "
        "dates. The noise floor is the exact scheme from a start disturbed by 0.001 K."
    ),
    "wrong_if": (
        "the learned line lies below the noise floor, persistence is not the worst line, or an "
        "error does not grow with lead"
    ),
}


class ForecastConfig(Config):
    """Which forecasts are made, and the spectral points of the coarse exact scheme.

    ``model.resolution`` is the network's own unless it is set (`at_home`).
    """

    model: ModelConfig = ModelConfig()
    start: str = "sample"
    n_date: int = Field(default=4, ge=1, le=1000)
    spacing_day: int = Field(default=5, ge=1, le=360)
    lead_day: int = Field(default=5, ge=1, le=360)
    coarse_longwave: int = Field(default=16, ge=2, le=MOST_POINTS)
    coarse_shortwave: int = Field(default=8, ge=8, le=MOST_POINTS)


def at_home(config: C, meta: Mapping[str, Any]) -> C:
    """Give `config` at the resolution a network learned at, where ``model.resolution`` is not set.

    `meta` is what `learned.load_emulator` gives beside the network.
    """
    model: ModelConfig = config.model  # type: ignore[attr-defined]
    home = meta.get("columns", {}).get("resolution")
    if home is None or "resolution" in model.model_fields_set:
        return config
    return config.model_copy(update={"model": model.model_copy(update={"resolution": home})})


def check_moist(config: ModelConfig) -> None:
    """Raise ConfigError unless the model has radiation, before anything is run with it."""
    if config.physics != "moist":
        raise ConfigError(
            f"forecast: model.physics must be 'moist' to have radiation, got {config.physics!r}"
        )


def with_radiation(config: ModelConfig, radiation: Radiation, device: str = "cpu") -> Model:
    """Make the configured moist model with another radiation scheme."""
    check_moist(config)
    model = config.build(device)
    model.physics = Physics(radiation)
    return model


def verify_radiation(
    config: ForecastConfig,
    learned: Radiation,
    *,
    seed: int = 0,
    device: str = "cpu",
    kept: Path | None = None,
) -> tuple[Verification, dict[str, float]]:
    """Score `learned` and the coarse exact scheme; also CPU seconds of one radiation call each.

    Lines that the file `kept` holds from a stopped run are not scored again.

    Returns
    -------
    Verification
    dict of str to float
        CPU seconds of one call on all columns of the grid: ``exact``, ``learned``,
        ``coarse_radiation``, measured side by side.
    """
    truth = _truth(config, seed, device, kept)
    schemes = {LEARNED: with_radiation(config.model, learned, device)}
    found = score_forecasts(truth, schemes, kept)
    columns = columns_of(truth.model, truth.dates[0])
    exact = ExactRadiation(config.model.n_longwave, config.model.n_shortwave)
    cpu_s = {
        name: radiation_cpu_s(scheme, columns)
        for name, scheme in (("exact", exact), (LEARNED, learned), (COARSE, _coarse(config)))
    }
    return found, cpu_s


def _coarse(config: ForecastConfig) -> ExactRadiation:
    return ExactRadiation(config.coarse_longwave, config.coarse_shortwave)


@functools.lru_cache(maxsize=1)
def _truth(config: ForecastConfig, seed: int, device: str, kept: Path | None) -> Truth:
    """Run the truth and its baselines; kept, since variants are judged one after the other."""
    model = config.model.build(device)
    return make_truth(
        model,
        first_state(model, config.start, seed),
        others={COARSE: with_radiation(config.model, _coarse(config), device)},
        n_date=config.n_date,
        spacing_day=config.spacing_day,
        lead_day=config.lead_day,
        seed=seed,
        kept=kept,
    )


def columns_of(model: Model, state: ModelState) -> Columns:
    """Give the columns of a state as physics would see them now."""
    grid = model.equations.to_grid(state.levels.previous)
    columns = model.columns(grid, state.time_s)
    return columns._replace(humidity=columns.humidity.clamp(min=0.0))


def save_figure(found: Verification, folder: Path) -> dict[str, str]:
    """Draw error by lead into the run folder and give the figure's entry of a record."""
    figure, (axes,) = new_figure()
    for name, values in found.t_upper_rmse_k.items():
        axes.semilogy(found.lead_day, values, marker="o", label=name.replace("_", " "))
    axes.set_xlabel("lead, days")
    axes.set_ylabel("temperature RMSE, K")
    axes.set_xticks(found.lead_day)
    axes.legend()
    save_svg(figure, folder / FIGURE["file"])
    return FIGURE


def report(found: Verification, cpu_s: dict[str, float]) -> str:
    """Spell scores and CPU times as a table."""
    calls = "  ".join(f"{name} {1e3 * value:.1f} ms" for name, value in cpu_s.items())
    steps = "  ".join(f"{name} {value:.2f} s" for name, value in found.cpu_s_per_day.items())
    return "\n".join(
        [
            str(found),
            f"CPU time of one radiation call: {calls} "
            f"(exact / learned = {cpu_s['exact'] / cpu_s[LEARNED]:.0f})",
            f"CPU time of one simulated day: {steps}",
        ]
    )


def run(
    config: ForecastConfig,
    *,
    emulator: Path,
    out: Path,
    seed: int = 0,
    device: str = "auto",
    resume: bool = False,
) -> tuple[Record, str]:
    """Forecast with the scheme trained in the folder `emulator`; write record and figure.

    With `resume` a run that was stopped keeps the lines that it had scored; the truth is made
    again, to the same bits.

    Returns
    -------
    Record
        ``accuracy`` holds the learned scheme, ``baselines`` the other lines.
    str
        The table for a reader.
    """
    from apps.weather.learned import LearnedRadiation, load_emulator

    network, meta = load_emulator(emulator)
    config, learned = at_home(config, meta), LearnedRadiation(network)
    check_moist(config.model)
    learned.check_levels(parse_resolution(config.model.resolution)[1])
    with start_run(
        out,
        config,
        seed=seed,
        device=device,
        resume=resume,
        command="forecast",
        application="weather",
    ) as folder:
        kept = folder.dir / KEPT_FILE
        found, cpu_s = verify_radiation(
            config, learned, seed=seed, device=str(folder.device), kept=kept
        )
        record = new_record(
            application="weather",
            command="forecast",
            config=config,
            seed=seed,
            device=folder.device,
            data=run_data(config, config.start, config.n_date, "forecast"),
            accuracy={
                "test": {
                    **found.scores(LEARNED),
                    "noise_doubling_day": found.doubling_day,
                    "radiation_cpu_ratio": cpu_s["exact"] / cpu_s[LEARNED],
                }
            },
            baselines={
                name: {"test": found.scores(name)} for name in (PERSISTENCE, NOISE_FLOOR, COARSE)
            },
            figures=[save_figure(found, folder.dir)],
        )
        write_record(folder.dir, record)
        kept.unlink()
    return record, report(found, cpu_s)
