"""`tessera report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from apps.lab.options import QuietOption, VerboseOption, handle_errors

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
@handle_errors
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.", metavar="RUN...")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The page.")] = Path("report.html"),
    title: Annotated[str, typer.Option("--title", help="Its title.")] = "Accuracy and cost",
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Write one self-contained page from the records of runs; it opens without a network."""
    from apps.lab.progress import say
    from apps.lab.report import write_report

    say(f"written: {write_report(runs, out, title)}")
