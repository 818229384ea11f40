import numpy as np
import pytest
import torch
import xarray as xr

from apps.lab.checkpoint import load_checkpoint
from apps.lab.config import load_config
from apps.lab.record import read_record
from apps.weather.atmosphere.cases import rossby_haurwitz
from apps.weather.atmosphere.held_suarez import HeldSuarez
from apps.weather.forecast.figures import kinetic_spectrum
from apps.weather.forecast.netcdf import write_dataset
from apps.weather.forecast.simulate import (
    RESTART_FILE,
    ModelConfig,
    SimulateConfig,
    first_state,
    run,
)
from apps.weather.model import Model
from core.errors import ConfigError, DataError

TINY = ModelConfig(resolution="T5L4", n_longwave=8, n_shortwave=8)


def config(**kwargs):
    return SimulateConfig(model=TINY, start="rest", output_every_h=12.0, file_day=1, **kwargs)


def test_a_run_writes_files_a_restart_and_a_record(tmp_path):
    record = run(config(n_day=2), out=tmp_path / "run", device="cpu")
    assert read_record(tmp_path / "run") == record
    seen = record.accuracy["test"]
    assert seen["mean_surface_pressure_pa"] == pytest.approx(1e5, rel=1e-6)
    assert 100.0 < seen["olr_w_m2"] < 400.0
    files = sorted(tmp_path.glob("run/*.nc"))
    assert [file.name for file in files] == ["atmosphere_day00001.nc", "atmosphere_day00002.nc"]
    with xr.open_dataset(files[1], decode_times=False) as data:
        assert data["time"].values.tolist() == [1.5, 2.0]
        assert data["outgoing_longwave"].attrs["units"] == "W m-2"
        assert float(data["precipitation"].min()) >= 0.0
    drawn = ["map.svg", "zonal_mean.svg", "spectrum.svg", "hovmoller.svg"]
    assert [figure.file for figure in record.figures] == drawn
    for figure in record.figures:
        assert (tmp_path / "run" / figure.file).read_text().startswith("<?xml")
    assert abs(seen["energy_residual_w_m2"]) < 50.0  # a coarse grid at rest, hardly a day


def test_spectrum_sums_to_the_mean_kinetic_energy():
    model = Model("T21L8", dtype=torch.float64)
    state = model.begin(rossby_haurwitz(model.equations))
    spectrum = kinetic_spectrum(model, state)
    grid = model.equations.to_grid(state.levels.current)
    mean = 0.5 * model.grid.mean(grid.u.square() + grid.v.square())
    assert torch.allclose(spectrum.sum(0), mean, rtol=1e-12)
    # solid rotation is n = 1, the wave is wavenumber 4 of degree 5; no other scale has any
    alone = spectrum.clone()
    alone[[1, 5]] = 0.0
    assert float(alone.max()) < 1e-20 * float(spectrum.max())


def test_a_stopped_run_resumes_to_the_same_bits(tmp_path, monkeypatch):
    whole = run(config(n_day=3), out=tmp_path / "whole", device="cpu")

    class Stopped(Exception):
        pass

    from apps.weather.forecast import simulate as room

    written = []
    real = room.save_state

    def stop_after_second(path, model, state, **more):
        real(path, model, state, **more)
        written.append(path)
        if len(written) == 2:
            raise Stopped

    monkeypatch.setattr(room, "save_state", stop_after_second)
    with pytest.raises(Stopped):
        run(config(n_day=3), out=tmp_path / "parts", device="cpu")
    monkeypatch.undo()
    parts = run(config(n_day=3), out=tmp_path / "parts", device="cpu", resume=True)
    assert parts.accuracy == whole.accuracy  # the energy budget too goes on where it stood
    assert run(config(n_day=3), out=tmp_path / "parts", device="cpu", resume=True) == parts
    one, _ = load_checkpoint(tmp_path / "whole" / RESTART_FILE)
    other, _ = load_checkpoint(tmp_path / "parts" / RESTART_FILE)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    last = "atmosphere_day00003.nc"
    with (
        xr.open_dataset(tmp_path / "whole" / last) as a,
        xr.open_dataset(tmp_path / "parts" / last) as b,
    ):
        assert a.equals(b)


def test_a_run_starts_from_its_own_netcdf(tmp_path):
    run(config(n_day=1), out=tmp_path / "first", device="cpu")
    file = tmp_path / "first" / "atmosphere_day00001.nc"
    state = first_state(TINY.build(), str(file), seed=0)
    assert state.time_s == 86400.0
    assert state.levels.n_step == 0


