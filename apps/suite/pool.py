"""Runs of the applications in processes of their own: what the demo and studies share."""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import shutil
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from apps.lab.config import config_sha256, load_config
from apps.lab.launch import RUN_FILE
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


def run_jobs(jobs: Iterable[Job], n_job: int) -> Iterator[tuple[Job, Outcome]]:
    """Do the jobs, `n_job` processes at a time with one thread each; give each as it ends.

    A process that dies takes its neighbours' pool with it. Those that were under way are then
    tried again alone, so that only a job that kills its own process fails.
    """
    left = deque(jobs)
    while left:
        hurt: list[Job] = []
        yield from _in_one_pool(left, n_job, hurt)
        for job in hurt:
            alone: list[Job] = []
            yield from _in_one_pool(deque([job]), 1, alone)
            if alone:
                text = "the process of this run died, twice: was it killed, or out of memory?"
                yield job, Outcome("failed", problem=text)


def _in_one_pool(left: deque[Job], n_job: int, hurt: list[Job]) -> Iterator[tuple[Job, Outcome]]:
    """Take jobs from `left` until none is left or the pool breaks, which `hurt` then names."""
    spawn = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(n_job, mp_context=spawn, initializer=_end_with_parent)
    with _one_thread_each(), executor as pool:
        under_way: dict[Future[Outcome], Job] = {}
        try:
            while (left and not hurt) or under_way:
                while left and not hurt and len(under_way) < n_job:
                    job = left.popleft()
                    try:
                        under_way[pool.submit(work, job)] = job
                    except BrokenProcessPool:
                        hurt.append(job)
                ended, _ = wait(under_way, return_when=FIRST_COMPLETED)
                for future in ended:
                    job = under_way.pop(future)
                    try:
                        yield job, future.result()
                    except BrokenProcessPool:
                        hurt.append(job)
        except BaseException:  # interrupted, or nobody asks for more
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _end_with_parent() -> None:
    """Make this process end when the one that started it is killed, and let go of its run."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Let processes that start here load torch with one thread, so that results repeat."""
    name = "OMP_NUM_THREADS"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


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
    except TesseraError as error:
        return Outcome("failed", time.monotonic() - start, f"error: {error}")
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
    except (OSError, ValueError):
        return False
    return bool((there.get("config_sha256"), there.get("seed")) != (sha256, job.seed))
