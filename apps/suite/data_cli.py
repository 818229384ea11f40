"""`tessera data list` and `tessera data fetch`."""

from __future__ import annotations

from typing import Annotated

import typer

from apps.lab.options import JsonOption, QuietOption, VerboseOption, handle_errors

app = typer.Typer(
    help="Real data sets of the registry.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command("list")
@handle_errors
def list_command(json_: JsonOption = False, verbose: VerboseOption = False) -> None:
    """List the data sets: unit, licence, size, and whether they are here already."""
    import dataclasses
    import json

    from apps.lab.datastore import list_datasets
    from apps.lab.progress import columns

    listed = list_datasets()
    if json_:
        print(json.dumps([dataclasses.asdict(entry) for entry in listed], indent=1))
        return
    rows = [
        (e.name, e.here or "no", f"{e.byte / 1e3:,.0f} kbyte", e.licence, e.unit) for e in listed
    ]
    print(columns(("name", "here", "size", "licence", "unit"), rows))


@app.command()
@handle_errors
def fetch(
    name: Annotated[str, typer.Argument(help="A set (bace) or one file (davis/affinity).")],
    json_: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Get a data set from the mirror, the cache or its address, and check its hash."""
    import json

    from apps.lab.datastore import fetch_all

    files = fetch_all(name)
    if json_:
        keys = ("name", "source", "sha256", "unit", "licence")
        rows = [{"path": str(f.path), **{key: getattr(f, key) for key in keys}} for f in files]
        print(json.dumps(rows, indent=1))
    elif not quiet:
        for file in files:
            print(f"{file.name}: {file.path} ({file.source}; licence: {file.licence})")
