"""`tessera study`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from apps.lab.options import (
    DeviceOption,
    JobsOption,
    OutOption,
    QuietOption,
    ResumeOption,
    SchedulerOption,
    VerboseOption,
    handle_errors,
)


class _RunUnlessNamed(TyperGroup):
    """Take ``tessera study FILE`` for ``tessera study run FILE``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        named = args and (args[0] in self.commands or args[0] == "--help")
        return super().parse_args(ctx, args if named or not args else ["run", *args])


app = typer.Typer(
    cls=_RunUnlessNamed,
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Accuracy against cost over grids of settings: tessera study FILE.toml --out DIR",
)


@app.command()
@handle_errors
def run(
    file: Annotated[Path, typer.Argument(help="The study.", metavar="FILE.toml")],
    out: OutOption = Path("runs/study"),
    jobs: JobsOption = 2,
    device: DeviceOption = "cpu",
    resume: ResumeOption = False,
    scheduler: SchedulerOption = None,
    minutes: Annotated[
        float | None, typer.Option(min=0, help="Begin no run after that long; go on with --resume.")
    ] = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Run every point of a study and write its report; the word `run` may be left out.

    A run that is finished is never made twice; after a stop, go on with --resume.
    """
    from apps.suite.study import run_study

    raise SystemExit(
        run_study(
            file,
            out,
            n_job=jobs,
            device=device,
            resume=resume,
            scheduler=scheduler,
            minutes=minutes,
        )
    )


@app.command()
@handle_errors
def export(
    folder: Annotated[Path, typer.Argument(help="Folder of a study.", metavar="DIR")],
    to: Annotated[Path, typer.Option("--to", help="Folder for NAME.json and NAME.html.")],
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Write what is worth keeping: one small JSON of all runs, and the report."""
    from apps.lab.progress import say
    from apps.suite.study.export import export as written

    for path in written(folder, to):
        say(f"written: {path} ({path.stat().st_size / 1e6:.2f} MB)")


@app.command()
@handle_errors
def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a study.", metavar="DIR")],
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Write the report of a study from the runs that are finished, also while it goes on."""
    from apps.lab.progress import say
    from apps.suite.study import write_page

    say(f"written: {write_page(folder)}")