def test_settings_that_cannot_work_leave_no_folder(tmp_path):
    for n_day, every_h, sentence in (
        (1, 48.0, "files of 1 days hold no whole number of outputs 48 h apart"),
        (5, 36.0, "files of 3 days and one of 2 hold no whole number of outputs 36 h apart"),
    ):
        rare = SimulateConfig(model=TINY, n_day=n_day, file_day=3, output_every_h=every_h)
        with pytest.raises(ConfigError, match=sentence):
            run(rare, out=tmp_path / "run", device="cpu")
    huge = SimulateConfig(model=TINY, n_day=10**6, file_day=10**6, output_every_h=1.0)
    with pytest.raises(ConfigError, match=r"24,000,000 states of T\d+L\d+, .* lower file_day or"):
        run(huge, out=tmp_path / "run", device="cpu")
    odd = SimulateConfig(model=TINY, start="rest", output_every_h=0.7)
    with pytest.raises(ConfigError, match="output_every_h of 2,520 s is not a whole number"):
        run(odd, out=tmp_path / "run", device="cpu")
    with pytest.raises(DataError, match="there is no file"):
        run(SimulateConfig(model=TINY, start="gone.nc"), out=tmp_path / "run", device="cpu")
    with pytest.raises(ConfigError, match=r"start must be 'sample', 'rest'.* got 'warm'"):
        run(SimulateConfig(model=TINY, start="warm"), out=tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("n_longwave=1000000000", "n_longwave: .* less than or equal to 4096, got 1000000000"),
        ("warming_k=1e300", "warming_k: .* less than or equal to 50, got 1e"),
        ("radiation_interval_h=inf", "radiation_interval_h: .* finite number, got inf"),
        ("resolution=T21L100000", "two to 200"),
    ],
)
def test_settings_without_measure_are_refused(setting, sentence):
    with pytest.raises(ConfigError, match=sentence):
        load_config(SimulateConfig, overrides=[f"model.{setting}"]).model.build()


def test_held_suarez_by_configuration():
    model = ModelConfig(resolution="T5L4", physics="held-suarez", precision="fp64").build()
    assert isinstance(model.physics, HeldSuarez)
    assert model.transform.dtype == torch.float64


def test_vertical_scheme_by_configuration():
    schemes = ("simmons-burridge", "trapezoidal")
    models = [TINY.model_copy(update={"vertical_scheme": name}).build() for name in schemes]
    assert [model.levels.scheme for model in models] == list(schemes)
    assert TINY.build().levels == models[0].levels
    one, other = (m.run(m.initial(), 86400.0).levels.current.divergence for m in models)
    assert float((one - other).abs().max()) > 1e-9  # s-1


@pytest.mark.parametrize(
    ("bad_step", "sentence"),
    [
        (12, r"simulate, day 0\.5: temperature is not finite at level 2 .*; no state was kept yet"),
        (36, r"simulate, day 1\.5: .*; the last good state is .*restart\.safetensors"),
    ],
)
def test_a_state_that_is_not_finite_stops_with_the_last_good_one(
    tmp_path, monkeypatch, bad_step, sentence
):
    real, n = Model.step, [0]

    def broken(self, state):
        state = real(self, state)
        n[0] += 1
        if n[0] == bad_step:
            state.levels.current.temperature[0, 1, 2, 2] = float("nan")
        return state

    monkeypatch.setattr(Model, "step", broken)
    with pytest.raises(DataError, match=sentence):
        run(config(n_day=2), out=tmp_path / "run", device="cpu")


def test_your_own_sea_by_configuration(tmp_path):
    lat, lon = np.linspace(-90.0, 90.0, 19), np.arange(0.0, 360.0, 10.0)
    warm = xr.Dataset(
        {"sea_surface_temperature": (("lat", "lon"), np.full((19, 36), 301.0), {"units": "K"})},
        coords={"lat": lat, "lon": lon},
    )
    path = write_dataset(tmp_path / "sea.nc", warm)
    settings = {"sst": str(path), "warming_k": 1.0, "diurnal": False}
    model = TINY.model_copy(update=settings).build()
    columns = model.columns(model.equations.to_grid(model.initial().levels.current), 0.0)
    assert columns.sst.tolist() == pytest.approx([302.0] * len(columns.sst))
    by_longitude = columns.cos_zenith.view(model.grid.n_lon, -1)
    assert float(by_longitude.std(0).max()) == 0.0
    with pytest.raises(ConfigError, match=r"'control', 'qobs' or a .nc or .zarr file .* 'warm'"):
        TINY.model_copy(update={"sst": "warm"}).build()
