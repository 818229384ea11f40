import math

import pytest
import torch

from apps.weather.assimilation.letkf import analyse, gaspari_cohn
from core.errors import ShapeError

ROUNDING = 1e-10  # float64, eigenvectors of matrices of twenty rows


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def full(*shape):
    return torch.ones(*shape, dtype=torch.float64)


def test_one_observation_of_one_variable_is_the_kalman_update():
    """Mean and variance after x = y + e: the textbook gain P / (P + R)."""
    prior = 3.0 + 2.0 * draw(20, 1, 1)
    variance, r, y = float(prior.var()), 1.3, 7.0
    found = analyse(prior, prior[:, :, 0], torch.tensor([y]).double(), full(1) * r, full(1, 1))
    gain = variance / (variance + r**2)
    mean = float(prior.mean())
    assert float(found.mean()) == pytest.approx(mean + gain * (y - mean), rel=ROUNDING)
    assert float(found.var()) == pytest.approx((1.0 - gain) * variance, rel=ROUNDING)


def test_several_observations_agree_with_the_kalman_filter_in_matrices():
    """Mean and covariance of all variables by K = P H' (H P H' + R)^-1."""
    prior = draw(30, 1, 6) @ draw(6, 6, seed=1)
    h, y, r = draw(4, 6, seed=2), draw(4, seed=3), torch.tensor([0.5, 1.0, 1.5, 2.0]).double()
    x = prior[:, 0]
    p = torch.cov(x.T)
    gain = p @ h.T @ torch.linalg.inv(h @ p @ h.T + torch.diag(r**2))
    found = analyse(prior, x @ h.T, y, r, full(1, 4))[:, 0]
    assert torch.allclose(found.mean(0), x.mean(0) + gain @ (y - h @ x.mean(0)), atol=ROUNDING)
    assert torch.allclose(torch.cov(found.T), p - gain @ h @ p, atol=ROUNDING)


def test_columns_see_only_what_is_near():
    prior = draw(10, 2, 3)
    near = torch.tensor([[1.0], [0.0]]).double()
    found = analyse(prior, prior[:, 0, :1], torch.tensor([5.0]).double(), full(1), near)
    assert torch.allclose(found[:, 1], prior[:, 1], atol=ROUNDING)
    assert float((found[:, 0] - prior[:, 0]).abs().max()) > 0.1


def test_observations_of_one_place_share_its_nearness():
    prior, place = draw(10, 3, 4), torch.tensor([1, 0, 1])
    near = torch.tensor([[1.0, 0.0], [0.3, 0.6], [0.0, 0.5]]).double()
    y, r = draw(3, seed=1), torch.tensor([0.5, 1.0, 2.0]).double()
    shown = prior[:, 0, :3]
    apart = analyse(prior, shown, y, r, near[:, place])
    assert torch.allclose(analyse(prior, shown, y, r, near, place), apart, atol=ROUNDING)


def test_half_the_nearness_is_twice_the_variance_of_the_observation():
    prior, y = draw(10, 1, 2), torch.tensor([2.0]).double()
    half = analyse(prior, prior[:, 0, :1], y, full(1), 0.5 * full(1, 1))
    wide = analyse(prior, prior[:, 0, :1], y, full(1) * math.sqrt(2.0), full(1, 1))
    assert torch.allclose(half, wide, atol=ROUNDING)


def test_inflation_and_relaxation_do_what_they_say():
    prior = draw(20, 1, 1)
    y = torch.tensor([0.5]).double()
    without = analyse(prior, prior[:, :, 0], y, full(1) * 1e6, full(1, 1), inflation=1.44)
    # an observation of no weight leaves the inflated prior
    assert float(without.std() / prior.std()) == pytest.approx(1.2, rel=1e-6)
    taken = analyse(prior, prior[:, :, 0], y, full(1), full(1, 1)).std()
    back = analyse(prior, prior[:, :, 0], y, full(1), full(1, 1), relaxation=0.25).std()
    assert float(back) == pytest.approx(float(taken + 0.25 * (prior.std() - taken)), rel=ROUNDING)


def test_the_taper_runs_from_one_to_nought():
    """At half the radius the two pieces meet: 1 - 5/3 + 5/8 + 1/2 - 1/4 = 5/24."""
    r = torch.tensor([0.0, 0.5 - 1e-9, 0.5 + 1e-9, 1.0, 3.0]).double()
    expected = torch.tensor([1.0, 5 / 24, 5 / 24, 0.0, 0.0]).double()
    assert torch.allclose(gaspari_cohn(r * 7.0, 7.0), expected, atol=1e-8)
    line = gaspari_cohn(torch.linspace(0, 1, 100).double(), 1.0)
    assert bool((line.diff() <= 0).all())


def test_shapes_that_do_not_fit_are_named():
    prior = draw(4, 2, 3)
    with pytest.raises(ShapeError, match=r"nearness must be \[2, 1\] for 4 members"):
        analyse(prior, prior[:, 0, :1], full(1), full(1), full(1, 2))
