"""The pieces that the page is put together from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from apps.lab.record import Record


@dataclass(frozen=True)
class RunOf:
    """A record, the folder it came from, and the address of its file as seen from the page."""

    record: Record
    folder: Path
    href: str


@dataclass(frozen=True)
class MachineName:
    """How a machine is called in words, and whether its memory is that of many tiles."""

    title: str
    has_tiles: bool


@dataclass(frozen=True)
class Cell:
    """A number in a table, and where it stands."""

    text: str
    href: str = ""
    mark: str = ""
    tip: str = ""


@dataclass(frozen=True)
class Row:
    """A line of a table; `kind` is "model", "member" or "baseline"."""

    label: str
    kind: str
    cells: list[Cell]
    index: int | None = None


@dataclass(frozen=True)
class Line:
    """The runs of one variant with one configuration: several where seeds differ."""

    label: str
    index: int
    runs: list[RunOf]

    @property
    def href(self) -> str:
        """Where the record of the first run is."""
        return self.runs[0].href


def ordered(names: Iterable[str]) -> list[str]:
    """Drop repetitions, keep the order of first appearance."""
    return list(dict.fromkeys(names))
