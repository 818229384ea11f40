"""Following a run while it trains, in TensorBoard or Weights & Biases; never required.

`choose` is called once by the command line (``--track``); a run then has a tracker from `begin` to
`end`, to which `fit` gives the scores of every epoch. Everything stays in the run folder: W&B works
offline, and its runs are sent with ``wandb sync`` by whoever wants that. Numbers do not change.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from core.errors import ConfigError

KINDS = ("none", "tensorboard", "wandb")
FOLDER = "tracking"

_kind = "none"
_tracker: Tracker | None = None
_link: str | None = None


class Tracker(Protocol):
    """What a logger has to offer."""

    def log(self, label: str, step: int, values: Mapping[str, float]) -> None:
        """Take the values of one epoch of the training called `label`."""

    def close(self) -> None:
        """Write down what is left."""


class TensorBoardTracker:
    """Event files, for ``tensorboard --logdir``."""

    def __init__(self, folder: Path, config: Mapping[str, Any], name: str):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError(_missing("tensorboard")) from error
        self._writer = SummaryWriter(str(folder))
        self._writer.add_text("config", f"{name}: {dict(config)}")

    def log(self, label: str, step: int, values: Mapping[str, float]) -> None:
        """Write each value as a scalar of its own."""
        for key, value in values.items():
            self._writer.add_scalar(f"{label}/{key}", value, step)

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()


class WandbTracker:
    """An offline W&B run."""

    def __init__(self, folder: Path, config: Mapping[str, Any], name: str):
        try:
            import wandb
        except ImportError as error:
            raise ConfigError(_missing("wandb")) from error
        settings = wandb.Settings(silent=True, console="off")
        self._run = wandb.init(
            project="tessera",
            name=name,
            dir=str(folder),
            mode="offline",
            config=dict(config),
            settings=settings,
        )

    def log(self, label: str, step: int, values: Mapping[str, float]) -> None:
        """Log the values under the name of the training, with its epoch."""
        self._run.log({f"{label}/{k}": v for k, v in values.items()} | {f"{label}/epoch": step})

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


def choose(kind: str) -> None:
    """Choose what follows runs from now on, one of `KINDS`.

    Raises
    ------
    ConfigError
        If there is no such kind.
    """
    global _kind
    if kind not in KINDS:
        raise ConfigError(f"--track {kind}: expected {', '.join(KINDS)}")
    _kind = kind


def begin(folder: Path, config: Mapping[str, Any], *, name: str) -> None:
    """Start following the run in `folder`, if that was chosen."""
    global _tracker, _link
    end()
    _link = None
    if _kind == "none":
        return
    there = folder / FOLDER
    there.mkdir(parents=True, exist_ok=True)
    make = TensorBoardTracker if _kind == "tensorboard" else WandbTracker
    _tracker = make(there, config, name)
    _link = f"{FOLDER}/"


def log(label: str, row: Mapping[str, float]) -> None:
    """Give the scores of an epoch to the tracker, if there is one; ``epoch`` is the step."""
    if _tracker is not None:
        values = {key: value for key, value in row.items() if key != "epoch"}
        _tracker.log(label, int(row["epoch"]), values)


def link() -> str | None:
    """Give the folder of the present run's tracker, relative to the run folder."""
    return _link


def end() -> None:
    """Close the tracker, if there is one."""
    global _tracker
    if _tracker is not None:
        _tracker.close()
        _tracker = None


def _missing(package: str) -> str:
    return f"--track {package} needs {package}; install the extra: pip install tessera-ml[track]"
