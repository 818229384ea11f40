"""A table of molecules with measured values and a split: what every model is trained on."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from apps.chemistry.molecules import MolGraph
from core.errors import DataError

SPLITS = ("train", "valid", "test")


class RowReport(NamedTuple):
    """One row that was left out or changed, or one value that was read as missing."""

    row: int
    """Row number in the file, the header being row 1."""
    column: str
    """Name of the column."""
    value: str
    """Text that stood there."""
    reason: str
    """What is wrong with it."""

    def __str__(self) -> str:
        return f"row {self.row}, column {self.column!r}: {self.reason}"


@dataclass(frozen=True)
class Table:
    """Molecules, targets and splits, row for row.

    Shape letters: M molecules, T tasks.
    """

    name: str
    """Name of the set, as printed in reports."""
    smiles: list[str]
    """[M] SMILES as they stood in the file, or of the standard form where that is another."""
    graphs: list[MolGraph]
    """[M]"""
    target: np.ndarray
    """float32 [M, T]; NaN where a task has no value for the molecule."""
    split: np.ndarray
    """str [M]: "train", "valid" or "test"."""
    row: np.ndarray
    """int64 [M]: row number in the file, the header being row 1."""
    target_names: list[str]
    """[T]"""
    unit: str
    """Unit of the target, such as pIC50."""
    sha256: str
    """Hash of the file (or of the generated text) the table was read from."""
    source: str
    """"embedded", "mirror", "cache", "download" or "file"."""
    extra: dict[str, np.ndarray] = field(default_factory=dict)
    """Further columns [M] by name, such as `cliff_mol` (bool)."""
    bound: np.ndarray | None = None
    """int8 [M, T]: 0 exact, 1 the true value lies above `target`, -1 below; None: all exact."""
    rejected: list[RowReport] = field(default_factory=list)
    """Rows left out, with the reason."""
    changed: list[RowReport] = field(default_factory=list)
    """Rows that were standardised or merged, with what was done."""

    def __len__(self) -> int:
        return len(self.smiles)

    def select(self, split: str) -> "Table":
        """Return the rows of one split ("train", "valid" or "test")."""
        if split not in SPLITS:
            raise DataError(f"Table.select: split must be one of {SPLITS}, got {split!r}")
        return self.take(np.nonzero(self.split == split)[0])

    def take(self, index: np.ndarray) -> "Table":
        """Return the rows `index` (int64 [row]), in that order."""
        return replace(
            self,
            smiles=[self.smiles[i] for i in index],
            graphs=[self.graphs[i] for i in index],
            target=self.target[index],
            split=self.split[index],
            row=self.row[index],
            extra={name: column[index] for name, column in self.extra.items()},
            bound=None if self.bound is None else self.bound[index],
        )

    @property
    def exact(self) -> np.ndarray:
        """float32 [M, T]: `target` without bounds (NaN there), what errors are counted on."""
        if self.bound is None:
            return self.target
        return np.where(self.bound == 0, self.target, np.nan).astype(np.float32)


def join_tables(tables: Sequence[Table]) -> Table:
    """Return the rows of several tables below each other, each table's tasks its own.

    A molecule of two tables keeps a row in each, for it may train one task and test another.
    """
    first = tables[0]
    if len(tables) == 1:
        return first
    n_task = np.cumsum([0, *(table.target.shape[1] for table in tables)])
    shape = (sum(map(len, tables)), n_task[-1])
    target = np.full(shape, np.nan, dtype=np.float32)
    bound = np.zeros(shape, dtype=np.int8)
    start = 0
    for i, table in enumerate(tables):
        block = slice(start, start + len(table)), slice(n_task[i], n_task[i + 1])
        target[block] = table.target
        bound[block] = 0 if table.bound is None else table.bound
        start += len(table)
    names = [
        table.name if len(table.target_names) == 1 else f"{table.name} {name}"
        for table in tables
        for name in table.target_names
    ]
    shared = set.intersection(*(set(table.extra) for table in tables))
    digest = hashlib.sha256("".join(table.sha256 for table in tables).encode())
    return Table(
        name=", ".join(table.name for table in tables),
        smiles=[smiles for table in tables for smiles in table.smiles],
        graphs=[graph for table in tables for graph in table.graphs],
        target=target,
        split=np.concatenate([table.split for table in tables]),
        row=np.concatenate([table.row for table in tables]),
        target_names=names,
        unit=first.unit,
        sha256=digest.hexdigest(),
        source=first.source,
        extra={name: np.concatenate([t.extra[name] for t in tables]) for name in sorted(shared)},
        bound=bound if bound.any() else None,
        rejected=[report for table in tables for report in table.rejected],
        changed=[report for table in tables for report in table.changed],
    )
