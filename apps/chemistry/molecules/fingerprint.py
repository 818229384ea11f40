"""Unfolded count fingerprints and their min-max similarity.

A count vector is stored as a set: environment `e` that occurs `c` times becomes the `c` keys
(e, 0) ... (e, c-1). The sum of minima of two count vectors is then the size of the intersection
of two sets, and the min-max kernel is the Tanimoto similarity of the sets.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
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
_FREQUENT = 0.05  # share of rows above which a key is cheaper as a dense column


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
    """Return float64 [A, B]: |intersection| / |union| of the keys of each pair, 0..1.

    Two molecules without any key have similarity 1.

    Notes
    -----
    Keys of many rows go through one dense product, the others through a sparse one.
    Checked against: Python sets, and RDKit's own similarity, in the tests.
    """
    vocabulary, column = np.unique(np.concatenate([a.key, b.key]), return_inverse=True)
    column_a, column_b = column[: a.key.size], column[a.key.size :]
    n_row = a.size.size + b.size.size
    frequent = np.bincount(column, minlength=vocabulary.size) > _FREQUENT * n_row
    place = np.cumsum(frequent) - 1
    dense, rare = [], []
    for keys, col in ((a, column_a), (b, column_b)):
        is_frequent, row = frequent[col], keys.row
        block = np.zeros((keys.size.size, int(frequent.sum())), dtype=np.float32)
        block[row[is_frequent], place[col[is_frequent]]] = 1.0
        dense.append(block)
        at = (row[~is_frequent], col[~is_frequent])
        shape = (keys.size.size, vocabulary.size)
        rare.append(sparse.csr_matrix((np.ones(at[0].size), at), shape=shape))
    shared = (dense[0] @ dense[1].T).astype(np.float64) + (rare[0] @ rare[1].T).toarray()
    union = a.size[:, None] + b.size[None, :] - shared
    return np.divide(shared, union, out=np.ones_like(shared), where=union > 0)
