"""The kernel mix: the strongest model without a network, and the floor for one.

The kernel is 3/4 the mean of six min-max kernels on unfolded count fingerprints and 1/4 a
Gaussian of rank-normalised descriptors. The prediction is the mean of a Gaussian process and of
support vector regression on it. Nothing is tuned per target but the noise of the former
(marginal likelihood) and C of the latter (cross-validation inside the training rows).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from rdkit import Chem

from apps.chemistry.baselines.kernel import fit_gaussian_process, fit_svr
from apps.chemistry.datasets import Table
from apps.chemistry.molecules import mol_from_smiles
from apps.chemistry.molecules.descriptors import descriptors
from apps.chemistry.molecules.fingerprint import KINDS, KeyIndex, key_sets
from apps.chemistry.molecules.tables import Molecules, MolTables

DESCRIPTOR_WEIGHT = 0.25  # fixed in a trial on validation rows of 22 MoleculeACE targets
_BLOCK_ROW = 1000  # rows of the kernel worked out at a time
_MEDIAN_ROW = 2000  # rows, evenly spread, whose distances set the scale
KERNEL_MODELS = ("kernel_gp", "kernel_svr", "kernel_mix")


@dataclass(frozen=True)
class MixKernel:
    """The kernel between any molecules and the training molecules it was made of."""

    keys: dict[str, KeyIndex]
    """Fingerprints of the training molecules, by kind."""
    sorted_descriptors: np.ndarray
    """float64 [train molecule, descriptor]: each column sorted, for ranks."""
    ranks: np.ndarray
    """float64 [train molecule, descriptor]: ranks over the number of rows, 0..1."""
    scale: float
    """Median squared distance between the ranks of training molecules."""

    @classmethod
    def of(cls, mols: Sequence[Chem.Mol]) -> "MixKernel":
        """Make the kernel of training molecules."""
        tables = MolTables.of(mols)
        raw = descriptors(tables)
        in_order = np.sort(raw, axis=0)
        ranks = _ranks(raw, in_order)
        some = ranks[:: 1 + len(ranks) // _MEDIAN_ROW]
        square = _square_distance(some, some)
        off_diagonal = square[~np.eye(len(some), dtype=bool)]
        scale = float(np.median(off_diagonal)) if off_diagonal.size else 1.0
        return cls(
            {k: KeyIndex.of(key_sets(tables, k)) for k in KINDS}, in_order, ranks, scale or 1.0
        )

    def against(self, mols: Molecules) -> np.ndarray:
        """Return float32 [molecule, train molecule], 1 for a molecule with itself."""
        tables = MolTables.among(mols)
        share = (1.0 - DESCRIPTOR_WEIGHT) / len(self.keys)
        ranks = _ranks(descriptors(tables), self.sorted_descriptors)
        out = np.empty((tables.n_mol, len(self.ranks)), dtype=np.float32)
        for start in range(0, tables.n_mol, _BLOCK_ROW):
            rows = slice(start, start + _BLOCK_ROW)
            radial = _square_distance(ranks[rows], self.ranks)
            radial /= -self.scale
            np.exp(radial.astype(np.float32), out=out[rows])
            out[rows] *= DESCRIPTOR_WEIGHT
        for kind, keys in self.keys.items():
            similarity = keys.similarity(key_sets(tables, kind))
            similarity *= share
            out += similarity
        return out


def predict_kernel_mix(
    table: Table, *, parts: Collection[str] = ("train",), seed: int = 0
) -> dict[str, np.ndarray]:
    """Fit the kernel models to the rows of `parts` and predict every row.

    Parameters
    ----------
    table : Table
        Only values of rows in `parts` are read.
    parts : collection of str
        Splits to fit; ("train", "valid") where no epoch has to be picked, as published
        fingerprint models do.
    seed : int
        Draws the folds of the cross-validation.

    Returns
    -------
    dict of str to ndarray, float64 [molecule, task]
        By the names in `KERNEL_MODELS`; the last is the mean of the other two.
    """
    mols = [mol_from_smiles(text) for text in table.smiles]
    fitted = np.nonzero(np.isin(table.split, list(parts)))[0]
    kernel = MixKernel.of([mols[i] for i in fitted]).against(mols)
    out = {name: np.full(table.target.shape, np.nan) for name in KERNEL_MODELS}
    for task in range(table.target.shape[1]):
        y = table.target[fitted, task].astype(np.float64)
        known = np.nonzero(np.isfinite(y))[0]
        if known.size == 0:
            continue
        to_known = kernel[:, known].astype(np.float64)
        square = to_known[fitted[known]]
        gp = fit_gaussian_process(square, y[known]).predict(to_known)
        svr = fit_svr(square, y[known], seed=seed).predict(to_known)
        for name, values in zip(KERNEL_MODELS, (gp, svr, 0.5 * (gp + svr)), strict=True):
            out[name][:, task] = values
    return out


def _ranks(raw: np.ndarray, in_order: np.ndarray) -> np.ndarray:
    """Return the mean rank of each figure among the training rows, over their number."""
    out = np.empty_like(raw)
    for j, column in enumerate(in_order.T):
        below = np.searchsorted(column, raw[:, j], side="left")
        up_to = np.searchsorted(column, raw[:, j], side="right")
        out[:, j] = 0.5 * (below + up_to) / len(column)
    return out


def _square_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    square = (-2.0 * a) @ b.T
    square += (a**2).sum(axis=1)[:, None]
    square += (b**2).sum(axis=1)
    return np.maximum(square, 0.0, out=square)
