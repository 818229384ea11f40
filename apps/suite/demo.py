"""Both applications in every variant, some at a time, then one report."""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import shutil
import time
import tomllib
import traceback
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from apps.lab.config import config_sha256, load_config
from apps.lab.launch import RUN_FILE
from apps.lab.progress import columns, say, set_verbosity
from apps.lab.record import RECORD_FILE
from apps.lab.variant import VARIANTS
from core.errors import TesseraError

# Application -> the module with its `TrainConfig` and its `run`.
APPLICATIONS = {"chemistry": "apps.chemistry.train", "weather": "apps.weather.train"}
SETTINGS = Path(__file__).with_name("demo.toml")
TITLE = "Accuracy and cost of sparse, low-precision science"


@dataclass(frozen=True)
class Job:
    """One run: which application, in which variant, where."""

    application: str
    module: str
    variant: str
    overrides: tuple[str, ...]
    folder: Path
    seed: int
    device: str

    @property
    def name(self) -> str:
        """What progress calls it."""
        return f"{self.application} {self.variant}"


@dataclass(frozen=True)
class Outcome:
    """How a job ended; `problem` is a sentence, or a traceback for a mistake of ours."""

    status: Literal["trained", "kept", "failed"]
    wall_s: float = 0.0
    problem: str = ""


def run_demo(
    out: Path,
    *,
    seed: int = 0,
    n_job: int = 2,
    device: str = "cpu",
    applications: Mapping[str, str] = APPLICATIONS,
) -> int:
    """Run every application in every variant, write `out`/report.html, print a table.

    Parameters
    ----------
    out : path
        Each run has its folder below it, ``chemistry-dense-fp32`` and so on. A finished run with
        the same settings and seed is kept, an unfinished one is resumed, one with other settings
        is run again.
    n_job : int
        Processes at a time, one thread each.
    applications : mapping of name to module
        Each module has a `TrainConfig` with a field `variant`, and
        ``run(config, *, out, seed, device, resume) -> Record``.

    Returns
    -------
    int
        0, or 1 if a run failed; the report then holds the others.
    """
    start = time.monotonic()
    jobs = _jobs(Path(out), seed, device, applications)
    say(f"demo: {len(jobs)} runs, {n_job} at a time, in {out}")
    finished: set[Path] = set()
    failed: list[str] = []
    spawn = multiprocessing.get_context("spawn")
    with _one_thread_each(), ProcessPoolExecutor(n_job, mp_context=spawn) as pool:
        waiting: dict[Future[Outcome], Job] = {pool.submit(work, job): job for job in jobs}
        try:
            for i_done, future in enumerate(as_completed(waiting), start=1):
                job = waiting[future]
                outcome = _outcome(future)
                say(f"[{i_done}/{len(jobs)}] {job.name}: {outcome.status}, {outcome.wall_s:.0f} s")
                if outcome.status == "failed":
                    say(outcome.problem, verbosity=0)
                    failed.append(job.name)
                else:
                    finished.add(job.folder)
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    folders = [job.folder for job in _shown(jobs) if job.folder in finished]
    if folders:
        from apps.lab.report import write_report

        page = write_report(folders, Path(out) / "report.html", TITLE)
        _print_table(folders)
        say(f"report: {page} ({time.monotonic() - start:.0f} s in all)")
    for name in failed:
        say(f"failed: {name}", verbosity=0)
    return 1 if failed else 0


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


def _jobs(out: Path, seed: int, device: str, applications: Mapping[str, str]) -> list[Job]:
    """Order the runs so that processes differ in application at first.

    The first run of an application may make data that the others share, so those come last.
    """
    settings = tomllib.loads(SETTINGS.read_text(encoding="utf-8"))
    grid = [
        Job(
            application=name,
            module=module,
            overrides=(f"variant={variant}", *settings.get(name, ())),
            variant=variant,
            folder=out / f"{name}-{variant}",
            seed=seed,
            device=device,
        )
        for name, module in reversed(list(applications.items()))
        for variant in VARIANTS
    ]
    first = [job for job in grid if job.variant == next(iter(VARIANTS))]
    rest = [job for job in grid if job not in first]
    return first + rest[::-1]


def _shown(jobs: list[Job]) -> list[Job]:
    """Order the runs as they are read: by application, then as the variants are listed."""
    names = list(VARIANTS)
    return sorted(jobs, key=lambda job: (job.application, names.index(job.variant)))


def _outcome(future: Future[Outcome]) -> Outcome:
    try:
        return future.result()
    except Exception as error:  # the worker died: killed, or out of memory
        return Outcome("failed", problem=f"the process of this run ended: {error}")


def work(job: Job) -> Outcome:
    """Do one job in this process: keep what is finished, else resume or run."""
    set_verbosity(0)
    start = time.monotonic()
    try:
        module = importlib.import_module(job.module)
        config = load_config(module.TrainConfig, overrides=job.overrides)
        if _holds_other_run(job, config_sha256(config)):
            shutil.rmtree(job.folder)
        elif (job.folder / RECORD_FILE).exists():
            return Outcome("kept", time.monotonic() - start)
        module.run(config, out=job.folder, seed=job.seed, device=job.device, resume=True)
    except TesseraError as error:
        return Outcome("failed", time.monotonic() - start, f"error: {error}")
    except Exception:
        return Outcome("failed", time.monotonic() - start, traceback.format_exc())
    return Outcome("trained", time.monotonic() - start)


def _holds_other_run(job: Job, sha256: str) -> bool:
    """Whether the folder holds a run of this demo with other settings, which is then made anew."""
    try:
        there = json.loads((job.folder / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool((there.get("config_sha256"), there.get("seed")) != (sha256, job.seed))


def _print_table(folders: list[Path]) -> None:
    """Print what a reader wants first: the leading metric, the best baseline, and the costs."""
    from apps.lab.report import summary_rows

    head = ("application", "variant", "accuracy on test", "best baseline", "speed", "energy saved")
    print(columns(head, summary_rows(folders)))
