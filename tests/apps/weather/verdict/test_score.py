import math

import numpy as np
import pytest
import torch

from apps.lab.record import read_record
from apps.weather.forecast import forecast
from apps.weather.forecast.forecast import ForecastConfig
from apps.weather.forecast.netcdf import open_dataset
from apps.weather.forecast.simulate import ModelConfig
from apps.weather.learned import Emulator, save_emulator
from apps.weather.physics import ExactRadiation
from apps.weather.verdict import climate, score
from apps.weather.verdict.card import scorecard
from apps.weather.verdict.climate import ClimateConfig
from apps.weather.verdict.fields import judged_fields
from apps.weather.verdict.score import (
    ScoreConfig,
    all_forecasts,
    balanced_error,
    load_networks,
    make_reference,
    run,
)
from core import LayerSpec
from core.errors import ConfigError

# A world of sixteen by eight points that is still spinning up.
TINY = ScoreConfig(
    model=ModelConfig(resolution="T5L8", dt_s=5400.0, n_longwave=16, n_shortwave=8),
    start="rest",
    n_date=4,
    spacing_day=1,
    lead_day=2,
    n_climatology_day=11,
    coarse_longwave=15,
)


@pytest.fixture(scope="module")
def judged():
    model = TINY.model.build()
    reference = make_reference(TINY, model, 0)
    forecasts = all_forecasts(TINY, {"learned": ExactRadiation(16, 8)}, reference, model, 0)
    return reference, forecasts, scorecard(TINY, model, reference, forecasts)


def test_the_exact_scheme_in_the_learned_place_loses_nothing(judged):
    _, _, card = judged
    assert float(card.rmse.sel(scheme="learned").max()) == 0.0
    assert float(abs(card.hours_lost).max()) == 0.0
    assert card.acc.sel(scheme="learned").values == pytest.approx(np.ones((3, 6, 4)))


def test_rivals_are_ranked_as_they_must_be(judged):
    _, _, card = judged
    error = card.rmse.sel(variable="t200", region="global", lead_time=2)
    floor, coarse = (float(error.sel(scheme=s)) for s in ("noise_floor", "coarse_radiation"))
    assert 0.0 < 10 * floor < min(coarse, float(error.sel(scheme="persistence")))
    assert float(error.sel(scheme="infrequent_radiation")) > 0.0
    start = card.rmse.sel(lead_time=0, variable="t200", region="global")
    assert float(start.sel(scheme="coarse_radiation")) == 0.0
    assert float(start.sel(scheme="exact_from_analysis")) > 0.0


def test_a_date_is_verified_against_the_day_it_is_for(judged):
    reference, forecasts, _ = judged
    assert np.array_equal(reference.truth[0, 1], reference.truth[1, 0])
    assert np.array_equal(reference.truth[1, 2], reference.truth[3, 0])
    assert np.array_equal(forecasts["persistence"][2, 2], reference.truth[2, 0])


def test_a_balanced_error_is_a_share_of_a_difference():
    model = TINY.model.build()
    states = [model.initial(seed=seed) for seed in range(3)]
    moved = balanced_error(states[0], states[1:], 0.5, torch.Generator().manual_seed(0))
    added = moved.levels.current.vorticity - states[0].levels.current.vorticity
    between = states[1].levels.current.vorticity - states[2].levels.current.vorticity
    assert float(added.norm()) == pytest.approx(0.5 / math.sqrt(2.0) * float(between.norm()))
    assert not np.array_equal(judged_fields(model, moved), judged_fields(model, states[0]))


def _saved(folder, formats="fp32"):
    spec = LayerSpec(weight_format=formats, activation_format=formats)
    emulator = Emulator(8, width=16, spec=spec, generator=torch.Generator().manual_seed(0))
    emulator.output_scale.fill_(1e-3)
    save_emulator(folder / "emulator.safetensors", emulator, {})
    return folder


