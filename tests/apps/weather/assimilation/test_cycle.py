import pytest
import torch

from apps.weather.assimilation.cycle import Filter, fields_of, follow
from apps.weather.assimilation.networks import radiosondes, stations
from apps.weather.assimilation.observations import ObservationOperator
from apps.weather.atmosphere.constants import DAY_S
from apps.weather.atmosphere.held_suarez import HeldSuarez
from apps.weather.forecast.sample import SPIN_UP_DAY, load_sample
from apps.weather.model import Model

CYCLE_S, N_CYCLE = 21600.0, 4


@pytest.fixture(scope="module")
def runs():
    """A day of an atmosphere full of eddies, followed with and without 150 radiosondes."""
    model = Model("T21L8", physics=HeldSuarez())
    state = truth_start = load_sample(model)
    begin = state.time_s
    members = []
    for _ in range(8):
        state = model.run(state, 2 * DAY_S)
        members.append(state._replace(time_s=begin))
    generator = torch.Generator().manual_seed(0)
    where = stations(150, generator)
    places = radiosondes(where, torch.from_numpy(model.levels.full.copy()))
    truth, observed, state = [], [], truth_start
    for _ in range(N_CYCLE):
        state = model.run(state, CYCLE_S)
        truth.append(fields_of(model, state))
        shown = ObservationOperator(model, places)(truth[-1].unsqueeze(0))[0]
        noise = torch.randn(len(shown), generator=generator, dtype=torch.float64)
        observed.append((places, shown + places.error * noise))
    none = [(places.take(torch.arange(0)), torch.empty(0).double())] * len(truth)
    settings = Filter(radius_m=3e6, relaxation=0.6)  # few cycles: a quick fall of the error
    return [
        follow(model, members, truth, seen, settings, cycle_s=CYCLE_S) for seen in (observed, none)
    ]


@pytest.mark.parametrize("quantity", ["u", "v", "temperature", "humidity"])
def test_observations_reduce_the_error_and_keep_reducing_it(runs, quantity):
    seen, free = runs
    key = f"{quantity}_analysis_rmse"
    assert seen.history[0][key] < seen.history[0][f"{quantity}_background_rmse"]
    assert seen.history[-1][key] < 0.75 * free.history[-1][key]
    assert seen.history[-1][key] < seen.history[0][key]
    assert free.history[-1][key] == free.history[-1][f"{quantity}_background_rmse"]


def test_scores_and_ranks_come_with_each_cycle(runs):
    seen, _ = runs
    assert [row["day"] for row in seen.history] == pytest.approx(
        [SPIN_UP_DAY + 0.25 * (i + 1) for i in range(N_CYCLE)]
    )
    n_value = N_CYCLE * 64 * 32 * 8
    assert int(seen.ranks.sum()) == n_value
    assert 0.2 < seen.history[-1]["temperature_spread_skill"] < 3.0
    assert 0.0 < seen.history[-1]["u_crps"] < seen.history[0]["u_crps"]
    assert len(seen.means) == N_CYCLE
