"""Run what is missing of a study, write down each run as it ends, and then the report."""

from __future__ import annotations

import itertools
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path

from apps.lab.launch import LOCK_FILE, take_lock
from apps.lab.progress import say
from apps.suite.pool import APPLICATIONS, Job, interleaved, is_finished, run_jobs
from apps.suite.study.page import write_page
from apps.suite.study.search import promoted
from apps.suite.study.spec import Point, StudyConfig, read_study, resolve
from apps.suite.study.state import (
    STORE,
    STUDY_FILE,
    PointState,
    RunState,
    Session,
    StudyState,
    read_state,
    write_state,
)
from core.errors import DataError


def run_study(
    file: Path,
    out: Path,
    *,
    n_job: int = 2,
    device: str = "cpu",
    resume: bool = False,
    scheduler: str | None = None,
    minutes: float | None = None,
    applications: Mapping[str, str] = APPLICATIONS,
) -> int:
    """Run a study and write its report.

    Parameters
    ----------
    file : path
        The study, see `StudyConfig`.
    out : path
        New or empty, or with `resume` the folder of a study. Receives `study.json`, a run folder
        for each distinct configuration and seed below `points`, and `report.html`.
    n_job : int
        Processes at a time, one thread each.
    resume : bool
        Go on: finished runs are kept, also those of another study file, unfinished ones go on
        where they stopped, and failed ones are tried again.
    scheduler : str, optional
        Address of a dask scheduler that does the runs; its workers see `out` under the same path.
    minutes : float, optional
        Begin no run after that long: those under way are finished and the report is written; the
        rest waits for `resume`.

    Returns
    -------
    int
        0, or 1 if a run failed; the report then says which and why.

    Raises
    ------
    ConfigError
        If the file asks for what is not there; nothing is run then.
    DataError
        If the folder holds something else, or another process writes to it.
    """
    folder = Path(out)
    study = read_study(file)
    points = resolve(study, applications)
    known = _check_folder(folder, resume=resume)
    (folder / STORE).mkdir(parents=True, exist_ok=True)
    lock = take_lock(folder)
    try:
        state = _begin(study, points, known, folder)
        kept = state.count("done")
        say(f"study: {len(state.points)} points, {len(state.runs)} runs, {kept} kept, in {folder}")
        start, run_s, n_run, more = time.monotonic(), 0.0, 0, points
        end = math.inf if minutes is None else start + 60 * minutes
        while more:
            jobs = _jobs(state, more, folder / STORE, device, applications)
            n_begun, spent = _run(state, jobs, folder, n_job, scheduler, end)
            run_s += spent
            n_run += n_begun
            if n_begun < len(jobs):
                break
            more = promoted(study, points, folder / STORE, applications)
            points += more
            _add(state, more, folder, known)
        wall_s = time.monotonic() - start
        page = write_page(folder)
        if n_run:
            page_s = time.monotonic() - start - wall_s
            session = Session(n_job=n_job, n_run=n_run, run_s=run_s, wall_s=wall_s, page_s=page_s)
            state.sessions.append(session)
            write_state(folder, state)
            page = write_page(folder)  # with what this session took
            say(
                f"study: {n_run} runs of {run_s:.0f} s in {wall_s:.0f} s, {n_job} at a time; "
                f"overhead {100 * session.share:.1f} %"
            )
        if n_wait := state.count("waiting"):
            say(f"study: {n_wait} runs wait; go on with --resume")
        say(f"report: {page}")
    finally:
        if lock is not None:
            os.close(lock)
    return 1 if state.count("failed") else 0


def _check_folder(folder: Path, *, resume: bool) -> StudyState | None:
    if not folder.exists():
        return None
    if not folder.is_dir():
        raise DataError(f"--out {folder} is a file; choose a folder")
    if (folder / STUDY_FILE).exists():
        if not resume:
            hint = "continue it with --resume, or choose another --out"
            raise DataError(f"--out {folder} already holds a study; {hint}")
        try:
            return read_state(folder)
        except DataError as error:
            say(f"study: written anew: {error}")  # it can all be found again in the run folders
            return None
    if {path.name for path in folder.iterdir()} - {LOCK_FILE, STORE}:
        raise DataError(
            f"--out {folder} is not empty and holds no study; choose a new or empty folder"
        )
    return None


def _begin(
    study: StudyConfig, points: list[Point], known: StudyState | None, folder: Path
) -> StudyState:
    """Find what is finished, and write down the rest as waiting."""
    sessions = known.sessions if known else []
    state = StudyState(study=study, points=[], runs={}, sessions=sessions)
    _add(state, points, folder, known)
    return state


def _add(state: StudyState, points: list[Point], folder: Path, known: StudyState | None) -> None:
    """Take points into the state, finished or waiting, and write it down."""
    before = known.runs if known else {}
    for p in points:
        if p.key not in state.runs:
            done = is_finished(folder / STORE / p.key)
            wall_s = before[p.key].wall_s if p.key in before else 0.0
            state.runs[p.key] = RunState(status="done", wall_s=wall_s) if done else RunState()
        state.points.append(
            PointState(
                key=p.key, sweep=p.sweep, application=p.application, seed=p.seed, levers=p.levers
            )
        )
    write_state(folder, state)


def _run(
    state: StudyState,
    jobs: list[Job],
    folder: Path,
    n_job: int,
    scheduler: str | None,
    end: float,
) -> tuple[int, float]:
    """Run the jobs, none begun after `end` (monotonic seconds).

    Gives how many were run, and the seconds that they took, of all processes together.
    """
    in_time = itertools.takewhile(lambda _: time.monotonic() < end, jobs)
    i_done, spent = 0, 0.0
    for i_done, (job, outcome) in enumerate(run_jobs(in_time, n_job, scheduler), start=1):
        failed = outcome.status == "failed"
        spent += outcome.wall_s
        state.runs[job.folder.name] = RunState(
            status="failed" if failed else "done", wall_s=outcome.wall_s, problem=outcome.problem
        )
        write_state(folder, state)
        say(f"[{i_done}/{len(jobs)}] {job.name}: {outcome.status}, {outcome.wall_s:.0f} s")
        if failed:
            say(outcome.problem.strip().splitlines()[-1], verbosity=0)
    return i_done, spent


def _jobs(
    state: StudyState,
    points: list[Point],
    store: Path,
    device: str,
    applications: Mapping[str, str],
) -> list[Job]:
    """Give a job for each run that waits; those of one application and seed share inputs."""
    groups: dict[tuple[str, int], dict[str, Job]] = {}
    for point in points:
        if state.runs[point.key].status == "waiting":
            said = ", ".join(f"{name.rpartition('.')[2]} {v}" for name, v in point.levers.items())
            groups.setdefault((point.application, point.seed), {}).setdefault(
                point.key,
                Job(
                    name=f"{point.sweep}: {said or 'as it is'}, seed {point.seed}",
                    module=applications[point.application],
                    overrides=point.overrides,
                    folder=store / point.key,
                    seed=point.seed,
                    device=device,
                ),
            )
    return interleaved([list(jobs.values()) for jobs in groups.values()][::-1])
