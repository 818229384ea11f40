"""Command-line options that the applications share, and how an error meets the user.

Imports nothing heavy: the commands' modules load this to print their help.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, ParamSpec, TypeVar

import typer

P = ParamSpec("P")
R = TypeVar("R")

EXIT_ERROR = 2
EXIT_INTERRUPTED = 130

ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="TOML file with settings.", show_default=False)
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change one setting: section.key=value. May be given again."),
]
VariantOption = Annotated[
    str | None,
    typer.Option("--variant", help="dense-fp32, dense-bf16, sparse-16x16-75, ... [dense-fp32]"),
]
OutOption = Annotated[Path, typer.Option("--out", "-o", help="Folder of the run; new or empty.")]
# Streams of a run are seeded with millions of times the seed, which has to fit 64 bits.
SeedOption = Annotated[
    int, typer.Option("--seed", help="Seed of every random choice.", min=0, max=2**40)
]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")]
JobsOption = Annotated[int, typer.Option("--jobs", "-j", help="Processes at a time.", min=1)]
TrackOption = Annotated[
    str, typer.Option("--track", help="Follow the training: none, tensorboard or wandb (offline).")
]
SchedulerOption = Annotated[
    str | None, typer.Option("--scheduler", help="Work on a dask scheduler: tcp://HOST:8786.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", help="Say more; show where an error came from.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def handle_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Make a command end on a user's error with one sentence on standard error and exit code 2.

    The command's own `quiet` and `verbose` options, where it has them, set what progress shows, and
    `track` what follows its trainings; with `verbose` the traceback is shown too. What the system
    refuses (a full disk, a place that cannot be written) is told in a sentence too; an error of any
    other kind is a mistake in this program and keeps its traceback.

    Examples
    --------
    >>> @app.command()  # doctest: +SKIP
    ... @handle_errors
    ... def train(out: OutOption, quiet: QuietOption = False, verbose: VerboseOption = False): ...
    """

    @functools.wraps(command)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        from apps.lab.progress import set_verbosity

        verbose = bool(kwargs.get("verbose"))
        set_verbosity(0 if kwargs.get("quiet") else 2 if verbose else 1)
        try:
            if kwargs.get("track", "none") != "none":
                from apps.lab import tracking

                tracking.choose(str(kwargs["track"]))
            return command(*args, **kwargs)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            raise SystemExit(EXIT_INTERRUPTED) from None
        except Exception as error:
            # Imported here: `core` loads torch, which a command's help should not wait for.
            from core.errors import TesseraError

            if verbose or not isinstance(error, TesseraError | OSError):
                raise
            print(f"error: {spelled(error)}", file=sys.stderr)
            raise SystemExit(EXIT_ERROR) from None

    return guarded


def spelled(error: Exception) -> str:
    """Give an error in one sentence; what the system says gets its file and a way on."""
    if not isinstance(error, OSError) or error.errno is None:
        return str(error)
    where = f" {error.filename}" if error.filename else ""
    hint = "see that the place exists, can be written and has room"
    hint += "; a training, a simulation or a study goes on with --resume"
    return f"the system refused a file{where}: {error.strerror}; {hint}"
