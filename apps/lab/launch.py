"""How a run begins: its folder, its seed, its device."""

from __future__ import annotations

import json
import os
import random
import weakref
from pathlib import Path
from typing import Any

import torch

from apps.lab import parallel, tracking
from apps.lab.config import Config, config_sha256, config_toml
from apps.lab.files import is_part, make_folder, sweep, write_atomic
from core import keep_freed_memory
from core.errors import ConfigError, DataError

SCHEMA = "tessera.run/1"
RUN_FILE = "run.json"
CONFIG_FILE = "config.toml"
LOCK_FILE = ".lock"


class Run:
    """A run folder that this process alone writes to, until `close` or the process ends.

    Attributes
    ----------
    dir : Path
        The folder; `config.toml` and `run.json` are in it.
    device : torch.device
        Where the run computes.
    resumed : bool
        Whether the folder already held this run.
    """

    def __init__(self, folder: Path, device: torch.device, *, resumed: bool, lock: int | None):
        self.dir = folder
        self.device = device
        self.resumed = resumed
        self._release = weakref.finalize(self, os.close, lock) if lock is not None else None

    def close(self) -> None:
        """Let another process write to the folder, and end what tracks the run."""
        tracking.end()
        if self._release is not None:
            self._release()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def start_run(
    out: str | Path,
    config: Config,
    *,
    seed: int,
    device: str = "auto",
    resume: bool = False,
    command: str,
    application: str,
) -> Run:
    """Make or reopen the run folder `out` and write the resolved configuration into it.

    Under torchrun this is where processes find each other; the first alone checks, locks and writes
    the folder.

    Parameters
    ----------
    out : path
        New, empty, or left by a run that stopped before its first result (bad input, most
        often); with `resume`, also a folder of the same run.
    device : "auto", "cpu" or "cuda"

    Raises
    ------
    DataError
        If the folder holds something else, holds a run and `resume` is not set, holds a run with
        other settings, or is being written by another process.
    ConfigError
        If the device is not there.
    """
    parallel.join()
    keep_freed_memory()
    chosen = resolve_device(device)
    folder = Path(out)
    with parallel.first_goes_first():
        if not parallel.is_first():
            return Run(folder, chosen, resumed=resume, lock=None)
        run = _opened(folder, chosen, config, seed, resume, command, application)
        tracking.begin(folder, config.model_dump(mode="json"), name=f"{command} {folder.name}")
        return run


def _opened(
    folder: Path,
    device: torch.device,
    config: Config,
    seed: int,
    resume: bool,
    command: str,
    application: str,
) -> Run:
    if folder.exists() and not folder.is_dir():
        raise DataError(f"--out {folder} is a file; choose a folder")
    wanted = {
        "schema": SCHEMA,
        "application": application,
        "command": command,
        "seed": seed,
        "config_sha256": config_sha256(config),
    }
    is_new = not folder.exists() or _is_barely_begun(folder)
    if not is_new:
        _check_same_run(folder, wanted, resume=resume)
    make_folder(folder)
    lock = take_lock(folder)
    sweep(folder)
    if is_new:
        # in this order: a run that is killed in between is known by its first file as barely begun
        write_atomic(folder / RUN_FILE, json.dumps(wanted, indent=1) + "\n")
        write_atomic(folder / CONFIG_FILE, config_toml(config))
    return Run(folder, device, resumed=not is_new, lock=lock)


def take_lock(folder: Path) -> int | None:
    """Hold the folder until the descriptor that this gives is closed, or the process ends.

    None where the system has no such lock. Raises DataError if another process holds it.
    """
    try:
        import fcntl
    except ImportError:
        return None
    lock = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise DataError(
            f"--out {folder} is being written by another process; wait for it"
        ) from error
    return lock


def _is_barely_begun(folder: Path) -> bool:
    """Whether nothing is there, or only what `start_run` itself writes."""
    names = {path.name for path in folder.iterdir() if not is_part(path)} - {LOCK_FILE}
    return not names or (RUN_FILE in names and names <= {CONFIG_FILE, RUN_FILE})


def _check_same_run(folder: Path, wanted: dict[str, Any], *, resume: bool) -> None:
    try:
        there = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
        if not isinstance(there, dict):
            raise ValueError(f"{RUN_FILE} holds {type(there).__name__}")
    except (OSError, ValueError, RecursionError) as error:
        hint = "choose a new or empty folder"
        raise DataError(f"--out {folder} is not empty and is not a run folder; {hint}") from error
    if not resume:
        hint = "continue it with --resume, or choose another --out"
        raise DataError(f"--out {folder} already holds a run; {hint}")
    for key, value in wanted.items():
        if there.get(key) != value:
            hint = f"its settings are in {folder / CONFIG_FILE}; resume with those, or start anew"
            raise DataError(
                f"--resume: {folder} holds a run with {key} {there.get(key)!r}, "
                f"this one has {value!r}; {hint}"
            )


def set_seed(seed: int) -> torch.Generator:
    """Seed Python's and torch's global generators, and give an explicit one of the same seed."""
    random.seed(seed)
    torch.manual_seed(seed)
    return torch.Generator().manual_seed(seed)


def resolve_device(name: str) -> torch.device:
    """Give the device: "auto" is CUDA where there is one, else the CPU."""
    if name not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"--device {name}: expected auto, cpu or cuda")
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise ConfigError("--device cuda: torch sees no CUDA device; use --device cpu or auto")
    return torch.device("cuda" if there and name != "cpu" else "cpu")
