import math

import numpy as np
import pytest
import torch
import xarray as xr

from apps.lab.record import read_record
from apps.weather.atmosphere.constants import DAY_S
from apps.weather.forecast.netcdf import open_dataset
from apps.weather.forecast.simulate import ModelConfig
from apps.weather.learned import ColumnsConfig, Emulator, save_emulator
from apps.weather.learned.audit import AuditedRadiation
from apps.weather.model import Model
from apps.weather.physics import ExactRadiation, Physics
from apps.weather.verdict import longrun
from apps.weather.verdict.climate import ClimateConfig, compare, run
from apps.weather.verdict.longrun import SECTION, ZONAL, LongRun, clear, global_mean, run_daily

TINY_MODEL = ModelConfig(resolution="T5L8", dt_s=5400.0, n_longwave=16, n_shortwave=8)
TINY = ClimateConfig(model=TINY_MODEL, start="rest", n_day=3, n_settle_day=1, audit_every_day=1)


def made(model, offset=0.0, slope=0.0, seed=0, noise=0.0, n_day=72):
    """A climate of known means, daily trend and noise."""
    draw = np.random.default_rng(seed)
    n_lat, n_level = model.grid.n_lat, model.levels.n_level

    def field(*shape):
        return offset + noise * draw.normal(size=shape)

    daily = slope * np.arange(n_day) / 360.0
    section = daily[:, None, None]
    return xr.Dataset(
        {n: (("day", "level", "lat"), section + field(n_level, n_lat)) for n in SECTION}
        | {n: (("day", "lat"), daily[:, None] + field(n_lat)) for n in ZONAL}
        | {
            "energy": ("day", 3.0 * DAY_S * np.arange(n_day)),
            "energy_gained": ("day", [2.5] * n_day),
        }
    )


def test_a_known_bias_and_drift_are_found():
    model = Model("T21L8")
    mean = 71 / 360
    runs = {"learned": made(model, 0.5 - mean, slope=2.0), "a": made(model), "b": made(model)}
    found = compare(runs, model)
    assert found["temperature_bias_rms"] == pytest.approx(0.5)
    assert found["olr_beyond_noise"] == pytest.approx(0.5)
    assert found["olr_drift_per_year"] == pytest.approx(2.0)
    assert found["olr_drift_per_year_exact"] == pytest.approx(0.0, abs=1e-9)
    assert found["asr_mean"] - found["asr_mean_exact"] == pytest.approx(0.5)
    assert found["energy_residual_w_m2"] == pytest.approx(0.5)
    assert found["energy_trend_w_m2"] == pytest.approx(3.0)


def test_one_more_run_of_the_same_kind_lies_within_the_noise():
    """Expected bias and noise agree: 256 independent points, so within some 20 per cent."""
    model = Model("T21L8")
    runs = {name: made(model, seed=i, noise=1.0) for i, name in enumerate(["learned", "a", "b"])}
    found = compare(runs, model)
    assert found["u_bias_rms"] == pytest.approx(np.sqrt(1.5), rel=0.2)
    assert found["u_noise_rms"] == pytest.approx(np.sqrt(1.5), rel=0.2)


def test_seasons_lie_within_the_noise_unless_the_scheme_is_wrong():
    model = Model("T21L8")

    def over_noise(offset):
        names = ("learned", "a", "b")
        runs = {
            name: made(model, offset * (name == "learned"), seed=i, noise=1.0, n_day=200)
            for i, name in enumerate(names)
        }
        return compare(runs, model)["u_season_over_noise"]

    # the noise of these climates is the same every day: variance 1 + 1/2 and bias squared beside it
    assert over_noise(0.0) == pytest.approx(1.0, rel=0.2)
    assert over_noise(3.0) == pytest.approx((1.0 + 9.0 / 1.5) ** 0.5, rel=0.2)
    short = {name: made(model, seed=i, noise=1.0) for i, name in enumerate("ab")}
    assert math.isnan(compare({**short, "learned": short["a"]}, model)["u_season_over_noise"])


