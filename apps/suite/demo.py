"""Both applications in every variant, some at a time, then one report."""

from __future__ import annotations

import time
import tomllib
from collections.abc import Mapping
from pathlib import Path

from apps.lab.files import make_folder
from apps.lab.progress import columns, say
from apps.lab.variant import VARIANTS
from apps.suite.pool import APPLICATIONS, Job, interleaved, run_jobs

SETTINGS = Path(__file__).with_name("demo.toml")
TITLE = "Accuracy and cost of sparse, low-precision science"


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
    make_folder(Path(out))
    groups = _jobs(Path(out), seed, device, applications)
    jobs = interleaved(groups[::-1])
    say(f"demo: {len(jobs)} runs, {n_job} at a time, in {out}")
    failed: dict[Path, str] = {}
    for i_done, (job, outcome) in enumerate(run_jobs(jobs, n_job), start=1):
        say(f"[{i_done}/{len(jobs)}] {job.name}: {outcome.status}, {outcome.wall_s:.0f} s")
        if outcome.status == "failed":
            say(outcome.problem, verbosity=0)
            failed[job.folder] = job.name
    folders = [job.folder for group in groups for job in group if job.folder not in failed]
    if folders:
        from apps.lab.report import write_report

        page = write_report(folders, Path(out) / "report.html", TITLE)
        _print_table(folders)
        say(f"report: {page} ({time.monotonic() - start:.0f} s in all)")
    for name in failed.values():
        say(f"failed: {name}", verbosity=0)
    return 1 if failed else 0


def _jobs(out: Path, seed: int, device: str, applications: Mapping[str, str]) -> list[list[Job]]:
    """Give the runs of each application, in the order in which they are read."""
    settings = tomllib.loads(SETTINGS.read_text(encoding="utf-8"))
    return [
        [
            Job(
                name=f"{name} {variant}",
                module=module,
                overrides=(f"variant={variant}", *settings.get(name, ())),
                folder=out / f"{name}-{variant}",
                seed=seed,
                device=device,
            )
            for variant in VARIANTS
        ]
        for name, module in applications.items()
    ]


def _print_table(folders: list[Path]) -> None:
    """Print what a reader wants first: the leading metric, the best baseline, and the costs."""
    from apps.lab.report import summary_rows

    head = ("application", "variant", "accuracy on test", "best baseline", "speed", "energy saved")
    print(columns(head, summary_rows(folders)))
