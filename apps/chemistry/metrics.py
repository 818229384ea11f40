"""Scores of a prediction; each takes float arrays [row] and skips rows without a true value."""

import math
from collections.abc import Callable

import numpy as np

Score = Callable[[np.ndarray, np.ndarray], float]


def rmse(true: np.ndarray, predicted: np.ndarray) -> float:
    """Return the root of the mean squared error, in the unit of the target."""
    return math.sqrt(mse(true, predicted))


def mse(true: np.ndarray, predicted: np.ndarray) -> float:
    """Return the mean squared error."""
    return float(np.mean((predicted - true) ** 2))


def mae(true: np.ndarray, predicted: np.ndarray) -> float:
    """Return the mean absolute error, in the unit of the target."""
    return float(np.mean(np.abs(predicted - true)))


def r2(true: np.ndarray, predicted: np.ndarray) -> float:
    """Return 1 - (squared error) / (spread of the true values); NaN without spread."""
    spread = float(np.var(true))
    return 1.0 - mse(true, predicted) / spread if spread > 0 else math.nan


def spearman(true: np.ndarray, predicted: np.ndarray) -> float:
    """Return the rank correlation, ties sharing their mean rank; NaN without spread."""
    a, b = (_rank(x) - (x.size + 1) / 2 for x in (true, predicted))
    scale = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / scale if scale > 0 else math.nan


def roc_auc(true: np.ndarray, predicted: np.ndarray) -> float:
    """Return the chance that a positive (true > 0.5) ranks above a negative; ties count half.

    NaN where one of the classes is empty. Equal to the Mann-Whitney statistic over its maximum.
    """
    positive = true > 0.5
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if not n_positive or not n_negative:
        return math.nan
    rank_sum = float(_rank(predicted)[positive].sum())
    return (rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)


def ci(true: np.ndarray, predicted: np.ndarray) -> float:
    """Return the concordance index: how often pairs of different truth are ranked rightly.

    Ties of the prediction count half. Runs in n log n (a merge over sorted true values), for
    KIBA has 10**8 pairs in its test part. NaN where all true values are equal.
    """
    order = np.lexsort((predicted, true))
    true, place = true[order], np.unique(predicted, return_inverse=True)[1][order]
    group_end = np.append(np.nonzero(np.diff(true))[0] + 1, true.size)
    tree = np.zeros(int(place.max()) + 2, dtype=np.int64)  # Fenwick tree over predicted ranks
    right, n_pair, start = 0.0, 0, 0
    for end in group_end.tolist():
        for i in place[start:end].tolist():
            below, up_to = _count(tree, i), _count(tree, i + 1)
            right += below + 0.5 * (up_to - below)
        n_pair += start * (end - start)
        for i in place[start:end].tolist():
            i += 1
            while i < tree.size:
                tree[i] += 1
                i += i & -i
        start = end
    return right / n_pair if n_pair else math.nan


def rm2(true: np.ndarray, predicted: np.ndarray) -> float:
    """Return r_m^2 as the DeepDTA code computes it, for comparison with published tables.

    r^2 (1 - sqrt(|r^4 - r0^4|)): that code squares r^2 and r0^2 once more inside the root. r0^2
    belongs to the least-squares line through the origin, true = k * predicted.
    """
    r_squared = float(np.corrcoef(true, predicted)[0, 1]) ** 2
    slope = float(true @ predicted) / float(predicted @ predicted)
    r0_squared = 1.0 - float(np.sum((true - slope * predicted) ** 2)) / float(
        np.sum((true - true.mean()) ** 2)
    )
    return r_squared * (1.0 - math.sqrt(abs(r_squared**2 - r0_squared**2)))


REGRESSION: dict[str, Score] = {"rmse": rmse, "mae": mae, "r2": r2, "spearman": spearman}


def score(
    true: np.ndarray,
    predicted: np.ndarray,
    *,
    cliff: np.ndarray | None = None,
    scores: dict[str, Score] = REGRESSION,
) -> dict[str, float]:
    """Return scores by name, each the mean over tasks.

    Parameters
    ----------
    true, predicted : ndarray, float [row, task] or [row]
        Rows without a true value (NaN) are skipped, task by task.
    cliff : ndarray, bool [row], optional
        Rows of activity cliffs; adds `rmse_cliff` where there are any.
    scores : dict of str to function
        Which scores.

    Returns
    -------
    dict of str to float
        Empty of a score where no task has a value for it.
    """
    true = np.asarray(true, dtype=np.float64).reshape(len(true), -1)
    predicted = np.asarray(predicted, dtype=np.float64).reshape(true.shape)
    rows: list[tuple[str, Score, np.ndarray | None]] = [(k, f, None) for k, f in scores.items()]
    if cliff is not None:
        rows.append(("rmse_cliff", rmse, cliff))
    out = {}
    for name, function, mask in rows:
        values = []
        for t in range(true.shape[1]):
            keep = np.isfinite(true[:, t]) if mask is None else np.isfinite(true[:, t]) & mask
            if keep.any():
                values.append(function(true[keep, t], predicted[keep, t]))
        if values:
            out[name] = float(np.mean(values))
    return out


def _rank(x: np.ndarray) -> np.ndarray:
    """Return float64 [row]: ranks from 1, ties sharing their mean rank."""
    _, inverse, count = np.unique(x, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[inverse]


def _count(tree: np.ndarray, i: int) -> int:
    total = 0
    while i > 0:
        total += int(tree[i])
        i -= i & -i
    return total
