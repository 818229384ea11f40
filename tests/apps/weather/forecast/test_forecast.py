import pytest
import torch

from apps.lab.record import read_record
from apps.weather.forecast import forecast as module
from apps.weather.forecast import verify
from apps.weather.forecast.forecast import ForecastConfig, at_home, run, verify_radiation
from apps.weather.forecast.simulate import ModelConfig
from apps.weather.learned import Emulator, save_emulator
from apps.weather.physics import ExactRadiation
from core.errors import ConfigError, DataError

TINY = ForecastConfig(
    model=ModelConfig(resolution="T5L8", n_longwave=32, n_shortwave=16),
    start="rest",
    n_date=1,
    lead_day=2,
    coarse_longwave=8,
)


def test_the_exact_scheme_as_its_own_emulator_beats_the_coarse_one():
    found, cpu_s = verify_radiation(TINY, ExactRadiation(32, 16))
    assert found.t_upper_rmse_k["learned"] == [0.0, 0.0]
    assert found.t_upper_rmse_k["coarse_radiation"][1] > 0.01
    assert set(cpu_s) == {"exact", "learned", "coarse_radiation"}


def test_a_forecast_with_a_saved_network_is_recorded(tmp_path):
    emulator = Emulator(8, width=16, generator=torch.Generator().manual_seed(0))
    emulator.output_scale.fill_(1e-3)  # inputs of hundreds of K pass unscaled: keep heating small
    folder = tmp_path / "train"
    save_emulator(folder / "emulator.safetensors", emulator, {})
    record, text = run(TINY, emulator=folder, out=tmp_path / "run", device="cpu")
    assert read_record(tmp_path / "run") == record
    # an untrained network neither heats nor cools as radiation does, by order one K/day
    assert record.accuracy["test"]["t_upper_rmse_k_day1"] > 0.01
    assert set(record.baselines) == {"persistence", "noise_floor", "coarse_radiation"}
    assert set(record.baselines["noise_floor"]["test"]) == {
        "t_upper_rmse_k_day1",
        "t_upper_rmse_k_day2",
    }
    assert (tmp_path / "run" / "forecast.svg").read_text().startswith("<?xml")
    assert "exact / learned" in text


@pytest.mark.parametrize("n_done", [0, 1, 2])
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path, monkeypatch, n_done):
    """Stopped before the first line, after the noise floor, after the coarse scheme."""
    emulator = Emulator(8, width=16, generator=torch.Generator().manual_seed(0))
    emulator.output_scale.fill_(1e-3)
    save_emulator(tmp_path / "train" / "emulator.safetensors", emulator, {})

    def forecast(name, resume=False):
        out = tmp_path / name
        # as in another process: nothing is left of the truth in memory
        module._truth.cache_clear()
        return run(TINY, emulator=tmp_path / "train", out=out, device="cpu", resume=resume)[0]

    whole = forecast("whole")
    score, scored = verify._score, []

    def stops(truth, name, *args):
        if len(scored) == n_done:
            raise KeyboardInterrupt
        scored.append(name)
        return score(truth, name, *args)

    monkeypatch.setattr(verify, "_score", stops)
    with pytest.raises(KeyboardInterrupt):
        forecast("run")
    monkeypatch.setattr(verify, "_score", score)
    upper, steps = verify._upper, []
    monkeypatch.setattr(verify, "_upper", lambda *args: (steps.append(None), upper(*args))[1])
    record = forecast("run", resume=True)
    # the truth's three states, and two leads of each line that was not scored yet
    assert len(steps) == 3 + 2 * (3 - n_done)
    assert not (tmp_path / "run" / module.KEPT_FILE).exists()
    for name, line in whole.baselines.items():
        assert record.baselines[name] == line

    def scores(found):
        test = found.accuracy["test"]
        return {key: value for key, value in test.items() if "cpu" not in key}

    assert scores(record) == scores(whole)


def test_dry_physics_and_a_missing_network_are_refused(tmp_path):
    dry = TINY.model_copy(update={"model": ModelConfig(resolution="T5L8", physics="held-suarez")})
    with pytest.raises(ConfigError, match="must be 'moist' to have radiation"):
        verify_radiation(dry, ExactRadiation(8, 8))
    with pytest.raises(DataError, match="there is no checkpoint"):
        run(TINY, emulator=tmp_path / "none", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_resolution_is_the_networks_own_unless_it_is_set():
    meta = {"columns": {"resolution": "T31L10"}}
    other = ForecastConfig(model=ModelConfig(n_longwave=41))
    assert at_home(other, meta).model == ModelConfig(resolution="T31L10", n_longwave=41)
    assert at_home(TINY, meta) == TINY
    assert at_home(other, {}) == other
