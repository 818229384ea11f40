import math
import time

import pytest
import torch

from apps.weather.forecast.simulate import ModelConfig
from apps.weather.forecast.verify import (
    NOISE_FLOOR,
    NOISE_K,
    PERSISTENCE,
    Verification,
    doubling_time,
    make_truth,
    radiation_cpu_s,
    score_forecasts,
)
from apps.weather.model import Model
from apps.weather.physics import ExactRadiation, Physics

TINY = ModelConfig(resolution="T5L8", n_longwave=8, n_shortwave=8)


class Warmed(ExactRadiation):
    """The exact scheme with 0.2 K/day more heating at every level."""

    def __call__(self, columns):
        found = super().__call__(columns)
        return found._replace(heating_lw=found.heating_lw + 0.2 / 86400.0)


@pytest.fixture(scope="module")
def found():
    truth = TINY.build()
    same, warmed = TINY.build(), TINY.build()
    warmed.physics = Physics(Warmed(8, 8))
    start = truth.run(truth.initial(), 5 * 86400.0)
    reference = make_truth(truth, start, others={"same": same}, n_date=2, spacing_day=2, lead_day=3)
    return score_forecasts(reference, {"warmed": warmed})


def test_the_same_scheme_has_no_error(found):
    assert found.t_upper_rmse_k["same"] == [0.0, 0.0, 0.0]


def test_a_known_heating_error_grows_as_it_must(found):
    """0.2 K/day of heating is 0.2 K after a day, less what longwave cooling takes back."""
    errors = found.t_upper_rmse_k["warmed"]
    assert errors[0] == pytest.approx(0.2, rel=0.1)
    assert errors[2] == pytest.approx(0.6, rel=0.2)


def test_the_noise_floor_starts_at_the_noise_and_persistence_is_worse(found):
    floor, persistence = found.t_upper_rmse_k[NOISE_FLOOR], found.t_upper_rmse_k[PERSISTENCE]
    # truncation keeps 36 of 128 degrees of freedom of white noise; diffusion takes from it
    assert 0.01 * NOISE_K < floor[0] < 10 * NOISE_K
    assert persistence[2] > 10 * floor[2]
    assert found.upper_sigma == 0.1875
    assert found.cpu_s_per_day.keys() == {"truth", "same", "warmed", NOISE_FLOOR}


def test_scores_are_named_by_lead():
    found = Verification([1, 2], {"x": [0.5, 1.0]}, 1.0, 0.2)
    assert found.scores("x") == {"t_upper_rmse_k_day1": 0.5, "t_upper_rmse_k_day2": 1.0}
    assert "x                     0.5000    1.0000" in str(found)
    assert "doubles in 1.0 days" in str(found)


def test_doubling_time_of_exponentials():
    days = [1, 2, 3, 4]
    assert doubling_time(days, [2.0 ** (d / 2.5) for d in days]) == pytest.approx(2.5)
    assert doubling_time(days, [2.0**-d for d in days]) == math.inf
    assert doubling_time([1], [1.0]) == math.inf


def test_perturbation_has_its_amplitude_and_repeats():
    model = Model("T10L4")
    state = model.initial()
    runs = [
        model.perturbed(state, 0.5, torch.Generator().manual_seed(7)).levels.current.temperature
        for _ in range(2)
    ]
    assert torch.equal(*runs)
    added = model.transform.synthesise(runs[0] - state.levels.current.temperature)
    # of 512 points, the 121 harmonics of T10 keep that share of the variance, about
    kept = math.sqrt(121 / 512)
    assert float(added.std()) == pytest.approx(0.5 * kept, rel=0.15)


def test_cpu_time_counts_work():
    model = TINY.build()
    columns = model.columns(model.equations.to_grid(model.initial().levels.current), 0.0)
    few, many = (
        min(radiation_cpu_s(ExactRadiation(n, 8), columns) for _ in range(5)) for n in (8, 512)
    )
    assert many > 2 * few  # sixty-four times the points; a machine that is shared blurs it


def test_cpu_time_is_counted_where_the_clock_of_the_process_stands(monkeypatch):
    """Under `ulimit -t` it moves in ticks, longer than many calls."""
    model = TINY.build()
    columns = model.columns(model.equations.to_grid(model.initial().levels.current), 0.0)
    monkeypatch.setattr(time, "process_time", lambda: 0.0)
    assert radiation_cpu_s(ExactRadiation(8, 8), columns, n_repeat=1) > 0.0
