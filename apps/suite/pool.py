"""Runs of the applications in processes of their own: what the demo and studies share."""

from __future__ import annotations

import importlib
import json
import shutil
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from apps.lab.config import config_sha256, load_config
from apps.lab.launch import RUN_FILE
from apps.lab.options import spelled
from apps.lab.pool import run_tasks
from apps.lab.progress import set_verbosity
from apps.lab.record import RECORD_FILE, read_record
from core.errors import DataError, TesseraError

# Application -> the module with its `TrainConfig` and its `run`.
APPLICATIONS = {"chemistry": "apps.chemistry.train", "weather": "apps.weather.train"}


@dataclass(frozen=True)
class Job:
    """One run: which application, with which settings, where; `name` is what progress calls it."""

    name: str
    module: str
    overrides: tuple[str, ...]
    folder: Path
    seed: int
    device: str


@dataclass(frozen=True)
class Outcome:
    """How a job ended; `problem` is a sentence, or a traceback for a mistake of ours."""

    status: Literal["trained", "kept", "failed"]
    wall_s: float = 0.0
    problem: str = ""


def run_jobs(
    jobs: Iterable[Job], n_job: int, scheduler: str | None = None
) -> Iterator[tuple[Job, Outcome]]:
    """Do the jobs as `apps.lab.pool.run_tasks` does; give each as it ends."""
    for ended in run_tasks(work, jobs, n_job=n_job, scheduler=scheduler):
        lost = Outcome("failed", problem=str(ended.error))
        yield ended.task, lost if ended.value is None else ended.value


def work(job: Job) -> Outcome:
    """Do one job in this process: keep what is finished, else resume or run."""
    set_verbosity(0)
    start = time.monotonic()
    try:
        module = importlib.import_module(job.module)
        config = load_config(module.TrainConfig, overrides=job.overrides)
        if _holds_other_run(job, config_sha256(config)):
            shutil.rmtree(job.folder)
        elif is_finished(job.folder):
            return Outcome("kept", time.monotonic() - start)
        module.run(config, out=job.folder, seed=job.seed, device=job.device, resume=True)
    except (TesseraError, OSError) as error:
        return Outcome("failed", time.monotonic() - start, f"error: {spelled(error)}")
    except Exception:
        return Outcome("failed", time.monotonic() - start, traceback.format_exc())
    return Outcome("trained", time.monotonic() - start)


def is_finished(folder: Path) -> bool:
    """Whether the run folder holds a record that can be read; a damaged one does not count."""
    if not (folder / RECORD_FILE).exists():
        return False
    try:
        read_record(folder)
    except DataError:
        return False
    return True


def interleaved(groups: Sequence[Sequence[Job]]) -> list[Job]:
    """Order jobs so that those of one group, which share inputs, do not wait for each other.

    The first job of a group makes what the group shares: these come first, in the order of the
    groups; then the rest, in the opposite one, so that what takes longest to make is named first.
    """
    return [jobs[0] for jobs in groups] + [job for jobs in groups[::-1] for job in jobs[:0:-1]]


def _holds_other_run(job: Job, sha256: str) -> bool:
    """Whether the folder holds a run with other settings, which is then made anew."""
    try:
        there = json.loads((job.folder / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    if not isinstance(there, dict):
        return False
    return bool((there.get("config_sha256"), there.get("seed")) != (sha256, job.seed))
