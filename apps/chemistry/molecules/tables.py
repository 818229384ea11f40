"""Atoms and bonds of many molecules as arrays: what vectorised and compiled features read."""

import ctypes
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rdkit import Chem
from rdkit.Chem import rdMolDescriptors

from core.kernels.load import library

_P, _L, _I = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32
_ATOM = ("element", "charge", "hydrogen", "hybridisation", "valence", "pi", "isotope", "aromatic",
         "rings")  # fmt: skip
_BOND = ("begin", "end", "bond_type", "in_ring")
LARGE_RING = 8  # rings of this size and larger are told as one


@dataclass(frozen=True)
class MolTables:
    """Sanitised molecules, one after the other.

    Shape letters: M molecules, A atoms and B bonds of all. Arrays are int32 where nothing is said.
    """

    mols: Sequence[Chem.Mol]
    """[M]"""
    first_atom: np.ndarray
    """int64 [M + 1]: atoms of molecule i are those from `first_atom[i]` to `first_atom[i + 1]`."""
    first_bond: np.ndarray
    """int64 [M + 1]"""
    element: np.ndarray
    """[A]"""
    charge: np.ndarray
    """[A]"""
    hydrogen: np.ndarray
    """[A]: hydrogen atoms that are none of the A."""
    hybridisation: np.ndarray
    """[A]: as RDKit numbers it."""
    valence: np.ndarray
    """[A]: all bonds, those to hydrogen included."""
    pi: np.ndarray
    """[A]: pi electrons, as RDKit counts them in fingerprints of atom pairs."""
    isotope: np.ndarray
    """[A]"""
    aromatic: np.ndarray
    """[A]: 0 or 1."""
    rings: np.ndarray
    """[A]: bit s is set where a ring of s atoms holds it; bit `LARGE_RING` for larger ones too."""
    begin: np.ndarray
    """[B]: number of an atom, counted within the molecule."""
    end: np.ndarray
    """[B]"""
    bond_type: np.ndarray
    """[B]: as RDKit numbers it."""
    in_ring: np.ndarray
    """[B]: 0 or 1."""

    @classmethod
    def of(cls, mols: Sequence[Chem.Mol]) -> "MolTables":
        """Read molecules with the rings that sanitisation finds."""
        first_atom, first_bond = (
            np.concatenate([np.zeros(1, np.int64), np.cumsum(n, dtype=np.int64)])
            for n in ([m.GetNumAtoms() for m in mols], [m.GetNumBonds() for m in mols])
        )
        atoms = np.zeros((len(_ATOM), first_atom[-1]), dtype=np.int32)
        bonds = np.zeros((len(_BOND), first_bond[-1]), dtype=np.int32)
        fine = np.zeros(len(mols), dtype=np.uint8)
        kernels = compiled()
        if kernels is not None and len(mols):
            parts = [mol.ToBinary() for mol in mols]
            data = b"".join(parts)
            start = np.cumsum([0, *map(len, parts)], dtype=np.int64)
            kernels.tessera_read_molecules(
                data, start.ctypes.data, len(mols), first_atom.ctypes.data,
                first_bond.ctypes.data, atoms.ctypes.data, bonds.ctypes.data, fine.ctypes.data,
            )  # fmt: skip
        for i in np.nonzero(fine == 0)[0].tolist():
            own = slice(first_atom[i], first_atom[i + 1]), slice(first_bond[i], first_bond[i + 1])
            _ask(mols[i], atoms[:, own[0]], bonds[:, own[1]])
        return cls(mols, first_atom, first_bond, *atoms, *bonds)

    @classmethod
    def among(cls, mols: "Molecules") -> "MolTables":
        """Return the tables that are at hand, or else make them."""
        return mols if isinstance(mols, MolTables) else cls.of(mols)

    @property
    def n_mol(self) -> int:
        """M."""
        return len(self.mols)

    @property
    def pointers(self) -> tuple[int, ...]:
        """How compiled functions are told of the molecules: number, then arrays of the graph."""
        arrays = (self.first_atom, self.first_bond, self.element, self.begin, self.end)
        return self.n_mol, *(array.ctypes.data for array in (*arrays, self.bond_type))

    @functools.cached_property
    def owner(self) -> np.ndarray:
        """int64 [A]: number of the molecule that each atom is of."""
        return np.repeat(np.arange(self.n_mol), np.diff(self.first_atom))

    @functools.cached_property
    def degree(self) -> np.ndarray:
        """int64 [A]: neighbours among the atoms."""
        return np.bincount(self.source, minlength=self.element.size)

    @functools.cached_property
    def n_hydrogen(self) -> np.ndarray:
        """int64 [A]: hydrogen atoms among the neighbours that are atoms of their own."""
        is_hydrogen = self.element[self.target] == 1
        return np.bincount(self.source[is_hydrogen], minlength=self.element.size)

    @functools.cached_property
    def source(self) -> np.ndarray:
        """int64 [2 B]: the atom, counted over all, that each bond leaves from; then the other."""
        return np.concatenate([self._counted(self.begin), self._counted(self.end)])

    @functools.cached_property
    def target(self) -> np.ndarray:
        """int64 [2 B]: the atom at the other end."""
        return np.concatenate([self._counted(self.end), self._counted(self.begin)])

    def _counted(self, atom: np.ndarray) -> np.ndarray:
        return atom + np.repeat(self.first_atom[:-1], np.diff(self.first_bond))


