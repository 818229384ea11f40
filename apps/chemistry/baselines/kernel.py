"""Regression on a given similarity matrix: support vectors and a Gaussian process.

Both take a symmetric positive semi-definite kernel matrix with entries of order one, so that a
kernel is built once and used by both.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import linalg, optimize
from sklearn.svm import SVR

C_GRID = (1.0, 3.0, 10.0, 30.0)
EPSILON = 0.1  # width of the tube without loss, pK units; below the noise of any assay
N_FOLD = 5
LOG_NOISE_BOUNDS = (-6.0, 3.0)  # natural log of noise variance over signal variance


@dataclass(frozen=True)
class KernelFit:
    """A fitted kernel expansion: prediction = `offset` + kernel @ `weight`."""

    weight: np.ndarray
    """float64 [train row]"""
    offset: float
    setting: float
    """What was chosen: C, or noise variance over signal variance."""

    def predict(self, kernel: np.ndarray) -> np.ndarray:
        """Return float64 [row] from the kernel of rows against training rows [row, train row]."""
        return self.offset + kernel @ self.weight


def fit_svr(
    kernel: np.ndarray, y: np.ndarray, *, seed: int, grid: Sequence[float] = C_GRID
) -> KernelFit:
    """Fit support vector regression, C chosen by cross-validation within the training rows.

    Parameters
    ----------
    kernel : ndarray, float64 [row, row]
        Similarity of the training rows.
    y : ndarray, float64 [row]
        Target.
    seed : int
        Draws the folds.
    grid : sequence of float
        Values of C that are tried; a single one is taken as it is.
    """
    fold = np.random.default_rng(seed).permutation(np.arange(len(y)) % N_FOLD)
    error = dict.fromkeys(grid, 0.0)
    if len(grid) > 1 and len(y) >= 2 * N_FOLD:
        for i in range(N_FOLD):
            train, held = np.nonzero(fold != i)[0], np.nonzero(fold == i)[0]
            block = np.ascontiguousarray(kernel[np.ix_(train, train)])
            for c in grid:
                fit = _svr(block, y[train], c)
                residual = fit.predict(kernel[np.ix_(held, train)]) - y[held]
                error[c] += float(residual @ residual)
    return _svr(kernel, y, min(grid, key=lambda c: error[c]))


def _svr(kernel: np.ndarray, y: np.ndarray, c: float) -> KernelFit:
    mean = float(y.mean())
    machine = SVR(kernel="precomputed", C=c, epsilon=EPSILON, cache_size=500)
    machine.fit(kernel, y - mean)
    weight = np.zeros(len(y))
    weight[machine.support_] = machine.dual_coef_[0]
    return KernelFit(weight, mean + float(machine.intercept_[0]), c)


def fit_gaussian_process(
    kernel: np.ndarray, y: np.ndarray, *, ratio: float | None = None
) -> KernelFit:
    """Fit a Gaussian process with constant mean; noise by marginal likelihood.

    The signal variance has a closed form for a given ratio of noise to signal, so that the
    search is over that ratio alone.

    Parameters
    ----------
    kernel : ndarray, float64 [row, row]
        Prior covariance up to scale.
    y : ndarray, float64 [row]
        Target.
    ratio : float, optional
        Noise variance over signal variance, where it is known.

    Notes
    -----
    Source: Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), eq. 5.8,
    with the scale profiled out.
    """
    n, mean = len(y), float(y.mean())
    residual = y - mean

    def solve(log_ratio: float) -> tuple[np.ndarray, float]:
        """Return the weights and the negative log likelihood up to a constant."""
        factor = linalg.cholesky(
            kernel + np.exp(log_ratio) * np.eye(n), lower=True, check_finite=False
        )
        weight = linalg.cho_solve((factor, True), residual, check_finite=False)
        signal = max(float(residual @ weight) / n, np.finfo(float).tiny)
        return weight, 0.5 * n * np.log(signal) + float(np.log(np.diag(factor)).sum())

    if ratio is not None:
        return KernelFit(solve(float(np.log(ratio)))[0], mean, ratio)
    best = optimize.minimize_scalar(
        lambda log_ratio: solve(log_ratio)[1],
        bounds=LOG_NOISE_BOUNDS,
        method="bounded",
        options={"xatol": 0.05, "maxiter": 20},
    )
    return KernelFit(solve(best.x)[0], mean, float(np.exp(best.x)))
