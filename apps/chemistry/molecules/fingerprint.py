"""Unfolded count fingerprints and their min-max similarity.

A count vector is stored as a set: environment `e` that occurs `c` times becomes the `c` keys
(e, 0) ... (e, c-1). The sum of minima of two count vectors is then the size of the intersection
of two sets, and the min-max kernel is the Tanimoto similarity of the sets.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from rdkit import Chem
from rdkit.Chem import rdFingerprintGenerator as generators
from scipy import sparse

_KINDS = {
    "ecfp4": lambda: generators.GetMorganGenerator(radius=2),
    "ecfp6": lambda: generators.GetMorganGenerator(radius=3),
    "fcfp4": lambda: generators.GetMorganGenerator(
        radius=2, atomInvariantsGenerator=generators.GetMorganFeatureAtomInvGen()
    ),
    "atom_pair": lambda: generators.GetAtomPairGenerator(),
    "torsion": lambda: generators.GetTopologicalTorsionGenerator(),
    "path5": lambda: generators.GetRDKitFPGenerator(maxPath=5),
}
KINDS = tuple(_KINDS)
_REPEAT_STEP = np.uint64(0x9E3779B97F4A7C15)  # odd, so that (key, repeat) pairs stay spread out
_FREQUENT = 0.02  # share of rows above which a key is cheaper as a dense column of bytes
_BLOCK_ROW = 1000  # rows of the product worked out at a time


class KeySets(NamedTuple):
    """The keys of M molecules, one after the other."""

    start: np.ndarray
    """int64 [M + 1]: keys of molecule i are `key[start[i]:start[i + 1]]`."""
    key: np.ndarray
    """uint64 [entry]"""

    @property
    def size(self) -> np.ndarray:
        """int64 [M]: number of keys of each molecule."""
        return np.diff(self.start)

    @property
    def row(self) -> np.ndarray:
        """int64 [entry]: molecule of each key."""
        return np.repeat(np.arange(self.size.size), self.size)

    def folded(self, n_bit: int) -> np.ndarray:
        """Return float32 [M, n_bit]: 1 where a key falls on the bit."""
        bits = np.zeros((self.size.size, n_bit), dtype=np.float32)
        bits[self.row, (self.key % np.uint64(n_bit)).astype(np.int64)] = 1.0
        return bits


def key_sets(mols: Iterable[Chem.Mol], kind: str, *, binary: bool = False) -> KeySets:
    """Return the fingerprints of molecules.

    Parameters
    ----------
    mols : iterable of Mol
        Sanitised molecules.
    kind : str
        One of `KINDS`: "ecfp4", "ecfp6", "fcfp4" (Morgan environments), "atom_pair", "torsion",
        "path5" (paths and branches of up to five bonds).
    binary : bool
        Leave counts out: each environment is one key, however often it occurs.
    """
    generator = _KINDS[kind]()
    keys, times = [], []
    for mol in mols:
        count = generator.GetSparseCountFingerprint(mol).GetNonzeroElements()
        keys.append(np.fromiter(count.keys(), dtype=np.uint64, count=len(count)))
        times.append(np.fromiter(count.values(), dtype=np.int64, count=len(count)))
    start = np.cumsum([0, *(key.size for key in keys)])
    key = np.concatenate([np.empty(0, dtype=np.uint64), *keys])
    if binary:
        return KeySets(start, key)
    end = np.cumsum(np.concatenate([np.zeros(1, dtype=np.int64), *times]))
    repeat = np.arange(end[-1]) - np.repeat(end[:-1], np.diff(end))
    key = np.repeat(key, np.diff(end)) + repeat.astype(np.uint64) * _REPEAT_STEP
    return KeySets(end[start], key)


def tanimoto(a: KeySets, b: KeySets) -> np.ndarray:
    """Return float32 [A, B]: |intersection| / |union| of the keys of each pair, 0..1.

    Two molecules without any key have similarity 1.

    Notes
    -----
    Checked against: Python sets, and RDKit's own similarity, in the tests.
    """
    return KeyIndex.of(b).similarity(a)


@dataclass(frozen=True)
class KeyIndex:
    """Fingerprints prepared once, for others to be compared with again and again.

    Keys of many rows go through one dense product of bytes, the others through a sparse one.
    """

    size: np.ndarray
    """float32 [row]: number of keys."""
    vocabulary: np.ndarray
    """uint64 [column]: all keys, sorted."""
    place: np.ndarray
    """int64 [column]: place among the frequent keys, or among the rare ones."""
    is_frequent: np.ndarray
    """bool [column]"""
    frequent: torch.Tensor
    """int8 [frequent key, row]"""
    rare: sparse.csr_matrix
    """float32 [rare key, row]"""

    @classmethod
    def of(cls, keys: KeySets) -> "KeyIndex":
        """Prepare fingerprints."""
        vocabulary, column, times = np.unique(keys.key, return_inverse=True, return_counts=True)
        is_frequent = times > _FREQUENT * keys.size.size
        place = np.where(is_frequent, np.cumsum(is_frequent), np.cumsum(~is_frequent)) - 1
        empty = torch.empty((0, 0), dtype=torch.int8), sparse.csr_matrix((0, 0))
        index = cls(keys.size.astype(np.float32), vocabulary, place, is_frequent, *empty)
        frequent, rare = index._split(keys.row, column, keys.size.size)
        return replace(index, frequent=frequent.T, rare=rare.T.tocsr())

    def similarity(self, keys: KeySets) -> np.ndarray:
        """Return float32 [row of keys, row]: see `tanimoto`."""
        column = np.minimum(
            np.searchsorted(self.vocabulary, keys.key), max(self.vocabulary.size - 1, 0)
        )
        shared = np.zeros(column.size, dtype=bool)
        if self.vocabulary.size:
            shared = self.vocabulary[column] == keys.key
        frequent, rare = self._split(keys.row[shared], column[shared], keys.size.size)
        size = keys.size.astype(np.float32)
        out = np.empty((size.size, self.size.size), dtype=np.float32)
        for start in range(0, size.size, _BLOCK_ROW):
            rows = slice(start, start + _BLOCK_ROW)
            both = (rare[rows] @ self.rare).toarray()
            if self.frequent.shape[0]:
                both += torch._int_mm(frequent[rows], self.frequent).numpy()
            union = size[rows, None] + self.size - both
            out[rows] = np.divide(both, union, out=np.ones_like(both), where=union > 0)
        return out

    def _split(
        self, row: np.ndarray, column: np.ndarray, n_row: int
    ) -> tuple[torch.Tensor, sparse.csr_matrix]:
        """Return int8 [n_row, frequent key] and sparse float32 [n_row, rare key], 1 per key."""
        dense, place = self.is_frequent[column], self.place[column]
        bits = np.zeros((n_row, int(self.is_frequent.sum())), dtype=np.int8)
        bits[row[dense], place[dense]] = 1
        at = (row[~dense], place[~dense])
        shape = (n_row, int((~self.is_frequent).sum()))
        rare = sparse.csr_matrix((np.ones(at[0].size, dtype=np.float32), at), shape=shape)
        return torch.from_numpy(bits), rare
