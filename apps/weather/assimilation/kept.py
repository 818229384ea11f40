"""An ensemble on its way through its cycles as a file, so that a stopped run goes on from there."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from apps.lab.checkpoint import load_checkpoint, made_from, save_checkpoint
from apps.weather.assimilation.cycle import Follow
from apps.weather.atmosphere.state import State
from apps.weather.atmosphere.stepping import TimeLevels
from apps.weather.model import ModelState
from apps.weather.physics.columns import RadiationResult


def save_follow(path: Path, found: Follow) -> None:
    """Write all of `found`, its members whole, or nothing."""
    first = found.members[0]
    tensors = {"means": torch.stack(found.means)}
    for label in ("previous", "current"):
        levels = [getattr(member.levels, label) for member in found.members]
        for name, fields in zip(State._fields, zip(*levels, strict=True), strict=True):
            tensors[f"{label}.{name}"] = torch.stack(fields)
    tensors["ranks"] = torch.as_tensor(found.ranks)
    if first.radiation is not None:
        for name in RadiationResult._fields:
            parts = [getattr(member.radiation, name) for member in found.members]
            tensors[f"radiation.{name}"] = torch.stack(parts)
    meta = {"time_s": first.time_s, "n_step": first.levels.n_step, "history": found.history}
    save_checkpoint(path, tensors, meta)


def load_follow(path: Path) -> Follow:
    """Read what `save_follow` wrote.

    Raises
    ------
    DataError
        If the file is damaged or holds something else.
    """
    tensors, meta = load_checkpoint(path)
    with made_from(path):
        members = [_member(tensors, meta, i) for i in range(len(tensors["current.vorticity"]))]
        return Follow(members, meta["history"], list(tensors["means"]), tensors["ranks"])


def _member(tensors: dict[str, Tensor], meta: dict, i: int) -> ModelState:
    previous, current = (
        State(*(tensors[f"{label}.{name}"][i].clone() for name in State._fields))
        for label in ("previous", "current")
    )
    radiation = None
    if "radiation.toa_lw" in tensors:
        radiation = RadiationResult(
            *(tensors[f"radiation.{name}"][i].clone() for name in RadiationResult._fields)
        )
    return ModelState(TimeLevels(previous, current, meta["n_step"]), meta["time_s"], radiation)
