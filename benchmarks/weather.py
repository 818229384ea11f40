"""`tessera bench weather`: the figures of the weather application, part by part.

Each part is a file `weather_PART.py` beside this one with a `main(arguments)`. Their rows are kept
in results/weather.jsonl, and WEATHER.md holds the newest of each question as tables.
"""

import argparse
import importlib
import json
import subprocess
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from apps.lab.config import load_config
from apps.lab.record import RECORD_FILE, Record, read_record

FOLDER = Path(__file__).resolve().parent
RESULTS, REPORT = FOLDER / "results" / "weather.jsonl", FOLDER / "WEATHER.md"

HEAD = """# Weather benchmarks

Written by `tessera bench weather --part PART --keep` from results/weather.jsonl; the newest row of
every question. Errors are on days (or dates) that the networks have not seen.
"""


def parts() -> list[str]:
    """Give the names of the parts there are."""
    return sorted(path.stem.removeprefix("weather_") for path in FOLDER.glob("weather_*.py"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one part with its own flags, or all with their defaults."""
    parser = argparse.ArgumentParser(
        prog="tessera bench weather", description=__doc__.splitlines()[0], add_help=False
    )
    parser.add_argument("--part", choices=parts(), help="all, one after the other, if left out")
    args, rest = parser.parse_known_args(arguments)
    if args.part is None and {"-h", "--help"} & set(rest):
        parser.print_help()
        return 0
    asked = [args.part] if args.part else parts()
    return max(importlib.import_module(f"benchmarks.weather_{part}").main(rest) for part in asked)


def present(
    part: str,
    rows: Iterable[dict[str, Any]],
    columns: Sequence[str],
    *,
    title: str,
    key: Sequence[str],
    is_json: bool,
    is_kept: bool,
) -> None:
    """Print rows as they come, as a table or as JSON lines; keep them where asked to.

    Parameters
    ----------
    part : str
    columns : sequence of str
        Of the table.
    title : str
        Over the table in the report.
    key : sequence of str
        Columns that tell one question from another: of equal ones the newest row is shown.
    is_json, is_kept : bool
    """
    if not is_json:
        print(title + "\n" + _line(columns, None), flush=True)
    for row in rows:
        row = {"part": part, "title": title, "columns": columns, "key": key, **row}
        print(json.dumps(row) if is_json else _line(columns, row), flush=True)
        if is_kept:
            RESULTS.parent.mkdir(exist_ok=True)
            with RESULTS.open("a", encoding="utf-8") as file:
                file.write(json.dumps({**row, "commit": commit()}) + "\n")
    if is_kept:
        REPORT.write_text(report(RESULTS.read_text(encoding="utf-8").splitlines()))


def record_of(
    args: argparse.Namespace, kind: type[Any], run: Callable[..., tuple[Record, Any]]
) -> Record:
    """Give the record in `args.out`; without one, begin the run or go on with it.

    `args` holds out, set, emulator and seed; `kind` is the class of the run's settings.
    """
    if (args.out / RECORD_FILE).exists():
        return read_record(args.out)
    config = load_config(kind, overrides=args.set)
    record, _ = run(
        config, emulator=args.emulator, out=args.out, seed=args.seed, resume=args.out.exists()
    )
    return record


def commit() -> str:
    """Give the commit measured, "-dirty" where code has changed since; kept rows are no code."""

    def git(*words: str) -> str:
        found = subprocess.run(["git", *words], cwd=FOLDER, capture_output=True, text=True)
        return found.stdout.strip()

    kept = (f":!{path.relative_to(FOLDER)}" for path in (RESULTS, REPORT))
    changed = git("diff", "--name-only", "HEAD", "--", ":/", *kept)
    return git("rev-parse", "--short", "HEAD") + ("-dirty" if changed else "")


def report(lines: Iterable[str]) -> str:
    """Give the report that kept rows make."""
    newest: dict[str, dict[tuple[Any, ...], dict[str, Any]]] = {}
    for line in lines:
        row = json.loads(line)
        of_part = newest.setdefault(row["part"], {})
        of_part.pop(name := tuple(str(row.get(k)) for k in row["key"]), None)
        of_part[name] = row
    out = [HEAD]
    for part, found in sorted(newest.items()):
        last = list(found.values())[-1]
        columns = [*last["columns"], "commit"]
        out.append(f"\n## {part}\n\n{last['title']}\n\n| " + " | ".join(columns) + " |")
        out.append("|" + "---|" * len(columns))
        out += [
            "| " + " | ".join(_cell(row.get(c)) for c in columns) + " |" for row in found.values()
        ]
    return "\n".join(out) + "\n"


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _line(columns: Sequence[str], row: dict[str, Any] | None) -> str:
    short = [c if row is None else _cell(row.get(c)) for c in columns]
    return "".join(f"{cell:>{max(len(c), 8) + 2}s}" for cell, c in zip(short, columns, strict=True))
