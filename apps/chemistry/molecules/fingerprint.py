"""Unfolded count fingerprints and their min-max similarity.

A count vector is stored as a set: environment `e` that occurs `c` times becomes the `c` keys
(e, 0) ... (e, c-1). The sum of minima of two count vectors is then the size of the intersection
of two sets, and the min-max kernel is the Tanimoto similarity of the sets.
"""

from collections.abc import Iterable
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
    sets = []
    for mol in mols:
        count = generator.GetSparseCountFingerprint(mol).GetNonzeroElements()
        key = np.fromiter(count.keys(), dtype=np.uint64, count=len(count))
        if not binary:
            times = np.fromiter(count.values(), dtype=np.int64, count=len(count))
            first = np.repeat(np.cumsum(times) - times, times)
            repeat = (np.arange(times.sum()) - first).astype(np.uint64)
            key = np.repeat(key, times) + repeat * _REPEAT_STEP
        sets.append(key)
    start = np.cumsum([0, *(key.size for key in sets)])
    return KeySets(start, np.concatenate(sets) if sets else np.empty(0, dtype=np.uint64))


def tanimoto(a: KeySets, b: KeySets) -> np.ndarray:
    """Return float32 [A, B]: |intersection| / |union| of the keys of each pair, 0..1.

    Two molecules without any key have similarity 1.

    Notes
    -----
    Keys of many rows go through one dense product of bytes, the others through a sparse one, a
    block of rows at a time.
    Checked against: Python sets, and RDKit's own similarity, in the tests.
    """
    vocabulary, column_b, times = np.unique(b.key, return_inverse=True, return_counts=True)
    place = np.minimum(np.searchsorted(vocabulary, a.key), max(vocabulary.size - 1, 0))
    shared = vocabulary[place] == a.key if vocabulary.size else np.zeros(a.key.size, dtype=bool)
    column_a = np.where(shared, place, -1)
    is_frequent = times > _FREQUENT * b.size.size
    frequent_b, rare_b = _split_keys(b.row, column_b, is_frequent, b.size.size)
    frequent_a, rare_a = _split_keys(a.row[shared], column_a[shared], is_frequent, a.size.size)
    rare_b = rare_b.T.tocsr()
    size_a, size_b = a.size.astype(np.float32), b.size.astype(np.float32)
    out = np.empty((size_a.size, size_b.size), dtype=np.float32)
    for start in range(0, size_a.size, _BLOCK_ROW):
        rows = slice(start, start + _BLOCK_ROW)
        both = (rare_a[rows] @ rare_b).toarray()
        if frequent_b.shape[1]:
            both += torch._int_mm(frequent_a[rows], frequent_b.T).numpy()
        union = size_a[rows, None] + size_b - both
        out[rows] = np.divide(both, union, out=np.ones_like(both), where=union > 0)
    return out


def _split_keys(
    row: np.ndarray, column: np.ndarray, is_frequent: np.ndarray, n_row: int
) -> tuple[torch.Tensor, sparse.csr_matrix]:
    """Return int8 [n_row, frequent column] and sparse float32 [n_row, rare column], 1 per key."""
    place = np.where(is_frequent, np.cumsum(is_frequent), np.cumsum(~is_frequent)) - 1
    dense = is_frequent[column]
    bits = np.zeros((n_row, int(is_frequent.sum())), dtype=np.int8)
    bits[row[dense], place[column[dense]]] = 1
    at = (row[~dense], place[column[~dense]])
    shape = (n_row, int((~is_frequent).sum()))
    rare = sparse.csr_matrix((np.ones(at[0].size, dtype=np.float32), at), shape=shape)
    return torch.from_numpy(bits), rare
