"""Delimited text to columns: every bad row is reported and costs nobody the others."""

import csv
import difflib
import gzip
import hashlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from apps.chemistry.datasets.table import RowReport
from core.errors import DataError

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "-"})


@dataclass(frozen=True)
class Sheet:
    """A file as text: header and rows of equal width."""

    name: str
    sha256: str
    """Hash of the file."""
    header: list[str]
    rows: list[list[str]]
    number: list[int]
    """Row number of each row, the header being row 1."""
    rejected: list[RowReport]
    """Rows of another width than the header."""

    def columns_text(self) -> str:
        """Return the names of the first columns, for a message."""
        more = f" and {len(self.header) - 12} more" if len(self.header) > 12 else ""
        return ", ".join(repr(title) for title in self.header[:12]) + more

    def column(self, name: str) -> int:
        """Return the place of column `name`.

        Raises
        ------
        DataError
            If there is none or more than one; lists the columns there are.
        """
        place = [i for i, title in enumerate(self.header) if title == name]
        if len(place) == 1:
            return place[0]
        if place:
            raise DataError(
                f"{self.name}: column {name!r} stands {len(place)} times in the header; "
                "rename all but one"
            )
        near = difflib.get_close_matches(name, self.header, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise DataError(f"{self.name}: no column {name!r}; it has {self.columns_text()}{hint}")


def read_sheet(path: Path) -> Sheet:
    """Read a delimited text file (comma, semicolon or tab; plain or .gz).

    Parameters
    ----------
    path : Path
        The file; UTF-8, undecodable bytes are replaced.

    Returns
    -------
    Sheet

    Raises
    ------
    DataError
        If the file is missing, is empty or has no row below its header.
    """
    try:
        stored = path.read_bytes()
        raw = gzip.decompress(stored) if path.suffix == ".gz" else stored
    except (OSError, EOFError) as error:
        raise DataError(f"{path}: cannot be read ({error}); check the name and the file") from error
    text = raw.decode("utf-8-sig", errors="replace").replace("\0", "")
    first = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    header: list[str] = []
    rows: list[list[str]] = []
    number: list[int] = []
    rejected: list[RowReport] = []
    row = 0
    while True:
        row += 1
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            rejected.append(RowReport(row, "", "", f"not readable as a row ({error})"))
            continue
        if not header:
            header = [cell.strip() for cell in cells]
        elif len(cells) == len(header):
            rows.append(cells)
            number.append(row)
        elif any(cell.strip() for cell in cells):
            reason = f"{len(cells)} cells, the header has {len(header)}"
            rejected.append(RowReport(row, "", delimiter.join(cells)[:60], reason))
    if not any(header):
        raise DataError(f"{path}: the file is empty; expected a header and at least one row")
    if not rows:
        raise DataError(
            f"{path}: no row below the header fits it ({len(rejected)} rejected); "
            "expected at least one"
        )
    return Sheet(path.name, hashlib.sha256(stored).hexdigest(), header, rows, number, rejected)


def read_numbers(sheet: Sheet, names: Sequence[str]) -> tuple[list[list[float]], list[RowReport]]:
    """Read columns of numbers.

    Parameters
    ----------
    sheet : Sheet
        The file.
    names : sequence of str
        Columns, one per task.

    Returns
    -------
    values : list of list of float
        [row][task]; NaN where the cell is empty, a word for missing, or no finite number.
    reports : list of RowReport
        One for each cell that is neither a finite number nor a word for missing.
    """
    places = [sheet.column(name) for name in names]
    values: list[list[float]] = []
    reports: list[RowReport] = []
    for cells, row in zip(sheet.rows, sheet.number, strict=True):
        line = []
        for name, place in zip(names, places, strict=True):
            text = cells[place].strip()
            value = math.nan
            if text.lower() not in MISSING:
                try:
                    value = float(text)
                except ValueError:
                    reports.append(RowReport(row, name, text, f"{text[:40]!r} is not a number"))
                if math.isinf(value):
                    reports.append(RowReport(row, name, text, f"{text!r} is not finite"))
                    value = math.nan
            line.append(value)
        values.append(line)
    return values, reports
