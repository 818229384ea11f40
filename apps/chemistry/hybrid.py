"""Members on the same folds, and their mixture weighed on held-out folds.

Every model sees the train and valid parts of a table. The graph member is the mean of one
network per fold, each trained without its fold, so that every row is also predicted by a model
that has not seen it. The kernel and tree members are refitted without each fold in the same way.
The weights of the mixture are picked on these out-of-fold predictions, of all targets of a run
together; the test part is never looked at.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from apps.chemistry.baselines.kernel import fit_gaussian_process, fit_svr
from apps.chemistry.baselines.mix import MixKernel
from apps.chemistry.baselines.simple import fit_extra_trees, tree_features
from apps.chemistry.datasets import Table
from apps.chemistry.molecules import mol_from_smiles

MEMBERS = ("kernel", "trees", "graph", "joint")  # the last where sets are run together
N_STEP = 20  # weights are multiples of 1 / N_STEP


@dataclass(frozen=True)
class Member:
    """What one model says of the rows of a table, one task."""

    held_out: np.ndarray
    """float64 [row]: predicted without the row's fold; NaN for test rows."""
    whole: np.ndarray
    """float64 [row]: predicted by the model that is used."""


def draw_folds(table: Table, n_fold: int, seed: int) -> np.ndarray:
    """Return int64 [row]: fold of each train and valid row, -1 for test rows.

    Folds are even over the range of the target: neighbours in it go to different folds.
    """
    rng = np.random.default_rng(seed)
    rows = np.nonzero(table.split != "test")[0]
    rows = rows[np.argsort(np.nanmean(table.target[rows], axis=1), kind="stable")]
    fold = np.full(len(table), -1)
    for run in range(0, len(rows), n_fold):
        some = rows[run : run + n_fold]
        fold[some] = rng.permutation(n_fold)[: len(some)]
    return fold


def kernel_member(table: Table, fold: np.ndarray, *, seed: int) -> Member:
    """Return the mean of Gaussian process and support vectors on the kernel mix, one task.

    C and the noise of the process are chosen once, on all folds.
    """
    mols = [mol_from_smiles(text) for text in table.smiles]
    fitted = np.nonzero(fold >= 0)[0]
    y = table.target[fitted, 0].astype(np.float64)
    kernel = MixKernel.of([mols[i] for i in fitted]).against(mols).astype(np.float64)
    square = kernel[fitted]
    support, process = fit_svr(square, y, seed=seed), fit_gaussian_process(square, y)
    whole = 0.5 * (support.predict(kernel) + process.predict(kernel))

    def without(train: np.ndarray, held: np.ndarray) -> np.ndarray:
        block, rows = square[np.ix_(train, train)], square[np.ix_(held, train)]
        parts = (
            fit_svr(block, y[train], seed=seed, grid=(support.setting,)),
            fit_gaussian_process(block, y[train], ratio=process.setting),
        )
        return 0.5 * (parts[0].predict(rows) + parts[1].predict(rows))

    return Member(_held_out(fold, without), whole)


def trees_member(table: Table, fold: np.ndarray, *, seed: int) -> Member:
    """Return extremely randomised trees on ECFP4 bits and descriptors, one task."""
    x = tree_features([mol_from_smiles(text) for text in table.smiles])
    fitted = np.nonzero(fold >= 0)[0]
    y = table.target[fitted, 0].astype(np.float64)

    def without(train: np.ndarray, held: np.ndarray) -> np.ndarray:
        return fit_extra_trees(x[fitted[train]], y[train], seed=seed).predict(x[fitted[held]])

    whole = fit_extra_trees(x[fitted], y, seed=seed).predict(x)
    return Member(_held_out(fold, without), whole)


def _held_out(
    fold: np.ndarray, without: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> np.ndarray:
    """Return float64 [row]: ``without(train, held)`` of each fold, indices among fitted rows."""
    out = np.full(len(fold), np.nan)
    fitted = np.nonzero(fold >= 0)[0]
    for i in range(fold.max() + 1):
        train, held = np.nonzero(fold[fitted] != i)[0], np.nonzero(fold[fitted] == i)[0]
        out[fitted[held]] = without(train, held)
    return out


def graph_members(fold: np.ndarray, answers: Sequence[np.ndarray]) -> list[Member]:
    """Return one member per task.

    Parameters
    ----------
    fold : int64 [row]
    answers : sequence of ndarray, float [row, task]
        By fold, what the network says that was trained without it.
    """
    held_out = np.full(answers[0].shape, np.nan)
    for i, answer in enumerate(answers):
        held_out[fold == i] = answer[fold == i]
    whole = np.array(answers, dtype=np.float64).mean(axis=0)
    return [Member(h, w) for h, w in zip(held_out.T, whole.T, strict=True)]


def mixture_weights(
    held_out: Sequence[np.ndarray], true: Sequence[np.ndarray]
) -> tuple[float, ...]:
    """Return the weights of the members, not negative and of sum 1.

    Those of the least mean over the targets of the squared error, each target's error counted
    in units of the first member's: a few numbers for all targets, which cannot follow chance.

    Parameters
    ----------
    held_out : sequence of ndarray, float [member, row]
        One per target: predictions of rows that the members have not seen.
    true : sequence of ndarray, float [row]
    """
    n = len(held_out[0])
    moments = np.zeros((n, n))
    for members, y in zip(held_out, true, strict=True):
        known = np.isfinite(y) & np.isfinite(members).all(axis=0)
        error = members[:, known] - y[known]
        moment: np.ndarray = error @ error.T
        moments += moment / max(float(moment[0, 0]), np.finfo(float).tiny)
    whole = [np.array(w) for w in product(range(N_STEP + 1), repeat=n) if sum(w) == N_STEP]
    best = min(whole, key=lambda w: float(w @ moments @ w))
    return tuple(float(w) / N_STEP for w in best)


def mixed(
    kernel: Mapping[str, np.ndarray], graph: np.ndarray, share: Mapping[str, float]
) -> np.ndarray:
    """Return the parts of the kernel member by their shares, and the graph by what is left of 1.

    Where a part says nothing (NaN), `graph`. The order of the parts makes no difference.
    """
    total = (1.0 - sum(share[name] for name in sorted(share))) * graph
    for name in sorted(share):
        total = share[name] * kernel[name] + total
    return np.where(np.isfinite(total), total, graph)


def paired_bootstrap(
    ours: Sequence[np.ndarray], other: Sequence[np.ndarray], *, n_draw: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Return the difference of mean RMSE, ours - other, and its 95 % interval.

    Parameters
    ----------
    ours, other : sequence of ndarray, float [seed, row]
        Errors on the same test rows, one array per target; the mean is over targets, and within
        each over its seeds.
    n_draw : int
        Rows are drawn with replacement within each target, the same rows for both and for all
        seeds: another seed of a model is no further molecule.
    """
    rng = np.random.default_rng(seed)
    total = np.zeros(n_draw + 1)
    for a, b in zip(ours, other, strict=True):
        rows = rng.integers(a.shape[1], size=(n_draw, a.shape[1]))
        for errors, sign in ((a, 1.0), (b, -1.0)):
            for square in errors**2:
                total[0] += sign * np.sqrt(square.mean()) / len(errors)
                total[1:] += sign * np.sqrt(square[rows].mean(axis=1)) / len(errors)
    total /= len(ours)
    low, high = np.quantile(total[1:], (0.025, 0.975))
    return float(total[0]), float(low), float(high)
