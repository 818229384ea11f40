"""A table of molecules with measured values and a split: what every model is trained on."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from apps.chemistry.molecules import MolGraph
from core.errors import DataError

SPLITS = ("train", "valid", "test")


class RowReport(NamedTuple):
    """One row that was left out, or one value that was read as missing."""

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
    """[M] SMILES as they stood in the file."""
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
    rejected: list[RowReport] = field(default_factory=list)
    """Rows left out, with the reason."""

    def __len__(self) -> int:
        return len(self.smiles)

    def select(self, split: str) -> "Table":
        """Return the rows of one split ("train", "valid" or "test")."""
        if split not in SPLITS:
            raise DataError(f"Table.select: split must be one of {SPLITS}, got {split!r}")
        return self.take(np.nonzero(self.split == split)[0])

    def take(self, index: np.ndarray) -> "Table":
        """Return the rows `index` (int64 [row]), in that order."""
        return Table(
            name=self.name,
            smiles=[self.smiles[i] for i in index],
            graphs=[self.graphs[i] for i in index],
            target=self.target[index],
            split=self.split[index],
            row=self.row[index],
            target_names=self.target_names,
            unit=self.unit,
            sha256=self.sha256,
            source=self.source,
            extra={name: column[index] for name, column in self.extra.items()},
            rejected=self.rejected,
        )