def test_a_run_leaves_record_card_and_figures(tmp_path):
    emulators = [_saved(tmp_path / "train"), _saved(tmp_path / "narrow", "bf16")]
    few = TINY.model_copy(update={"n_date": 3, "lead_day": 1, "n_climatology_day": 10})
    record, text = run(few, emulator=emulators, out=tmp_path / "run", device="cpu")
    assert read_record(tmp_path / "run") == record
    card = open_dataset(tmp_path / "run" / "scorecard.nc")
    error = card.rmse.sel(lead_time=1, variable="t200", region="global")
    value, floor = (float(error.sel(scheme=name)) for name in ("learned", "noise_floor"))
    assert record.accuracy["test"]["t_upper_rmse_k_day1"] == pytest.approx(value)
    assert record.accuracy["test"]["t_upper_over_noise_day1"] == pytest.approx(value / floor)
    assert list(card.network.values) == ["learned", "learned_dense-bf16"]
    other = record.baselines["learned_dense-bf16"]["test"]
    lost = float(card.hours_lost.sel(network="learned_dense-bf16", variable="z500")[1, 0])
    assert other["hours_lost_z500"] == pytest.approx(lost)
    assert "hours of skill lost" in text
    assert "doubles in" in text
    for name in ("scorecard.svg", "error_by_lead.svg", "map.svg"):
        assert (tmp_path / "run" / name).read_text().startswith("<?xml")
    assert not (tmp_path / "run" / "forecasts").exists()


def test_a_stopped_run_keeps_the_lines_that_it_had_finished(tmp_path, monkeypatch):
    emulator = _saved(tmp_path / "train")
    few = TINY.model_copy(update={"n_date": 3, "lead_day": 1, "n_climatology_day": 10})
    whole, _ = run(few, emulator=emulator, out=tmp_path / "whole", device="cpu")
    asked, make = [], score.forecast_fields

    def until_the_third(*args):
        asked.append(args[-1])
        if len(asked) == 3:
            raise KeyboardInterrupt
        return make(*args)

    monkeypatch.setattr(score, "forecast_fields", until_the_third)
    with pytest.raises(KeyboardInterrupt):
        run(few, emulator=emulator, out=tmp_path / "run", device="cpu")
    record, _ = run(few, emulator=emulator, out=tmp_path / "run", device="cpu", resume=True)
    assert record.accuracy == whole.accuracy
    assert record.baselines == whole.baselines
    assert not {*asked[:2]} & {*asked[3:]}


def test_two_networks_of_one_name_are_refused(tmp_path):
    folder = _saved(tmp_path / "train")
    with pytest.raises(ConfigError, match="two networks after the first are dense-fp32; give one"):
        load_networks([folder, folder, folder])


def test_too_few_dates_are_refused_before_the_folder_is_made(tmp_path):
    emulator = Emulator(8, width=16, generator=torch.Generator().manual_seed(0))
    save_emulator(tmp_path / "train" / "emulator.safetensors", emulator, {})
    few = TINY.model_copy(update={"n_date": 2})
    with pytest.raises(ConfigError, match="2 dates 1 days apart cannot judge leads of 2 days"):
        run(few, emulator=tmp_path / "train", out=tmp_path / "run")
    broken = TINY.model_copy(update={"infrequent_h": 0.001})
    with pytest.raises(ConfigError, match=r"infrequent_h of 3\.6 s is not a whole number of"):
        run(broken, emulator=tmp_path / "train", out=tmp_path / "run")
    dry = TINY.model_copy(update={"model": ModelConfig(physics="held-suarez")})
    with pytest.raises(ConfigError, match=r"model\.physics must be 'moist' to have radiation"):
        run(dry, emulator=tmp_path / "train", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_network_of_other_levels_is_refused_before_the_folder_is_made(tmp_path):
    folder = _saved(tmp_path / "train")
    other = TINY.model_copy(update={"model": ModelConfig(resolution="T5L4", dt_s=5400.0)})
    asked = "trained on columns of 8 levels, the model has 4; run the model with 8, or train with"
    for command, config in (
        (run, other),
        (climate.run, ClimateConfig(model=other.model)),
        (forecast.run, ForecastConfig(model=other.model)),
    ):
        with pytest.raises(ConfigError, match=asked):
            command(config, emulator=folder, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
