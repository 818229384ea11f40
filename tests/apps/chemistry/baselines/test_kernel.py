import numpy as np
import pytest
from scipy.stats import multivariate_normal

from apps.chemistry.baselines.kernel import fit_gaussian_process, fit_svr

N = 120
NOISE_SD = 0.2


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    x = rng.uniform(-3, 3, (N, 1))
    kernel = np.exp(-0.5 * (x - x.T) ** 2)
    y = 4.0 + np.sin(2 * x[:, 0]) + NOISE_SD * rng.standard_normal(N)
    return x, kernel, y


def test_gaussian_process_is_the_posterior_mean(data):
    _, kernel, y = data
    fit = fit_gaussian_process(kernel, y)
    ratio = fit.setting
    expected = y.mean() + kernel @ np.linalg.solve(kernel + ratio * np.eye(N), y - y.mean())
    np.testing.assert_allclose(fit.predict(kernel), expected, atol=5e-3)  # note has 3 decimals


def test_noise_ratio_maximises_the_likelihood(data):
    _, kernel, y = data
    ratio = fit_gaussian_process(kernel, y).setting

    def best_likelihood(r):
        shape = kernel + r * np.eye(N)
        residual = y - y.mean()
        signal = residual @ np.linalg.solve(shape, residual) / N
        return multivariate_normal(np.zeros(N), signal * shape).logpdf(residual)

    at = best_likelihood(ratio)
    assert at > best_likelihood(1.3 * ratio)
    assert at > best_likelihood(ratio / 1.3)


def test_a_known_noise_ratio_is_taken_as_it_is(data):
    _, kernel, y = data
    found = fit_gaussian_process(kernel, y)
    same = fit_gaussian_process(kernel, y, ratio=found.setting)
    np.testing.assert_allclose(same.weight, found.weight, rtol=1e-9)
    other = fit_gaussian_process(kernel, y, ratio=1.0)
    expected = np.linalg.solve(kernel + np.eye(N), y - y.mean())
    np.testing.assert_allclose(other.weight, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("fit_name", ["svr", "gp"])
def test_both_recover_a_smooth_function(data, fit_name):
    x, kernel, y = data
    fit = fit_svr(kernel, y, seed=0) if fit_name == "svr" else fit_gaussian_process(kernel, y)
    new = np.linspace(-2.5, 2.5, 50)[:, None]
    error = fit.predict(np.exp(-0.5 * (new - x.T) ** 2)) - (4.0 + np.sin(2 * new[:, 0]))
    assert np.sqrt(np.mean(error**2)) < NOISE_SD / 2


def test_svr_picks_c_by_cross_validation(data):
    _, kernel, y = data
    assert fit_svr(kernel, y, seed=0, grid=(1e-4, 1.0)).setting == 1.0
    few = fit_svr(kernel[:5, :5], y[:5], seed=0)  # too few rows for folds: the first of the grid
    assert few.setting == 1.0
