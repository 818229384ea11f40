"""A file of molecules as columns: every bad row is reported and costs nobody the others."""

import difflib
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from apps.chemistry.datasets.rows import EMPTY, open_rows
from apps.chemistry.datasets.table import RowReport
from apps.chemistry.datasets.values import read_value
from core.errors import DataError


@dataclass(frozen=True)
class Sheet:
    """A file as text: header and rows of equal width."""

    name: str
    sha256: str
    """Hash of the file."""
    header: list[str]
    rows: list[list[str]]
    number: list[int]
    """Row number of each row, see `rows.Row`."""
    rejected: list[RowReport]
    """Rows that cannot be read, or of another width than the header."""

    def cells(self, name: str) -> list[str]:
        """Return column `name`, stripped, row for row."""
        place = place_of(name, self.header, self.name)
        return [row[place].strip() for row in self.rows]


def columns_text(header: list[str]) -> str:
    """Return the names of the first columns, for a message."""
    more = f" and {len(header) - 12} more" if len(header) > 12 else ""
    return ", ".join(repr(title) for title in header[:12]) + more


def place_of(name: str, header: list[str], file: str) -> int:
    """Return the place of column `name` in the header of `file`.

    Raises
    ------
    DataError
        If there is none or more than one; lists the columns there are.
    """
    place = [i for i, title in enumerate(header) if title == name]
    if len(place) == 1:
        return place[0]
    if place:
        raise DataError(
            f"{file}: column {name!r} stands {len(place)} times in the header; rename all but one"
        )
    near = difflib.get_close_matches(name, header, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise DataError(f"{file}: no column {name!r}; it has {columns_text(header)}{hint}")


def read_sheet(path: Path) -> Sheet:
    """Read a whole file of molecules; formats as `open_rows` has them.

    Raises
    ------
    DataError
        If the file is missing, is empty or has no row below its header.
    """
    rows: list[list[str]] = []
    number: list[int] = []
    rejected: list[RowReport] = []
    with open_rows(path) as opened:
        for row in opened.rows:
            if not row.problem:
                rows.append(row.cells)
                number.append(row.number)
            elif row.problem != EMPTY:
                rejected.append(RowReport(row.number, "", ",".join(row.cells)[:60], row.problem))
    if not rows:
        raise DataError(
            f"{path}: no row below the header fits it ({len(rejected)} rejected); "
            "expected at least one"
        )
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Sheet(path.name, sha256, opened.header, rows, number, rejected)


def read_targets(
    sheet: Sheet,
    names: list[str],
    *,
    relation_column: str | None = None,
    unit: str = "",
    unit_column: str | None = None,
) -> tuple[np.ndarray, np.ndarray, list[RowReport]]:
    """Read columns of measured values; see `values.read_value` for units and relations.

    Returns
    -------
    value : ndarray, float64 [row, task]
        NaN where the cell is empty, a word for missing, or no finite number.
    bound : ndarray, int8 [row, task]
        0 exact, 1 the true value lies above, -1 below.
    reports : list of RowReport
        One for each cell that is neither a value nor a word for missing.
    """
    columns = [sheet.cells(name) for name in names]
    n_row = len(sheet.rows)
    relation = sheet.cells(relation_column) if relation_column else [""] * n_row
    units = sheet.cells(unit_column) if unit_column else [unit] * n_row
    value = np.full((n_row, len(names)), np.nan)
    bound = np.zeros((n_row, len(names)), dtype=np.int8)
    reports: list[RowReport] = []
    for task, (name, column) in enumerate(zip(names, columns, strict=True)):
        for i, text in enumerate(column):
            read = read_value(text, relation=relation[i], unit=units[i])
            value[i, task], bound[i, task] = read.value, read.bound
            if read.problem:
                reports.append(RowReport(sheet.number[i], name, text, read.problem))
    return value, bound, reports
