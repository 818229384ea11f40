"""What the trees of the stack read, and how members are weighed."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.optimize import nnls
from scipy.stats import kendalltau

from apps.chemistry.affinity.stack import (
    _N_NEAR,
    _correlation,
    _nearest,
    _weights,
    is_warm,
)


@pytest.fixture
def grid():
    rng = np.random.default_rng(0)
    value = rng.normal(size=(12, 9))
    train = rng.random((12, 9)) < 0.6
    train[:, 4] = False  # nothing known
    train[:, 5] = np.arange(12) < 2  # fewer than are asked for
    x = rng.normal(size=(12, 3))
    return value, train, np.exp(-((x[:, None] - x[None]) ** 2).sum(axis=2))


def test_nearest_are_those_of_a_loop(grid):
    value, train, alike = grid
    found = dict(_nearest(value, train, alike, "drug"))
    assert len(found) == 2 * _N_NEAR
    for i, j in np.ndindex(value.shape):
        rows = [r for r in np.nonzero(train[:, j])[0] if r != i]
        rows.sort(key=lambda r: -alike[i, r])
        for k in range(_N_NEAR):
            known = k < len(rows)
            near = value[rows[k], j] if known else value[train].mean()
            assert found[f"near_drug_{k}"][i, j] == pytest.approx(near, rel=1e-6)
            how = alike[i, rows[k]] if known else 0.0
            assert found[f"alike_drug_{k}"][i, j] == pytest.approx(how, rel=1e-6)


def test_a_pair_says_nothing_of_itself_and_held_pairs_say_nothing(grid):
    value, train, alike = grid
    found = dict(_nearest(value, train, alike, "drug"))
    for i, j in ((0, 0), (3, 7)):
        changed = value.copy()
        changed[i, j] += 0.0 if train[i, j] else 50.0
        if train[i, j]:  # the mean of all stands for missing ones: keep it
            k = next(k for k in zip(*np.nonzero(train), strict=True) if k[1] != j)
            changed[i, j] += 5.0
            changed[k] -= 5.0
        other = dict(_nearest(changed, train, alike, "drug"))
        for name, one in found.items():
            assert one[i, j] == pytest.approx(other[name][i, j], rel=1e-5)


def test_correlation_takes_off_what_all_share():
    rng = np.random.default_rng(1)
    own = rng.normal(size=(6, 40))
    shared = 10.0 * rng.normal(size=40)
    want = np.corrcoef(own - own.mean(axis=0))
    np.testing.assert_allclose(_correlation(own + shared), want, atol=1e-12)
    assert not _correlation(np.ones((3, 5))).any()


def test_weights_are_shares_and_heed_the_order():
    rng = np.random.default_rng(2)
    # Most values crowd together; few are far away.
    y = np.where(rng.random(4000) < 0.9, rng.normal(scale=0.1, size=4000), rng.normal(size=4000))
    orders = y + rng.normal(scale=0.05, size=4000) * (np.abs(y) < 0.3)
    orders = np.clip(orders, -0.3, 0.3)  # right within the crowd, blunt beyond it
    sizes = np.where(np.abs(y) < 0.3, 0.0, y) + rng.normal(scale=0.05, size=4000)
    members = np.stack([orders, sizes], axis=1)
    by_values = nnls(members - y.mean(), y - y.mean())[0]
    by_values /= by_values.sum()
    weights = _weights(members, y, by_rank=True)
    np.testing.assert_allclose(_weights(members, y, by_rank=False), by_values, atol=1e-9)
    assert weights.min() >= 0
    assert weights.sum() == pytest.approx(1)
    assert weights[0] > 1.2 * by_values[0]
    assert kendalltau(members @ weights, y)[0] > kendalltau(members @ by_values, y)[0]


def test_members_that_say_nothing_have_equal_shares():
    for by_rank in (False, True):
        weights = _weights(np.zeros((10, 4)), np.arange(10.0), by_rank=by_rank)
        np.testing.assert_allclose(weights, 0.25)


@pytest.mark.parametrize("kind", ["warm", "cold-drug", "cold-target", "cold-both"])
def test_what_is_warm(kind):
    rng = np.random.default_rng(0)
    train = rng.random((10, 10)) < 0.7
    held = ~train
    train[0], train[:, 0] = True, True
    train[:, 1] |= np.arange(10) == 1
    if kind in ("cold-drug", "cold-both"):
        train[3] = False
        held[3] = True
    if kind in ("cold-target", "cold-both"):
        train[:, 3] = False
        held[:, 3] = True
    part = SimpleNamespace(train=train, held=held & ~train)
    assert is_warm(SimpleNamespace(outer=part)) == (kind == "warm")
