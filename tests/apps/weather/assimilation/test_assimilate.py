import numpy as np
import pytest
import torch

from apps.lab.record import read_record
from apps.weather.assimilation import assimilate, cycle
from apps.weather.assimilation.assimilate import AssimilateConfig, prepare, run, withhold
from apps.weather.assimilation.observations import KINDS
from apps.weather.forecast.simulate import ModelConfig
from core.errors import ConfigError, DataError

TINY = AssimilateConfig(
    model=ModelConfig(resolution="T10L4", physics="held-suarez", dt_s=5400.0),
    start="rest",
    n_member=4,
    member_spacing_day=1,
    cycle_h=12.0,
    n_day=1,
    n_withheld_day=1,
    forecast_day=1,
    n_station=20,
    n_flight=2,
    radius_km=5000.0,
)


def test_a_run_leaves_record_and_figures(tmp_path):
    record, text = run(TINY, out=tmp_path / "run", device="cpu")
    assert read_record(tmp_path / "run") == record
    assert [row["day"] for row in record.history or ()] == [14.5, 15.0, 15.5, 16.0]
    scores = record.accuracy["test"]
    assert 0.1 < (scores["temperature_analysis_over_climate"] or 0.0) < 10.0
    # the dry case has no humidity to judge
    assert "humidity_spread_skill" not in scores
    assert "hours_lost_downstream" in record.baselines["basin_withheld"]["test"]
    assert "downstream at 12 h: " in text
    for figure in record.figures:
        assert (tmp_path / "run" / figure.file).read_text().startswith("<?xml")


@pytest.mark.parametrize("n_done", [1, 3, 5])
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path, monkeypatch, n_done):
    """Stopped in the spin-up, with full coverage, without the basin; two cycles each."""
    whole, text = run(TINY, out=tmp_path / "whole", device="cpu")
    assert not (tmp_path / "whole" / assimilate.KEPT_FOLDER).exists()
    monkeypatch.setattr(assimilate, "_KEPT_EVERY", 1)
    analyse, calls = cycle.analyse, []

    def stops(*args, **kwargs):
        if len(calls) == n_done:
            raise KeyboardInterrupt
        calls.append(None)
        return analyse(*args, **kwargs)

    monkeypatch.setattr(cycle, "analyse", stops)
    with pytest.raises(KeyboardInterrupt):
        run(TINY, out=tmp_path / "run", device="cpu")
    calls.clear()
    monkeypatch.setattr(
        cycle, "analyse", lambda *args, **kwargs: (calls.append(None), analyse(*args, **kwargs))[1]
    )
    with pytest.raises(DataError, match="continue it with --resume"):
        run(TINY, out=tmp_path / "run", device="cpu")
    record, again = run(TINY, out=tmp_path / "run", device="cpu", resume=True)
    assert len(calls) == 6 - n_done
    assert again == text
    assert (record.accuracy, record.baselines) == (whole.accuracy, whole.baselines)
    assert record.history == whole.history
    for figure in whole.figures:
        one, other = ((tmp_path / name / figure.file).read_bytes() for name in ("whole", "run"))
        assert one == other
    # done: nothing is made again
    calls.clear()
    assert run(TINY, out=tmp_path / "run", device="cpu", resume=True) == (record, text)
    assert not calls


def test_a_damaged_ensemble_is_refused_by_name(tmp_path):
    kept = tmp_path / "run" / assimilate.KEPT_FOLDER
    run(TINY, out=tmp_path / "run", device="cpu")
    kept.mkdir()
    (kept / "spin_up.safetensors").write_bytes(b"cut")
    with pytest.raises(DataError, match=r"spin_up\.safetensors is cut short or damaged"):
        run(TINY, out=tmp_path / "run", device="cpu", resume=True)


def test_withheld_observations_are_those_of_the_box():
    model = TINY.model.build()
    found = prepare(TINY, model, 0)
    kept = withhold(found.observed, TINY.basin)
    for (places, value), (fewer, values) in zip(found.observed, kept, strict=True):
        inside = (places.latitude.abs() <= 60) & (places.longitude >= 150)
        inside &= places.longitude < 240
        assert 0 < int(inside.sum()) == len(value) - len(values)
        assert torch.equal(values, value[~inside])
        assert len(fewer.kind) == len(values)
    assert len(found.truth) == len(found.observed) + 2


def test_observations_scatter_about_the_truth_by_their_error():
    from apps.weather.assimilation.cycle import fields_of
    from apps.weather.assimilation.observations import ObservationOperator

    model = TINY.model.build()
    found = prepare(TINY.model_copy(update={"n_station": 200}), model, 0)
    places, value = found.observed[0]
    true = ObservationOperator(model, places)(fields_of(model, found.truth[0]).unsqueeze(0))[0]
    z = (value - true) / places.error
    for kind in ("u", "temperature", "surface_pressure"):
        some = z[places.kind == KINDS.index(kind)]
        # standard deviation of a sample of n normal numbers: 1 / sqrt(2 n)
        assert float(some.std()) == pytest.approx(1.0, abs=4 / np.sqrt(2 * len(some)))


def test_what_cannot_work_is_refused_first(tmp_path):
    with pytest.raises(ConfigError, match="cycle_h of 21,960 s is not a whole number"):
        run(TINY.model_copy(update={"cycle_h": 6.1}), out=tmp_path / "run")
    with pytest.raises(
        ConfigError, match="100,000 stations and 2 flights of 12 reports are 100,024"
    ):
        run(TINY.model_copy(update={"n_station": 100_000}), out=tmp_path / "run")
    with pytest.raises(ConfigError, match="more than the 512 columns of T10L4; lower n_station"):
        run(TINY.model_copy(update={"n_flight": 42}), out=tmp_path / "run")
    with pytest.raises(ConfigError, match=r"cycle_h must divide the 24 hours of a day, got 36"):
        run(TINY.model_copy(update={"cycle_h": 36.0}), out=tmp_path / "run")
    with pytest.raises(ConfigError, match="forecasts every 2 days begin on none of the 1 days"):
        run(TINY.model_copy(update={"forecast_every_day": 2}), out=tmp_path / "run")
    with pytest.raises(ConfigError, match="widen the box"):
        run(TINY.model_copy(update={"basin": (0.1, 0.2, 0.0, 10.0)}), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
