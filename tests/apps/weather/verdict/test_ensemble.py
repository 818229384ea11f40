import math

import pytest
import torch
import xarray as xr
from scores.probability import crps_for_ensemble

from apps.weather.atmosphere.constants import DAY_S
from apps.weather.atmosphere.held_suarez import HeldSuarez
from apps.weather.forecast import load_sample
from apps.weather.model import Model
from apps.weather.verdict.ensemble import (
    added,
    bred,
    fair_crps,
    hours_to_solution,
    rank_histogram,
    spread_skill,
    temperature_rms,
)
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


def test_bred_vectors_keep_their_size_and_mirror_each_other():
    model = Model("T21L8", physics=HeldSuarez())
    start, generator = load_sample(model), torch.Generator().manual_seed(0)
    control, members = bred(
        model, start, 2, size_k=0.3, cycle_s=0.5 * DAY_S, n_cycle=3, generator=generator
    )
    assert control.time_s == start.time_s + 1.5 * DAY_S
    assert len(members) == 4
    for member in members:
        # float32 differences of 0.3 K about 250 K
        assert temperature_rms(model, member, control) == pytest.approx(0.3, rel=1e-3)
        assert member.time_s == control.time_s
    mean = added(members[0], members[1], members[0], 0.5)
    assert temperature_rms(model, mean, control) < 1e-3
    # a balanced pattern outgrows white noise of the same size
    noise = model.perturbed(control, 0.3, generator)
    noise = added(control, noise, control, 0.3 / temperature_rms(model, noise, control))
    later = {
        name: temperature_rms(model, model.run(state, DAY_S), after)
        for after in [model.run(control, DAY_S)]
        for name, state in (("bred", members[0]), ("noise", noise))
    }
    assert later["bred"] > 1.2 * later["noise"]


def test_hours_to_solution_by_hand():
    found = hours_to_solution({"T21L8": 0.5, "T42L8": 4.0}, 16)
    # 50 members on 16 cores: four rounds of 14 days
    assert found == {"T21L8": 4 * 14 * 0.5 / 3600, "T42L8": 4 * 14 * 4.0 / 3600}
