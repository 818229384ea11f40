"""What a study asks: one TOML file, resolved to points."""

from __future__ import annotations

import hashlib
import importlib
import itertools
import random
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field

from apps.lab.config import NONE, Config, config_sha256, load_config, near_miss, toml_value
from apps.lab.recipe import Recipe
from core.errors import ConfigError

C = TypeVar("C", bound=Config)


class BreakEvenConfig(Config):
    """Layers of which the machine model alone says when sparse beats dense.

    Parameters
    ----------
    width : tuple of int
        Inputs and outputs of a square layer.
    block : tuple of int
    density : tuple of float
        Below 1; the dense layer is what they are held against.
    n_row : int
        Samples that go through the layer at once.
    number_format : str
    """

    width: tuple[int, ...] = (256, 512, 1024, 2048, 4096)
    block: tuple[int, ...] = (4, 8, 16, 32)
    density: tuple[float, ...] = (0.5, 0.25, 0.125, 0.0625)
    n_row: int = Field(default=256, ge=1)
    number_format: str = "fp32"


class HalvingConfig(Config):
    """A search that gives the better points more: all begin with the least budget.

    Parameters
    ----------
    budget : str
        The setting that is the budget, such as "train.n_epoch".
    steps : tuple of int
        Its values, rising.
    keep : float
        Share of the points that goes on each time, by validation error.
    """

    budget: str
    steps: tuple[int, ...] = Field(min_length=2)
    keep: float = Field(default=1 / 3, gt=0, lt=1)


class SweepConfig(Config):
    """Settings of one application that are varied together.

    Parameters
    ----------
    application : str
        "chemistry" or "weather".
    name : str
        What the report calls it; the application's name where it is left out.
    base : table
        Settings of all points, as ``--set`` takes them.
    grid : table
        Levers: for each setting a list of values; every combination is a point. The first value of
        a lever is what the others are compared with.
    sample : int, optional
        Draw that many combinations, without repetition, rather than take all.
    points : list of tables
        Further points, each a table of settings over `base`.
    seeds : tuple of int
        In place of the study's.
    halving : table, optional
        See `HalvingConfig`.
    """

    application: str
    name: str = ""
    base: dict[str, Any] = Field(default={})
    grid: dict[str, Any] = Field(default={})
    sample: int | None = Field(default=None, ge=1)
    points: tuple[dict[str, Any], ...] = ()
    seeds: tuple[int, ...] = ()
    halving: HalvingConfig | None = None


class StudyConfig(Config):
    """A study: sweeps, each with every seed.

    Parameters
    ----------
    seeds : tuple of int
        Each point is run with each; two or more tell a lever's effect from noise.
    machines : tuple of str
        What the report shows; every machine of the records where empty.
    break_even : table, optional
        See `BreakEvenConfig`; ``none`` leaves the map out.
    """

    title: str = "Accuracy against cost"
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    machines: tuple[str, ...] = ()
    break_even: BreakEvenConfig | None = BreakEvenConfig()
    sweep: tuple[SweepConfig, ...] = ()


@dataclass(frozen=True)
class Point:
    """One combination of lever values with one seed; `key` names the run that answers it.

    Combinations that come to the same configuration (blocks of a dense layer) share a key.
    """

    key: str
    application: str
    sweep: str
    seed: int
    levers: dict[str, Any]
    overrides: tuple[str, ...]


