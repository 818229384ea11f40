"""The command `tessera`: it finds the part that is asked for and loads nothing else."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any

# Name of the command -> (module, its typer application, what it does).
COMMANDS = {
    "demo": ("apps.suite.demo_cli", "app", "run both applications and write the report"),
    "chemistry": ("apps.chemistry.cli", "app", "molecular binding with a graph network"),
    "weather": ("apps.weather.cli", "app", "a global weather model with learned radiation"),
    "hw": ("apps.suite.hw_cli", "app", "machines, and what a program costs on them"),
    "study": ("apps.suite.study_cli", "app", "accuracy against cost over grids of settings"),
    "report": ("apps.suite.report_cli", "app", "one page from the records of runs"),
    "data": ("apps.suite.data_cli", "app", "real data sets: list and fetch"),
    "bench": ("apps.suite.bench_cli", "app", "measure kernels and applications against peers"),
}

EXIT_USAGE = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line (that of the process, if none is given) and give its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(_help())
        return 0
    if words[0] == "--version":
        from importlib.metadata import version

        print(version("tessera-ml"))
        return 0
    name, rest = words[0], words[1:]
    if name not in COMMANDS:
        import difflib

        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "see `tessera --help`"
        print(f"error: tessera has no command {name!r}; {hint}", file=sys.stderr)
        return EXIT_USAGE
    module, attribute, _ = COMMANDS[name]
    app: Any = getattr(importlib.import_module(module), attribute)
    try:
        app(args=rest, prog_name=f"tessera {name}")
    except SystemExit as leave:
        return leave.code if isinstance(leave.code, int) else int(leave.code is not None)
    return 0


def _help() -> str:
    lines = [f"  {name:<10} {text}" for name, (_, _, text) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: tessera COMMAND [OPTION ...]",
            "",
            "What accuracy and hardware cost become when a model is made sparse and",
            "low-precision: two scientific applications and a model of the machines.",
            "",
            *lines,
            "",
            "`tessera COMMAND --help` says more; `tessera --version` which version this is.",
        ]
    )
