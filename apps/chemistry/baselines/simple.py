"""The lines that every model must beat: mean, nearest neighbour, forest and SVM on ECFP4."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from rdkit import Chem

from apps.chemistry.baselines.kernel import fit_svr
from apps.chemistry.datasets import Table
from apps.chemistry.molecules import mol_from_smiles
from apps.chemistry.molecules.descriptors import descriptors
from apps.chemistry.molecules.fingerprint import key_sets, tanimoto
from apps.lab.memo import once_per_object

if TYPE_CHECKING:
    from sklearn.ensemble import ExtraTreesRegressor

BASELINES = ("train_mean", "nearest_neighbour", "random_forest", "svm_ecfp4")
N_BIT = 2048
N_TREE = 100
MAX_FEATURES = 0.1  # share of the bits tried at each split


@once_per_object
def predict_baselines(
    table: Table, *, parts: tuple[str, ...] = ("train",), seed: int = 0
) -> dict[str, np.ndarray]:
    """Fit the baselines to the training rows and predict every row.

    Parameters
    ----------
    table : Table
        Only values of rows in `parts` are read.
    parts : tuple of str
        Splits to fit, with settings chosen by cross-validation inside them.
    seed : int
        Seeds the forest and the folds.

    Returns
    -------
    dict of str to ndarray, float64 [molecule, task]
        By name, in the order of `BASELINES`: mean of the training rows; value of the most
        similar training row (mean over ties); random forest on 2,048 folded bits; support vector
        regression with the Tanimoto kernel on unfolded ECFP4.
    """
    keys = key_sets([mol_from_smiles(text) for text in table.smiles], "ecfp4", binary=True)
    bits = keys.folded(N_BIT)
    similarity = tanimoto(keys, keys)
    out = {name: np.full(table.target.shape, np.nan) for name in BASELINES}
    for task in range(table.target.shape[1]):
        y = table.target[:, task].astype(np.float64)
        train = np.nonzero(np.isin(table.split, list(parts)) & np.isfinite(y))[0]
        if train.size == 0:
            continue
        to_train = similarity[:, train]
        out["train_mean"][:, task] = y[train].mean()
        nearest = to_train >= to_train.max(axis=1, keepdims=True)
        out["nearest_neighbour"][:, task] = nearest @ y[train] / nearest.sum(axis=1)
        out["random_forest"][:, task] = _forest(bits[train], y[train], bits, seed)
        svm = fit_svr(similarity[np.ix_(train, train)], y[train], seed=seed)
        out["svm_ecfp4"][:, task] = svm.predict(to_train)
    return out


@once_per_object
def nearest_training_row(table: Table) -> tuple[np.ndarray, np.ndarray]:
    """Return int64 [molecule] and float64 [molecule]: most similar training row and similarity.

    A training row is compared with the other training rows.
    """
    keys = key_sets([mol_from_smiles(text) for text in table.smiles], "ecfp4", binary=True)
    train = np.nonzero(table.split == "train")[0]
    similarity = tanimoto(keys, keys)[:, train]
    similarity[train, np.arange(train.size)] = -1.0
    best = similarity.argmax(axis=1)
    return train[best], similarity[np.arange(len(table)), best]


def tree_features(mols: Sequence[Chem.Mol]) -> np.ndarray:
    """Return float32 [molecule, feature]: ECFP4 on 2,048 bits, and descriptors."""
    bits = key_sets(mols, "ecfp4", binary=True).folded(N_BIT)
    return np.concatenate([bits, descriptors(mols).astype(np.float32)], axis=1)


def fit_extra_trees(x: np.ndarray, y: np.ndarray, *, seed: int) -> "ExtraTreesRegressor":
    """Return extremely randomised trees fitted to float32 [row, feature] and float [row].

    Beside a kernel they gain more than a forest: their errors are less like its own.
    """
    from sklearn.ensemble import ExtraTreesRegressor

    trees = ExtraTreesRegressor(
        N_TREE, max_features=MAX_FEATURES, min_samples_leaf=1, random_state=seed, n_jobs=1
    )
    return trees.fit(x, y)


def _forest(x: np.ndarray, y: np.ndarray, x_all: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.ensemble import RandomForestRegressor

    forest = RandomForestRegressor(
        N_TREE, max_features=MAX_FEATURES, min_samples_leaf=1, random_state=seed, n_jobs=1
    )
    return forest.fit(x, y).predict(x_all)
