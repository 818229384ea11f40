"""Scores against hand-worked cases, slow pairwise definitions and scikit-learn."""

import itertools
import math

import numpy as np
import pytest

from apps.chemistry import metrics

TRUE = np.array([1.0, 2.0, 3.0, 4.0])
PREDICTED = np.array([1.5, 1.5, 3.5, 3.0])
RTOL = 1e-12  # float64, fewer than 1,000 terms


def pairwise_ci(true, predicted):
    right = n = 0.0
    for i, j in itertools.combinations(range(len(true)), 2):
        if true[i] != true[j]:
            n += 1
            order = (true[i] - true[j]) * (predicted[i] - predicted[j])
            right += 1.0 if order > 0 else 0.5 if order == 0 else 0.0
    return right / n


def test_errors_by_hand():
    # errors .5 -.5 .5 -1: squares .25 .25 .25 1
    assert metrics.mse(TRUE, PREDICTED) == pytest.approx(1.75 / 4)
    assert metrics.rmse(TRUE, PREDICTED) == pytest.approx(math.sqrt(1.75 / 4))
    assert metrics.mae(TRUE, PREDICTED) == pytest.approx(2.5 / 4)
    assert metrics.r2(TRUE, PREDICTED) == pytest.approx(1 - 1.75 / 5)
    # ranks of the prediction 1.5 1.5 4 3, less 2.5: -1 -1 1.5 .5
    assert metrics.spearman(TRUE, PREDICTED) == pytest.approx(3.5 / math.sqrt(5.0 * 4.5))


@pytest.mark.parametrize("seed", range(6))
def test_rank_scores_against_independent_ones(seed):
    from scipy.stats import spearmanr
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(seed)
    true = rng.integers(0, 12, 80).astype(float)  # many ties
    predicted = np.round(true + 5 * rng.standard_normal(80), 0)
    assert metrics.ci(true, predicted) == pytest.approx(pairwise_ci(true, predicted), rel=RTOL)
    assert metrics.spearman(true, predicted) == pytest.approx(
        spearmanr(true, predicted).statistic, rel=RTOL
    )
    label = (true > 6).astype(float)
    assert metrics.roc_auc(label, predicted) == pytest.approx(
        roc_auc_score(label, predicted), rel=RTOL
    )


def test_ci_of_perfect_reversed_and_constant_predictions():
    true = np.arange(50.0)
    assert metrics.ci(true, true**3) == 1.0
    assert metrics.ci(true, -true) == 0.0
    assert metrics.ci(true, np.zeros(50)) == 0.5
    assert math.isnan(metrics.ci(np.zeros(5), np.arange(5.0)))


def test_rm2_by_hand():
    # a perfect line through the origin has r2 = r0^2 = 1
    assert metrics.rm2(TRUE, 2 * TRUE) == pytest.approx(1.0)
    # prediction = truth + 1: r2 is 1, k = 40 / 54, and
    # r0^2 = 1 - (30 - 40^2 / 54) / 5
    r0_squared = 1 - (30 - 1600 / 54) / 5
    expected = 1 - math.sqrt(1 - r0_squared**2)
    assert metrics.rm2(TRUE, TRUE + 1) == pytest.approx(expected)


def test_degenerate_inputs_give_nan_not_a_crash():
    assert math.isnan(metrics.r2(np.ones(3), np.arange(3.0)))
    assert math.isnan(metrics.spearman(TRUE, np.ones(4)))
    assert math.isnan(metrics.roc_auc(np.ones(3), np.arange(3.0)))


def test_score_skips_missing_values_task_by_task():
    true = np.array([[1.0, np.nan], [3.0, 5.0], [np.nan, 7.0]])
    predicted = np.array([[2.0, 0.0], [3.0, 6.0], [9.0, 9.0]])
    out = metrics.score(true, predicted)
    assert out["mae"] == pytest.approx((0.5 + 1.5) / 2)
    cliff = np.array([True, False, False])
    assert metrics.score(true, predicted, cliff=cliff)["rmse_cliff"] == pytest.approx(1.0)
    assert "rmse_cliff" not in metrics.score(true, predicted, cliff=np.zeros(3, dtype=bool))
    assert metrics.score(np.full((2, 1), np.nan), np.zeros((2, 1))) == {}
