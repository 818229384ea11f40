"""The stack: trees that read what the kernels say of a pair, and what its row and column show."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from apps.chemistry.affinity.kernels import NOISE, PairKernel, sequence_kernel
from apps.chemistry.affinity.pairs import PairTable, Split
from apps.lab.line import fit_line

_HIT_QUANTILES = (0.75, 0.9, 0.97)  # of the training values: thresholds of the hit kernels
_SHARPNESS = (12.0, 6.0)  # of the weights of neighbouring drugs and proteins
_OTHER_WORDS = ((3, False), (4, False), (5, True))  # further sequence kernels: k, reduced
_N_TREE = 100
_N_NEAR = 5  # neighbours of a pair in its column and in its row whose values the trees read
ELSEWHERE = ("elsewhere", "ridge_elsewhere")

Fit = Callable[[np.ndarray, np.ndarray], Callable[[np.ndarray], np.ndarray]]


class Views(NamedTuple):
    """What is known of every pair without reading a held value."""

    table: PairTable
    kernel: PairKernel
    others: list[PairKernel]
    elsewhere: np.ndarray | None = None
    """float64 [D, T]: what another set says of the pairs (`elsewhere.answers`), in its unit."""

    @classmethod
    def of(cls, table: PairTable, drug: np.ndarray, elsewhere: np.ndarray | None = None) -> "Views":
        """Make the kernels of a table; `drug` is that of its drugs."""
        kernel = PairKernel(drug, sequence_kernel(table.sequence))
        others = [
            PairKernel(drug, sequence_kernel(table.sequence, k=k, reduced=reduced))
            for k, reduced in _OTHER_WORDS
        ]
        return cls(table, kernel, others, elsewhere)


def pair_features(views: Views, train: np.ndarray, *, near: bool = False) -> dict[str, np.ndarray]:
    """Return float64 [D, T] by name, from the values of the pairs in `train` alone.

    "ridge" and "profiles" are predictions in the unit of the data (see `PairKernel`); the others
    are further sequence kernels, the chance of values above thresholds, and means, extremes and
    neighbours within the row and the column of each pair. Names in `ELSEWHERE` are there where
    another set is heeded. With `near` the values of the nearest neighbours are there one by one:
    proteins count as neighbours whose "profiles" go up and down together.
    """
    value, kernel = views.table.value, views.kernel
    out = {"ridge": kernel.ridge(value, train), "profiles": kernel.profiles(value, train)}
    for i, other in enumerate(views.others):
        out[f"ridge_{i}"] = other.ridge(value, train)
    known = value[train]
    thresholds = [float(np.quantile(known, q)) for q in _HIT_QUANTILES]
    for i, threshold in enumerate([*thresholds, views.table.floor or min(thresholds)]):
        above = (value > threshold).astype(np.float64)
        out[f"above_{i}"] = kernel.ridge(above, train, noise=2.0 * NOISE)
    out |= dict(_neighbourhood(value, train, kernel))
    if near:
        out |= dict(_nearest(value, train, kernel.drug, "drug"))
        alike = _correlation(out["profiles"].T)
        out |= {name: grid.T for name, grid in _nearest(value.T, train.T, alike, "target")}
    if views.elsewhere is not None:
        out |= _heeded(views.elsewhere, value, train, kernel)
    return out


def is_warm(split: Split) -> bool:
    """Whether nine held pairs in ten are of a drug and a protein that have training pairs too."""
    train, held = split.outer.train, split.outer.held
    known = train.any(axis=1, keepdims=True) & train.any(axis=0, keepdims=True)
    return bool((held & known).sum() >= 0.9 * held.sum())


def _heeded(
    elsewhere: np.ndarray, value: np.ndarray, train: np.ndarray, kernel: PairKernel
) -> dict[str, np.ndarray]:
    """Give another set's answer in this one's unit, and a ridge on drugs that it finds alike.

    What a drug has in common with all proteins is taken off before drugs are compared.
    """
    slope, level = fit_line(elsewhere[train], value[train])
    selective = elsewhere - elsewhere.mean(axis=1, keepdims=True)
    answers = level + slope * elsewhere, kernel.with_drug_profiles(selective).ridge(value, train)
    return dict(zip(ELSEWHERE, answers, strict=True))


def _neighbourhood(
    value: np.ndarray, train: np.ndarray, kernel: PairKernel
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield means and extremes along rows and columns, and means weighted by similarity.

    A mean takes two values at the mean of all on top of those it has, so that it exists always.
    """
    mean = float(value[train].mean())
    held = train.astype(np.float64)
    y = np.where(train, value - mean, 0.0)
    for axis, name in ((1, "drug"), (0, "target")):
        total, n = y.sum(axis=axis, keepdims=True), held.sum(axis=axis, keepdims=True)
        yield f"{name}_mean", np.broadcast_to(mean + total / (n + 2.0), y.shape)
        yield f"{name}_count", np.broadcast_to(n, y.shape)
        yield f"{name}_max", np.broadcast_to(mean + y.max(axis=axis, keepdims=True), y.shape)
    near_drug, near_target = (
        np.exp(s * (k - 1.0)) * (1.0 - np.eye(len(k)))
        for s, k in zip(_SHARPNESS, (kernel.drug, kernel.target), strict=True)
    )
    tiny = 1e-6  # of a weight: no neighbour measured
    yield "near_drugs", mean + (near_drug @ y) / (near_drug @ held + tiny)
    yield "near_targets", mean + (y @ near_target) / (held @ near_target + tiny)


