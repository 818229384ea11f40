"""`tessera demo`."""

from __future__ import annotations

from pathlib import Path

import typer

from apps.lab.options import (
    DeviceOption,
    JobsOption,
    OutOption,
    QuietOption,
    SeedOption,
    VerboseOption,
    handle_errors,
)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
@handle_errors
def demo(
    out: OutOption = Path("runs/demo"),
    seed: SeedOption = 0,
    jobs: JobsOption = 2,
    device: DeviceOption = "cpu",
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Train both applications in four variants on embedded data, and write the report.

    An interrupted demo goes on where it stopped; finished runs are kept.
    """
    from apps.suite.demo import run_demo

    raise SystemExit(run_demo(out, seed=seed, n_job=jobs, device=device))
