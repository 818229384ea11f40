"""Progress for people: a bar on a terminal, silence in a log; messages go to standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from typing import TypeVar

T = TypeVar("T")

# 0 quiet, 1 as usual, 2 verbose; set once by the command line.
_verbosity = 1


def set_verbosity(level: int) -> None:
    """Choose what `say` and `track` show: 0 nothing but errors, 1 as usual, 2 more."""
    global _verbosity
    _verbosity = level


def say(text: str, verbosity: int = 1) -> None:
    """Print a line to standard error when the chosen verbosity is at least `verbosity`."""
    if _verbosity >= verbosity:
        print(text, file=sys.stderr, flush=True)


def columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align a small table for a terminal; nothing is cut, whatever the terminal's width."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [
        "  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    ]
    return "\n".join(lines)


def track(
    iterable: Iterable[T],
    label: str,
    total: int | None = None,
    *,
    note: Callable[[], str] | None = None,
) -> Iterator[T]:
    """Pass the items through, with a bar while standard error is a terminal.

    Parameters
    ----------
    total : int, optional
        Number of items where the iterable does not know its length.
    note : callable, optional
        Called after each item; its text stands behind the bar.
    """
    if _verbosity < 1 or not sys.stderr.isatty():
        yield from iterable
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Remaining())
    with Progress(
        *columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True), transient=True
    ) as bar:
        task = bar.add_task(label, total=total, note="")
        for item in iterable:
            yield item
            bar.update(task, advance=1, note=note() if note else "")
