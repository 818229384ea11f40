"""A model state as a file from which a run goes on to the same bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from apps.lab.checkpoint import load_checkpoint, made_from, save_checkpoint
from apps.weather.atmosphere.grid import parse_resolution
from apps.weather.atmosphere.state import State
from apps.weather.atmosphere.stepping import TimeLevels
from apps.weather.model import Model, ModelState
from apps.weather.physics.columns import RadiationResult
from core.errors import DataError

SCHEMA = "tessera.weather-state/1"


def save_state(
    path: str | Path,
    model: Model,
    state: ModelState,
    note: str = "",
    extra: Mapping[str, Any] | None = None,
) -> Path:
    """Write both time levels, the clock and the radiation still in use, whole or not at all.

    Only the triangle n >= m of each field is stored; `note` says where the state comes from,
    `extra` holds JSON values of whoever runs the model (`load_extra`).
    """
    m, n = _triangle(model.grid.truncation)
    tensors: dict[str, Tensor] = {}
    for label, level in (("previous", state.levels.previous), ("current", state.levels.current)):
        for name, field in level._asdict().items():
            tensors[f"{label}.{name}"] = field[:, m, n]
    if state.radiation is not None and state.levels.n_step % model.n_step_radiation != 0:
        for name, field in state.radiation._asdict().items():
            tensors[f"radiation.{name}"] = field
    meta = {
        "schema": SCHEMA,
        "resolution": model.resolution,
        "half": list(model.levels.half),
        "scheme": model.levels.scheme,
        "dt": model.dt,
        "time_s": state.time_s,
        "n_step": state.levels.n_step,
        "note": note,
        "extra": dict(extra or {}),
    }
    return save_checkpoint(path, tensors, meta)


def load_state(path: str | Path, model: Model) -> ModelState:
    """Read a state for `model`; with the same step, dtype and physics it goes on bit for bit.

    Raises
    ------
    DataError
        If the file is missing, damaged, no weather state, or of another grid, other levels, or
        another step.
    """
    tensors, meta = _read(path)
    with made_from(path):
        return _state(path, tensors, meta, model)


def _state(
    path: str | Path, tensors: dict[str, Tensor], meta: dict[str, Any], model: Model
) -> ModelState:
    ours: dict[str, Any] = {
        "resolution": model.resolution,
        "half": list(model.levels.half),
        "scheme": model.levels.scheme,
        "dt": model.dt,
    }
    for name, value in ours.items():
        if meta[name] != value:
            raise DataError(
                f"{path} has {name} {meta[name]!r}, the model has {value!r}; "
                "use a state of the same grid, levels and step"
            )
    radiation = None
    if "radiation.toa_lw" in tensors:
        radiation = RadiationResult(
            *(
                tensors[f"radiation.{name}"].to(model.transform.device, model.transform.dtype)
                for name in RadiationResult._fields
            )
        )
    truncation = model.grid.truncation
    previous, current = (
        _level(tensors, label, truncation, model) for label in ("previous", "current")
    )
    levels = TimeLevels(previous, current, meta["n_step"])
    return ModelState(levels, meta["time_s"], radiation)


def load_extra(path: str | Path) -> dict[str, Any]:
    """Read the `extra` that `save_state` was given; empty without one."""
    extra = _read(path)[1].get("extra", {})
    return extra if isinstance(extra, dict) else {}


def begin_finer(path: str | Path, model: Model) -> ModelState:
    """Begin a run of `model` from a state of a coarser truncation on the same levels.

    Harmonics that the file does not have are nought; stepping starts with a forward step.

    Raises
    ------
    DataError
        If the file is no weather state, is finer than the model, or has other levels.
    """
    tensors, meta = _read(path)
    with made_from(path):
        return _finer(path, tensors, meta, model)


def _finer(
    path: str | Path, tensors: dict[str, Tensor], meta: dict[str, Any], model: Model
) -> ModelState:
    truncation, n_level = parse_resolution(meta["resolution"])
    if truncation > model.grid.truncation:
        raise DataError(
            f"{path} is of {meta['resolution']}, finer than the model's {model.resolution}; "
            f"run a model of T{truncation} or finer"
        )
    if meta["half"] != list(model.levels.half):
        raise DataError(
            f"{path} has {n_level} levels (half levels {_spelt(meta['half'])}), the model "
            f"{model.levels.n_level} ({_spelt(model.levels.half)}); give the model the file's "
            f"levels, T{model.grid.truncation}L{n_level}, or start from rest"
        )
    return model.begin(_level(tensors, "current", truncation, model), meta["time_s"])


def _spelt(half: Sequence[float]) -> str:
    return f"{half[0]:g}, {half[1]:g} .. {half[-1]:g}"


def _read(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors, meta = load_checkpoint(path)
    if meta.get("schema") != SCHEMA:
        raise DataError(
            f"{path} is no weather state (schema {meta.get('schema')!r}, expected {SCHEMA!r}); "
            "give a restart file of `tessera weather simulate`"
        )
    return tensors, meta


def _level(tensors: dict[str, Tensor], label: str, truncation: int, model: Model) -> State:
    """Unpack one time level of a file into the model's coefficients."""
    m, n = _triangle(truncation)
    transform, fields = model.transform, []
    for name in State._fields:
        packed = tensors[f"{label}.{name}"]
        field = transform.zeros(packed.shape[-1])
        field[:, m, n] = packed.to(transform.device, transform.dtype)
        fields.append(field)
    return State(*fields)


def _triangle(truncation: int) -> tuple[Tensor, Tensor]:
    m, n = torch.triu_indices(truncation + 1, truncation + 1)
    return m, n
