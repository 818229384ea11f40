"""`tessera bench`: starts the benchmarks, which lie in benchmarks/ of a checkout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from apps.lab.options import handle_errors

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(
    context_settings={
        "ignore_unknown_options": True,
        "allow_extra_args": True,
        "allow_interspersed_args": False,
    }
)
@handle_errors
def bench(
    context: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(help="kernels, chemistry, weather, hw (all, if left out) or scale_out."),
    ] = None,
) -> None:
    """Run one benchmark, with its own options after its name, or all of them."""
    import importlib

    files = sorted(file.stem for file in FOLDER.glob("[a-z]*.py"))
    whole = [file for file in files if "_" not in file]  # the others are parts of these, or tools
    there = [*whole, *(file for file in files if file == "scale_out")]
    if name is not None and name not in there:
        from apps.lab.config import near_miss
        from core.errors import ConfigError

        hint = near_miss(name, there) if there else f"; {FOLDER} holds none"
        raise ConfigError(f"there is no benchmark {name!r}{hint}")
    for one in [name] if name else whole:
        code = importlib.import_module(f"benchmarks.{one}").main(list(context.args))
        if code:
            raise SystemExit(code)