def _nearest(
    value: np.ndarray, train: np.ndarray, alike: np.ndarray, name: str
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the values that a pair's nearest other rows have in its column, and how near they are.

    `alike`, float [row, row], says how near rows are. Where a column has too few values, their mean
    at no similarity stands for the others.
    """
    near = np.full((_N_NEAR, *value.shape), float(value[train].mean()), dtype=np.float32)
    how = np.zeros_like(near)
    for j in range(value.shape[1]):
        rows = np.nonzero(train[:, j])[0]
        similarity = alike[:, rows].astype(np.float32)
        similarity[rows, np.arange(rows.size)] = -np.inf  # a value tells nothing of itself
        n = min(_N_NEAR, rows.size)
        if n == 0:
            continue
        best = np.argpartition(-similarity, n - 1, axis=1)[:, :n]
        order = np.argsort(-np.take_along_axis(similarity, best, axis=1), axis=1, kind="stable")
        best = np.take_along_axis(best, order, axis=1)
        found = np.take_along_axis(similarity, best, axis=1)
        is_other = np.isfinite(found)
        near[:n, :, j] = np.where(is_other, value[rows[best], j], near[:n, :, j].T).T
        how[:n, :, j] = np.where(is_other, found, 0.0).T
    for i in range(_N_NEAR):
        yield f"near_{name}_{i}", near[i]
        yield f"alike_{name}_{i}", how[i]


def _correlation(profile: np.ndarray) -> np.ndarray:
    """Return float64 [row, row]: correlation of rows, what all rows share taken off; 0 for none."""
    own = profile - profile.mean(axis=0)
    own = own - own.mean(axis=1, keepdims=True)
    norm = np.sqrt((own**2).sum(axis=1))
    scale = np.outer(norm, norm)
    return np.divide(own @ own.T, scale, out=np.zeros_like(scale), where=scale > 0)


class Stacked(NamedTuple):
    """Predictions of the members and of the whole answer."""

    members: dict[str, np.ndarray]
    """float64 [D, T] by name; NaN but on the judged pairs."""
    whole: np.ndarray
    """float64 [D, T]"""
    weights: dict[str, float]
    held_out_mse: float
    """Of the whole answer on the held pairs of the inner parts."""


def stack(
    split: Split, views: Views, inner: list[dict[str, np.ndarray]], outer: dict[str, np.ndarray],
    *, seed: int,
) -> Stacked:  # fmt: skip
    """Fit trees to out-of-fold features and weigh them with the kernels and the network.

    Parameters
    ----------
    split : Split
    views : Views
    inner : list of dict
        The features of each inner part, from its training pairs.
    outer : dict
        The same from all training pairs of the split.
    seed : int
        Seeds the trees.

    Notes
    -----
    The trees are fitted to features that their pairs' own values have not touched, and judged
    the same way (each inner part by trees of the others), so that the weights of the members (see
    `_weights`) come from held pairs of the training part alone.
    Where drugs and proteins are known (`is_warm`), a median joins the trees and the weights heed
    the order of values. On proteins of Davis never seen, both made squared errors worse (.321 to
    .345): most pairs do not bind, and there the median says that of all.
    """
    warm = is_warm(split)
    value = views.table.value
    held = [part.held for part in split.inner]
    x = [_rows(features, mask) for features, mask in zip(inner, held, strict=True)]
    y = [value[mask] for mask in held]
    x_test, names = _rows(outer, split.outer.held), list(outer)
    learned = {}
    for name, fit in _fits(seed, warm).items():
        each = [_blind(fit, x, y, i) for i in range(len(x))]
        learned[name] = (np.concatenate(each), fit(np.concatenate(x), np.concatenate(y))(x_test))
    for j, name in enumerate(names):
        if name in ("profiles", "network", "elsewhere") or name.startswith("ridge"):
            learned[name] = (np.concatenate([block[:, j] for block in x]), x_test[:, j])
    blind, known = np.stack([v[0] for v in learned.values()], axis=1), np.concatenate(y)
    weights = _weights(blind, known, by_rank=warm)
    whole = sum(w * v[1] for w, v in zip(weights, learned.values(), strict=True))
    place = split.outer.held
    return Stacked(
        {name: _spread(v[1], place) for name, v in learned.items()},
        _spread(np.asarray(whole), place),
        dict(zip(learned, weights.tolist(), strict=True)),
        float(np.mean((blind @ weights - known) ** 2)),
    )


def _fits(seed: int, with_median: bool) -> dict[str, Fit]:
    """Return by name a function that fits trees to rows and gives their prediction."""
    from sklearn.ensemble import ExtraTreesRegressor, HistGradientBoostingRegressor

    def boosted(x: np.ndarray, y: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        model = HistGradientBoostingRegressor(
            max_iter=300, learning_rate=0.04, max_leaf_nodes=15, l2_regularization=5.0,
            min_samples_leaf=30, random_state=seed, early_stopping=False,
        )  # fmt: skip
        return model.fit(x, y).predict

    def median(x: np.ndarray, y: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        # Where most values crowd together, squared errors hardly tell them apart.
        model = HistGradientBoostingRegressor(
            loss="absolute_error", max_iter=500, learning_rate=0.06, max_leaf_nodes=63,
            max_features=0.3, l2_regularization=5.0, min_samples_leaf=30, random_state=seed,
            early_stopping=False,
        )  # fmt: skip
        return model.fit(x, y).predict

    def random(x: np.ndarray, y: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        leaf = max(3, len(y) // 20_000)
        model = ExtraTreesRegressor(
            _N_TREE, min_samples_leaf=leaf, max_features=0.4, random_state=seed
        )
        return model.fit(x, y).predict

    middle = {"median_trees": median} if with_median else {}
    return {"boosted_trees": boosted} | middle | {"random_trees": random}


def _blind(fit: Fit, x: Sequence[np.ndarray], y: Sequence[np.ndarray], i: int) -> np.ndarray:
    """Return predictions of block `i` by trees of the other blocks."""
    others = [j for j in range(len(x)) if j != i]
    return fit(np.concatenate([x[j] for j in others]), np.concatenate([y[j] for j in others]))(x[i])


def _weights(predictions: np.ndarray, y: np.ndarray, *, by_rank: bool) -> np.ndarray:
    """Return non-negative weights of columns that sum to one, least squares against `y`.

    With `by_rank`, against values and their ranks at equal shares, each over its variance: where
    most values crowd together, their squared errors hardly tell which binds better.
    """
    from scipy.optimize import nnls
    from scipy.stats import rankdata

    columns, aim = predictions - y.mean(), y - y.mean()
    if by_rank:
        level, first = np.unique(y, return_index=True)
        rank = rankdata(y) / len(y)  # ties at their middle
        placed = np.interp(predictions, level, rank[first])
        scale = float(aim.std()) or 1.0, float(rank.std()) or 1.0
        columns = np.concatenate([columns / scale[0], (placed - placed.mean(axis=0)) / scale[1]])
        aim = np.concatenate([aim / scale[0], (rank - rank.mean()) / scale[1]])
    weights, _ = nnls(columns, aim)
    total = float(weights.sum())
    return weights / total if total > 0 else np.full(len(weights), 1.0 / len(weights))


def _rows(features: dict[str, np.ndarray], mask: np.ndarray) -> np.ndarray:
    return np.stack([grid[mask] for grid in features.values()], axis=1).astype(np.float32)


def _spread(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    out = np.full(mask.shape, np.nan)
    out[mask] = values
    return out