def test_means_are_those_of_the_days_run():
    model = TINY_MODEL.build()
    seen = []
    state = start = model.initial()
    for _ in range(2):
        state = model.run(state, DAY_S)
        grid = model.equations.to_grid(state.levels.current)
        seen.append(grid.temperature.double().mean(0).T.numpy())
    found = run_daily(LongRun(model, start, "test"), 1, 1)
    assert found.temperature.values[0] == pytest.approx(seen[1])
    # a flux held from one call to the next: its mean lies among those of the day
    assert found.sizes["day"] == 1
    assert 150.0 < float(global_mean(model, found, "olr")[0]) < 400.0


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setattr(longrun, "CHUNK_DAY", 2)
    model = TINY_MODEL.build()
    exact = ExactRadiation(16, 8)

    def long_run(folder):
        generator = torch.Generator().manual_seed(0)
        audited = AuditedRadiation(exact, exact, every=3, n_column=9, generator=generator)
        model.physics = Physics(audited)
        return LongRun(model, model.initial(), "test", audited, folder)

    whole = long_run(None)
    expected = run_daily(whole, 1, 5)

    class Killed(Exception):
        pass

    def stop(path, *args, **kwargs):
        if path.name.endswith("00004.nc"):
            raise Killed
        return write(path, *args, **kwargs)

    write = longrun.write_dataset
    with monkeypatch.context() as patch:
        patch.setattr(longrun, "write_dataset", stop)
        with pytest.raises(Killed):
            run_daily(long_run(tmp_path), 1, 5)
    again = long_run(tmp_path)
    assert run_daily(again, 1, 5).identical(expected)
    assert again.audited.history == whole.audited.history
    assert again.audited.n_call == whole.audited.n_call == 8 * 6
    clear(tmp_path, ["test"])
    assert not list(tmp_path.iterdir())


def test_a_run_leaves_record_climate_and_figures(tmp_path):
    columns = ColumnsConfig(
        resolution="T5L8", start="rest", skip_day=0, n_day=4, train_share=0.5, gap_day=0.0,
        n_column_per_call=8,
        run_longwave=8, run_shortwave=8, label_longwave=8, label_shortwave=8,
    )  # fmt: skip
    emulator = Emulator(8, width=16, generator=torch.Generator().manual_seed(0))
    emulator.output_scale.fill_(1e-3)
    meta = {"seed": 0, "columns": columns.model_dump(mode="json")}
    save_emulator(tmp_path / "train" / "emulator.safetensors", emulator, meta)
    record, text = run(TINY, emulator=tmp_path / "train", out=tmp_path / "run", device="cpu")
    assert read_record(tmp_path / "run") == record
    scores = record.accuracy["test"]
    assert [row["call"] for row in record.history or ()] == [0.0, 8.0, 16.0, 24.0]
    assert (scores["audit_lw_rmse_k_per_day_start"] or 0.0) > 0.1
    assert 0.0 <= (scores["share_outside"] or 0.0) <= 1.0
    saved = open_dataset(tmp_path / "run" / "climate.nc")
    assert saved.run.values.tolist() == ["learned", "exact_0", "exact_1"]
    assert "beyond" in text
    for figure in record.figures:
        assert (tmp_path / "run" / figure.file).read_text().startswith("<?xml")


def test_global_means_have_the_same_bits_however_the_fields_lie():
    model = TINY_MODEL.build("cpu")
    shape = (40, model.levels.n_level, model.grid.n_lat)
    values = np.random.default_rng(0).normal(280.0, 10.0, size=shape)
    room = np.empty(values.size + 1)
    away = room[1:].reshape(shape)  # begins elsewhere
    away[:] = values
    found = [
        global_mean(model, xr.Dataset({"temperature": (("day", "sigma", "lat"), v)}), "temperature")
        for v in (values, np.asfortranarray(values), away)
    ]
    assert found[0].shape == (40,)
    assert abs(found[0].mean() - 280.0) < 1.0
    assert all(np.array_equal(found[0], one) for one in found[1:])
