"""Kernel mix and graph network on the same folds, and their mixture weighed on held-out folds.

Every model sees the train and valid parts of a table. The graph member is the mean of one
network per fold, each trained without its fold, so that every row is also predicted by a model
that has not seen it. The kernel member is refitted without each fold in the same way. The weight
of the graph in the mixture is picked on these out-of-fold predictions; the test part is never
looked at.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from apps.chemistry.baselines.kernel import fit_gaussian_process, fit_svr
from apps.chemistry.baselines.mix import MixKernel
from apps.chemistry.datasets import Table
from apps.chemistry.molecules import mol_from_smiles

WEIGHTS = tuple(np.linspace(0.0, 1.0, 21).tolist())


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

    C is chosen once, on all folds; the noise of the process is fitted anew without each fold.
    """
    mols = [mol_from_smiles(text) for text in table.smiles]
    fitted = np.nonzero(fold >= 0)[0]
    y = table.target[fitted, 0].astype(np.float64)
    kernel = MixKernel.of([mols[i] for i in fitted]).against(mols)
    square = kernel[fitted]
    support = fit_svr(square, y, seed=seed)
    whole = 0.5 * (support.predict(kernel) + fit_gaussian_process(square, y).predict(kernel))
    held_out = np.full(len(table), np.nan)
    for i in range(fold.max() + 1):
        train, held = np.nonzero(fold[fitted] != i)[0], np.nonzero(fold[fitted] == i)[0]
        block, rows = square[np.ix_(train, train)], square[np.ix_(held, train)]
        machine = fit_svr(block, y[train], seed=seed, grid=(support.setting,))
        process = fit_gaussian_process(block, y[train])
        held_out[fitted[held]] = 0.5 * (machine.predict(rows) + process.predict(rows))
    return Member(held_out, whole)


def graph_members(
    table: Table, fold: np.ndarray, predict: Callable[[Table, int], np.ndarray]
) -> list[Member]:
    """Return one member per task of `table`.

    Parameters
    ----------
    table : Table
    fold : int64 [row]
        As `draw_folds` gives it, for each part of a joined table.
    predict : callable, (table, number of the fold) -> float [row, task]
        Trains on the train part of the table it gets, whose valid part is the fold, and predicts
        every row.
    """
    held_out = np.full(table.target.shape, np.nan)
    total = np.zeros(table.target.shape)
    n_fold = int(fold.max()) + 1
    for i in range(n_fold):
        part = np.where(fold < 0, "test", np.where(fold == i, "valid", "train"))
        answer = predict(replace(table, split=part), i)
        held_out[fold == i] = answer[fold == i]
        total += answer
    return [Member(h, t) for h, t in zip(held_out.T, total.T / n_fold, strict=True)]


def mixture_weight(kernel: np.ndarray, graph: np.ndarray, true: np.ndarray) -> float:
    """Return the weight of the graph in the mixture.

    The least of `WEIGHTS` whose squared error is no more than one standard error of the (paired)
    difference above the least: a graph that adds nothing that can be told from chance is left out.
    All arrays are float [row], predictions of rows their models have not seen.

    Notes
    -----
    Source of the rule: Breiman et al., Classification and Regression Trees (1984), section 3.4.3.
    """
    known = np.isfinite(true) & np.isfinite(kernel) & np.isfinite(graph)
    k, g, y = kernel[known], graph[known], true[known]
    square = np.array([((1 - w) * k + w * g - y) ** 2 for w in WEIGHTS])
    above = square - square[square.mean(axis=1).argmin()]
    tolerated = above.mean(axis=1) <= above.std(axis=1) / np.sqrt(max(1, len(y)))
    return WEIGHTS[int(tolerated.argmax())]


def paired_bootstrap(
    ours: Sequence[np.ndarray], other: Sequence[np.ndarray], *, n_draw: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Return the difference of mean RMSE, ours - other, and its 95 % interval.

    Parameters
    ----------
    ours, other : sequence of ndarray, float [row]
        Errors on the same test rows, one array per target; the mean is over targets.
    n_draw : int
        Rows are drawn with replacement within each target, the same rows for both.
    """
    rng = np.random.default_rng(seed)
    total = np.zeros(n_draw + 1)
    for a, b in zip(ours, other, strict=True):
        rows = rng.integers(len(a), size=(n_draw, len(a)))
        for square, sign in ((a**2, 1.0), (b**2, -1.0)):
            total[0] += sign * np.sqrt(square.mean())
            total[1:] += sign * np.sqrt(square[rows].mean(axis=1))
    total /= len(ours)
    low, high = np.quantile(total[1:], (0.025, 0.975))
    return float(total[0]), float(low), float(high)
