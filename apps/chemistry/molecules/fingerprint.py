"""Unfolded count fingerprints and their min-max similarity.

A count vector is stored as a set: environment `e` that occurs `c` times becomes the `c` keys
(e, 0) ... (e, c-1). The sum of minima of two count vectors is then the size of the intersection
of two sets, and the min-max kernel is the Tanimoto similarity of the sets.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from rdkit import Chem
from rdkit.Chem import rdFingerprintGenerator as generators
from scipy import sparse

from apps.chemistry.molecules.invariants import connectivity, features, pair_codes, path_kinds
from apps.chemistry.molecules.tables import Molecules, MolTables, compiled

_KINDS = {
    "ecfp4": lambda: generators.GetMorganGenerator(radius=2),
    "ecfp6": lambda: generators.GetMorganGenerator(radius=3),
    "fcfp4": lambda: generators.GetMorganGenerator(
        radius=2, atomInvariantsGenerator=generators.GetMorganFeatureAtomInvGen()
    ),
    "atom_pair": lambda: generators.GetAtomPairGenerator(),
    "torsion": lambda: generators.GetTopologicalTorsionGenerator(),
    "path5": lambda: generators.GetRDKitFPGenerator(maxPath=5, numBitsPerFeature=1),
}
KINDS = tuple(_KINDS)
_MORGAN, _ATOM_PAIR, _TORSION, _SUBGRAPH = range(4)
# The same to the compiled functions: what they make, the radius, and what atoms begin with.
_COMPILED: dict[str, tuple[int, int, Callable[[MolTables], np.ndarray]]] = {
    "ecfp4": (_MORGAN, 2, connectivity),
    "ecfp6": (_MORGAN, 3, connectivity),
    "fcfp4": (_MORGAN, 2, features),
    "atom_pair": (_ATOM_PAIR, 0, pair_codes),
    "torsion": (_TORSION, 0, pair_codes),
    "path5": (_SUBGRAPH, 0, path_kinds),
}
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


def key_sets(mols: Molecules, kind: str, *, binary: bool = False) -> KeySets:
    """Return the fingerprints of molecules.

    Parameters
    ----------
    mols : sequence of Mol, or MolTables
        Sanitised molecules; of one chunk that is asked for several kinds, `MolTables` save time.
    kind : str
        One of `KINDS`: "ecfp4", "ecfp6", "fcfp4" (Morgan environments), "atom_pair", "torsion",
        "path5" (paths and branches of up to five bonds).
    binary : bool
        Leave counts out: each environment is one key, however often it occurs.

    Notes
    -----
    Checked against: RDKit's own generators, key by key, in the tests; they answer where there is no
    compiler.
    """
    kernels = compiled()
    if kernels is None:
        return _by_rdkit(mols.mols if isinstance(mols, MolTables) else mols, kind, binary)
    tables = MolTables.among(mols)
    which, radius, begin = _COMPILED[kind]
    number = begin(tables)
    start = np.zeros(tables.n_mol + 1, dtype=np.int64)
    n_key = kernels.tessera_make_keys(
        *tables.pointers, number.ctypes.data, which, radius, not binary, start.ctypes.data
    )
    key = np.empty(n_key, dtype=np.uint64)
    kernels.tessera_take_keys(key.ctypes.data)
    return KeySets(start, key)


def _by_rdkit(mols: Iterable[Chem.Mol], kind: str, binary: bool) -> KeySets:
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
        size = keys.size.astype(np.float32)
        out = np.empty((size.size, self.size.size), dtype=np.float32)
        share = self._share if compiled() is None else self._share_compiled
        for first in range(0, size.size, _BLOCK_ROW):
            rows = slice(first, first + _BLOCK_ROW)
            start = keys.start[first : first + _BLOCK_ROW + 1]
            share(KeySets(start - start[0], keys.key[start[0] : start[-1]]), size[rows], out[rows])
        return out

    @cached_property
    def _slots(self) -> tuple[int, np.ndarray]:
        """Number of bits, and int32 [2^bits]: where the numbers of keys are found fast."""
        kernels, n_bit = compiled(), max(int(self.vocabulary.size).bit_length() + 1, 4)
        assert kernels is not None
        slots = np.empty(1 << n_bit, dtype=np.int32)
        kernels.tessera_index_keys(
            self.vocabulary.ctypes.data, self.vocabulary.size, n_bit, slots.ctypes.data
        )
        return n_bit, slots

    @cached_property
    def _postings(self) -> tuple[np.ndarray, np.ndarray]:
        """int32 [rare key + 1] and [entry]: the rows that hold each rare key."""
        return self.rare.indptr.astype(np.int32), self.rare.indices.astype(np.int32)

    def _share_compiled(self, keys: KeySets, size: np.ndarray, out: np.ndarray) -> None:
        kernels, (n_bit, slots) = compiled(), self._slots
        assert kernels is not None
        bits = np.zeros((size.size, self.frequent.shape[0]), dtype=np.int8)
        out[:] = 0.0
        arrays = (self.place, self.is_frequent, *self._postings)
        place, is_frequent, first, column = (array.ctypes.data for array in arrays)
        kernels.tessera_share_keys(
            size.size, keys.start.ctypes.data, keys.key.ctypes.data, self.vocabulary.ctypes.data,
            n_bit, slots.ctypes.data, place, is_frequent, bits.shape[1], first, column,
            self.size.size, bits.ctypes.data, out.ctypes.data,
        )  # fmt: skip
        dense = torch._int_mm(torch.from_numpy(bits), self.frequent) if bits.shape[1] else None
        kernels.tessera_tanimoto(
            *out.shape, out.ctypes.data, dense.data_ptr() if dense is not None else None,
            size.ctypes.data, self.size.ctypes.data, out.ctypes.data,
        )  # fmt: skip

    def _share(self, keys: KeySets, size: np.ndarray, out: np.ndarray) -> None:
        column = np.minimum(
            np.searchsorted(self.vocabulary, keys.key), max(self.vocabulary.size - 1, 0)
        )
        shared = np.zeros(column.size, dtype=bool)
        if self.vocabulary.size:
            shared = self.vocabulary[column] == keys.key
        frequent, rare = self._split(keys.row[shared], column[shared], keys.size.size)
        both = (rare @ self.rare).toarray()
        if self.frequent.shape[0]:
            both += torch._int_mm(frequent, self.frequent).numpy()
        union = size[:, None] + self.size - both
        out[:] = np.divide(both, union, out=np.ones_like(both), where=union > 0)

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