def read_study(file: Path) -> StudyConfig:
    """Read a study file.

    Raises
    ------
    ConfigError
        If it is missing, is not TOML, has an unknown key or machine, or asks for nothing.
    """
    try:
        content = tomllib.loads(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the study {file}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{file} is not valid TOML: {error}") from error
    tables = content.pop("sweep", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ConfigError(f"{file}: sweep must be tables, each begun with [[sweep]]")
    study = _load(StudyConfig, flat(content), str(file))
    sweeps = []
    for i, table in enumerate(tables, start=1):
        sweep = _load(SweepConfig, table, f"{file} [[sweep]] {i}")
        sweeps.append(sweep if sweep.name else sweep.model_copy(update={"name": sweep.application}))
    names = [sweep.name for sweep in sweeps]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{file}: two sweeps are named {name!r}; give one another name")
    if not sweeps and study.break_even is None:
        raise ConfigError(
            f"{file} asks for nothing: add a [[sweep]] with an application and a grid"
        )
    _check_machines(study, file)
    return study.model_copy(update={"sweep": tuple(sweeps)})


def resolve(study: StudyConfig, applications: Mapping[str, str]) -> list[Point]:
    """Give the points of all sweeps, seeds innermost.

    Raises
    ------
    ConfigError
        If an application, a lever or a value is not known; before anything is run.
    """
    found = []
    for sweep in study.sweep:
        asked = _combinations(sweep, f"[[sweep]] {sweep.name}")
        if sweep.halving is not None:
            first = sweep.halving.steps[0]
            asked = [{**settings, sweep.halving.budget: first} for settings in asked]
        found += points_of(sweep, asked, study.seeds, applications)
    return found


def flat(table: Mapping[str, Any], at: str = "") -> dict[str, Any]:
    """Write nested tables as one with dotted keys, as ``--set`` spells them."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        inner = isinstance(value, Mapping)
        found |= flat(value, f"{at}{key}.") if inner else {f"{at}{key}": value}
    return found


def _load(model: type[C], table: Mapping[str, Any], where: str) -> C:
    """Validate a table as if each key had been `--set`, and say where it stands in errors."""
    overrides = _overrides(table)
    try:
        return load_config(model, overrides=overrides)
    except ConfigError as error:
        text = str(error)
        raise ConfigError(
            text.replace("--set", where, 1) if "--set" in text else f"{where}: {text}"
        ) from error


def _overrides(table: Mapping[str, Any]) -> list[str]:
    """Spell settings as ``--set`` takes them, where ``none`` stands without quotes."""
    return [f"{key}={v if v == NONE else toml_value(v)}" for key, v in table.items()]


def _check_machines(study: StudyConfig, file: Path) -> None:
    import hw

    known = hw.machine_names()
    for name in study.machines:
        if name not in known:
            raise ConfigError(f"{file}: no machine is named {name!r}{near_miss(name, known)}")


def points_of(
    sweep: SweepConfig,
    asked: list[dict[str, Any]],
    seeds: tuple[int, ...],
    applications: Mapping[str, str],
) -> list[Point]:
    """Give the points of settings of one sweep, with each seed."""
    where = f"[[sweep]] {sweep.name}"
    if sweep.application not in applications:
        hint = near_miss(sweep.application, list(applications))
        raise ConfigError(f"{where}: no application is named {sweep.application!r}{hint}")
    model = importlib.import_module(applications[sweep.application]).TrainConfig
    base = flat(sweep.base)
    levers = list(dict.fromkeys(key for settings in asked for key in settings))
    points = []
    for settings in asked:
        table = {**base, **settings}
        config = _load(model, table, where)
        variant = getattr(config, "variant", None)
        if variant is not None and variant.density == 1.0:
            # a dense layer has neither blocks nor a pattern: all of these are the same run
            table["variant.block"] = type(variant).model_fields["block"].default
            recipes = [name for name, value in config if isinstance(value, Recipe)]
            table |= {f"{name}.method": "static" for name in recipes}
            config = _load(model, table, where)
        sha256 = config_sha256(config)
        for seed in sweep.seeds or seeds:
            name = hashlib.sha256(f"{sweep.application} {sha256}".encode()).hexdigest()[:12]
            points.append(
                Point(
                    key=f"{sweep.application}-{name}-{seed}",
                    application=sweep.application,
                    sweep=sweep.name,
                    seed=seed,
                    levers={k: settings.get(k, _value_at(config, k)) for k in levers},
                    overrides=tuple(_overrides(table)),
                )
            )
    return points


def _combinations(sweep: SweepConfig, where: str) -> list[dict[str, Any]]:
    """Give the settings of each point: of the grid (or a sample of it), then the listed ones."""
    grid = flat(sweep.grid)
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            raise ConfigError(f"{where}: the lever {key} needs a list of values, got {values!r}")
    found = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    if not grid and sweep.points:
        found = []
    if sweep.sample is not None and sweep.sample < len(found):
        picked = sorted(random.Random(0).sample(range(len(found)), sweep.sample))
        found = [found[i] for i in picked]
    return found + [flat(point) for point in sweep.points]


def _value_at(config: Config, key: str) -> Any:
    """Give the resolved value of a dotted key; a variant goes by its name."""
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part, None)
    if isinstance(value, Config):
        value = getattr(value, "name", None) or value.model_dump(mode="json")
    return list(value) if isinstance(value, tuple) else value
