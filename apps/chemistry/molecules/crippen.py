"""Logarithm of the partition coefficient and molar refraction, atom by atom.

Each atom, hydrogen too, has a type by what surrounds it, and each type two figures; RDKit brings
the types along as a table of patterns.

Source: Wildman and Crippen, Prediction of physicochemical parameters by atomic contributions,
J. Chem. Inf. Comput. Sci. 39 (1999) 868.
"""

import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rdkit import Chem, RDConfig

from apps.chemistry.molecules.patterns import (
    AROMATIC,
    DOUBLE,
    SINGLE,
    TRIPLE,
    AtomGraph,
    Patterns,
)
from apps.chemistry.molecules.tables import MolTables, compiled

_BOND = np.zeros(256, dtype=np.uint8)
_BOND[[int(t) for t in (Chem.BondType.SINGLE, Chem.BondType.DOUBLE, Chem.BondType.TRIPLE,
                        Chem.BondType.AROMATIC)]] = (SINGLE, DOUBLE, TRIPLE, AROMATIC)  # fmt: skip


class Contributions(NamedTuple):
    """What atoms contribute: logarithm of the partition coefficient, molar refraction."""

    atom: np.ndarray
    """float64 [atom, 2]: of the atoms of the tables."""
    whole: np.ndarray
    """float64 [molecule, 2]: sums that count all hydrogen."""


def contributions(tables: MolTables) -> Contributions:
    """Return what atoms and molecules contribute.

    Checked against: RDKit's `CalcCrippenDescriptors` and atom contributions.
    """
    graph, owner = _with_hydrogens(tables)
    patterns, figures = _types()
    each = figures[patterns.first_match(graph)]  # the last row is of atoms without a type
    mol = tables.owner[owner]
    whole = [np.bincount(mol, column, tables.n_mol) for column in each.T]
    return Contributions(each[: tables.element.size], np.stack(whole, axis=1))


# Where the table says aliphatic by its letters, RDKit, which carries a copy within, means any: to
# it the hydrogen of a pyrrole is one on nitrogen.
_MEANT = {
    "[#1][!C;!N;!O]": "[#1][!#6;!#7;!#8]",
    "[#1]O[!C;!N;!O;!S]": "[#1]O[!#6;!#7;!#8;!#16]",
}
_TABLE = Path(RDConfig.RDDataDir) / "Crippen.txt"


def is_at_hand() -> bool:
    """Whether types can be told: there is a compiler, and RDKit's table."""
    return compiled() is not None and _TABLE.is_file()


@functools.cache
def _types() -> tuple[Patterns, np.ndarray]:
    """Return the patterns and their figures, float64 [pattern + 1, 2]; the last are 0."""
    lines = _TABLE.read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines if line.strip() and not line.startswith("#")]
    figures = [[float(cell or 0.0) for cell in (*row[2:4], "", "")[:2]] for row in rows]
    smarts = [_MEANT.get(row[1], row[1]) for row in rows]
    return Patterns(smarts), np.array([*figures, [0.0, 0.0]])


def _with_hydrogens(tables: MolTables) -> tuple[AtomGraph, np.ndarray]:
    """Return the molecules with all hydrogen as atoms, at the end, and whose each atom is."""
    n = tables.element.size
    bearer = np.repeat(np.arange(n), tables.hydrogen)
    n_added = bearer.size
    added = np.arange(n, n + n_added)
    source = np.concatenate([tables.source, bearer, added])
    neighbour = np.concatenate([tables.target, added, bearer])
    single = np.full(n_added, SINGLE, dtype=np.uint8)
    bond = _BOND[tables.bond_type]
    bond = np.concatenate([bond, bond, single, single])
    order = np.argsort(source, kind="stable")
    size = np.bincount(source, minlength=n + n_added)
    ones = np.ones(n_added, dtype=np.int64)
    graph = AtomGraph(
        np.concatenate([tables.element, ones]),
        np.concatenate([tables.charge, 0 * ones]),
        np.concatenate([tables.hydrogen + tables.n_hydrogen, 0 * ones]),
        size,
        np.concatenate([tables.aromatic, 0 * ones]).astype(bool),
        np.concatenate([[0], np.cumsum(size)]),
        neighbour[order].astype(np.int32),
        bond[order],
    )
    return graph, np.concatenate([np.arange(n), bearer])