# What features and fingerprints are asked of: tables save time where several are.
Molecules = Sequence[Chem.Mol] | MolTables


def _ask(mol: Chem.Mol, atoms: np.ndarray, bonds: np.ndarray) -> None:
    """Fill the columns of one molecule by asking each atom and bond."""
    for i, atom in enumerate(mol.GetAtoms()):
        atoms[:, i] = (
            atom.GetAtomicNum(),
            atom.GetFormalCharge(),
            atom.GetTotalNumHs(),
            int(atom.GetHybridization()),
            atom.GetTotalValence(),
            rdMolDescriptors.GetAtomPairAtomCode(atom) >> 3 & 3,
            atom.GetIsotope(),
            atom.GetIsAromatic(),
            0,
        )
    for k, bond in enumerate(mol.GetBonds()):
        bonds[:, k] = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), int(bond.GetBondType()), 0
    rings = mol.GetRingInfo()
    for ring in rings.AtomRings():
        atoms[-1, list(ring)] |= 1 << min(len(ring), LARGE_RING)
    bonds[-1, [bond for ring in rings.BondRings() for bond in ring]] = 1


@functools.cache
def compiled() -> ctypes.CDLL | None:
    """Return the compiled functions of this folder, or None without a compiler."""
    found = library(folder=Path(__file__).resolve().parent)
    if found is not None:
        found.tessera_read_molecules.argtypes = [ctypes.c_char_p, _P, _L, _P, _P, _P, _P, _P]
        found.tessera_read_molecules.restype = None
        graph: list[type[ctypes._SimpleCData[Any]]] = [_L, _P, _P, _P, _P, _P, _P]
        found.tessera_make_keys.argtypes = [*graph, _P, _I, _I, _I, _P]
        found.tessera_make_keys.restype = _L
        found.tessera_take_keys.argtypes = [_P]
        found.tessera_take_keys.restype = None
        found.tessera_sum_paths.argtypes = [*graph, _P, _P]
        found.tessera_sum_paths.restype = None
        found.tessera_index_keys.argtypes = [_P, _L, _I, _P]
        found.tessera_index_keys.restype = None
        found.tessera_share_keys.argtypes = [
            _L, _P, _P, _P, _I, _P, _P, _P, _L, _P, _P, _L, _P, _P,
        ]  # fmt: skip
        found.tessera_share_keys.restype = None
        found.tessera_tanimoto.argtypes = [_L, _L, _P, _P, _P, _P, _P]
        found.tessera_tanimoto.restype = None
        found.tessera_first_match.argtypes = [_L, _P, _P, _P, _P, _I, _P, _P, _P]
        found.tessera_first_match.restype = None
    return found
