import math

import pytest
import torch
import xarray as xr
from scores.probability import crps_for_ensemble

from apps.weather.verdict.ensemble import fair_crps, rank_histogram, spread_skill
from core.errors import ShapeError


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_fair_crps_agrees_with_scores_and_with_two_members_by_hand():
    members, truth = draw(7, 30), draw(30, seed=1)
    theirs = crps_for_ensemble(
        xr.DataArray(members.numpy(), dims=["member", "x"]),
        xr.DataArray(truth.numpy(), dims=["x"]),
        ensemble_member_dim="member",
        method="fair",
        preserve_dims="x",
    )
    assert fair_crps(members, truth).numpy() == pytest.approx(theirs.values, abs=1e-12)
    pair = fair_crps(torch.tensor([[1.0], [4.0]]), torch.tensor([2.0]))
    # mean distance (1 + 2) / 2, less half the distance of 3 between them
    assert float(pair) == pytest.approx(1.5 - 1.5)


def test_fair_crps_does_not_depend_on_the_size_of_a_perfect_ensemble():
    """For normal draws it is 1/sqrt(pi) whatever the number of members (Ferro 2014)."""
    for n in (2, 20):
        score = fair_crps(draw(n, 100_000), draw(100_000, seed=9)).mean()
        # standard error of the mean of scores of order one: 0.003
        assert float(score) == pytest.approx(1.0 / math.sqrt(math.pi), abs=0.012)


def test_spread_matches_skill_when_members_and_truth_are_drawn_alike():
    weight = torch.full((100_000,), 1e-5, dtype=torch.float64)
    members, truth = draw(5, 100_000), draw(100_000, seed=9)
    assert float(spread_skill(members, truth, weight)) == pytest.approx(1.0, abs=0.02)
    assert float(spread_skill(0.5 * members, truth, weight)) < 0.6


def test_ranks_are_counted_and_flat_for_a_perfect_ensemble():
    counted = rank_histogram(torch.tensor([[1.0, 1.0], [3.0, 3.0]]), torch.tensor([0.0, 2.0]))
    assert counted.tolist() == [1, 1, 0]
    flat = rank_histogram(draw(4, 50_000), draw(50_000, seed=9)).double()
    # five bins of 10000: binomial deviation 89
    assert float((flat - 10_000).abs().max()) < 4 * 89
    with pytest.raises(ShapeError, match="put the members first"):
        rank_histogram(draw(4, 3), draw(4))
