import importlib.util

import numpy as np
import pytest
import torch

from apps.weather.atmosphere.cases import rossby_haurwitz
from apps.weather.forecast.netcdf import (
    dataset,
    model_state,
    open_dataset,
    snapshot,
    write_dataset,
)
from apps.weather.model import Model
from core.errors import ConfigError, DataError

# float32 on file: 2^-24 of fields of 300 K and 1e5 Pa, some roundings of the transform
FILE_ROUNDING = 1e-5


@pytest.fixture(scope="module")
def model():
    return Model("T10L3", dtype=torch.float64)


@pytest.fixture
def data(model):
    state = model.begin(rossby_haurwitz(model.equations), time_s=43200.0)
    later = model.step(state)
    return dataset(model, [snapshot(model, state), snapshot(model, later)])


def test_dataset_follows_cf(model, data):
    for name in ("temperature", "specific_humidity", "eastward_wind", "surface_pressure"):
        assert data[name].attrs["units"]
        assert data[name].attrs["standard_name"]
    assert data.attrs["Conventions"] == "CF-1.11"
    assert data["temperature"].dims == ("time", "level", "lat", "lon")
    assert dict(data.sizes) == {"time": 2, "level": 3, "lat": 16, "lon": 32, "bound": 2}
    np.testing.assert_allclose(data["time"].values, [0.5, 0.5 + model.dt / 86400.0])
    terms = data["level"].attrs["formula_terms"].split()
    assert terms[::2] == ["sigma:", "ps:", "ptop:"]
    assert all(name in data.variables for name in terms[1::2])
    np.testing.assert_allclose(data["level_bounds"].values[:, 1], [1 / 3, 2 / 3, 1])


def test_a_cf_reader_finds_axes_and_pressure(data, tmp_path):
    xr, cf = pytest.importorskip("xarray"), pytest.importorskip("cf_xarray")
    assert cf.__version__
    with xr.open_dataset(write_dataset(tmp_path / "a.nc", data)) as file:
        axes = {"X": ["lon"], "Y": ["lat"], "Z": ["level"], "T": ["time"]}
        assert file.cf.axes == axes
        assert file.cf["air_temperature"].name == "temperature"
        file.cf.decode_vertical_coords(outnames={"level": "pressure"})
        expected = file["surface_pressure"] * file["level"]
        np.testing.assert_allclose(file["pressure"], expected.transpose(*file["pressure"].dims))


def test_winds_stand_at_their_place(model, data):
    """u of the wave at a marked point, from its closed form through another route."""
    state = rossby_haurwitz(model.equations)
    u, _ = model.transform.wind(state.vorticity, state.divergence)
    value = data["eastward_wind"].isel(time=0, level=2, lat=11, lon=5)
    assert float(value) == pytest.approx(float(u[5, 11, 2]), rel=1e-6)
    assert float(value.lat) == pytest.approx(np.degrees(float(model.grid.latitude[11])))


def test_round_trip_through_a_file(model, data, tmp_path):
    state = model.begin(rossby_haurwitz(model.equations), time_s=43200.0)
    file = write_dataset(tmp_path / "a.nc", data)
    back = model_state(model, open_dataset(file), index=0)
    assert back.time_s == 43200.0
    for name, one, other in zip(
        state.levels.current._fields, back.levels.current, state.levels.current, strict=True
    ):
        like = state.levels.current.vorticity if name == "divergence" else other
        scale = max(float(like.abs().max()), 1e-12)
        assert float((one - other).abs().max()) < FILE_ROUNDING * scale, name


def test_humidity_on_file_is_not_negative_and_keeps_its_mass():
    model = Model("T5L3", dtype=torch.float64)
    state = model.initial()
    # one harmonic about a mean that it exceeds: negative over a part of the globe
    state.levels.current.humidity[0, 0, 0] = 1e-3
    state.levels.current.humidity[0, 0, 2] = 2e-3
    raw = model.equations.to_grid(state.levels.current).humidity
    written = torch.from_numpy(snapshot(model, state).fields["specific_humidity"]).permute(2, 1, 0)
    assert float(raw.min()) < -1e-4
    assert float(written.min()) == 0.0
    torch.testing.assert_close(model.grid.mean(written), model.grid.mean(raw), rtol=1e-12, atol=0)


def test_time_decodes_to_dates(data, tmp_path):
    import xarray as xr

    file = write_dataset(tmp_path / "a.nc", data)
    with xr.open_dataset(file) as decoded:
        assert str(decoded["time"].values[0]).startswith("2001-03-20T12:00")


def test_another_grid_is_refused_naming_both(data):
    with pytest.raises(DataError, match=r"its grid is 32 x 16 .* the model's is T21 \(64 x 32\)"):
        model_state(Model("T21L3"), data)


def test_other_levels_are_refused_naming_both(data):
    with pytest.raises(DataError, match=r"its sigma levels are \[0\.1667.* model's are \[0\.125"):
        model_state(Model("T10L4"), data)


def test_another_vertical_coordinate_is_refused(model, data):
    data["level"].attrs["standard_name"] = "air_pressure"
    with pytest.raises(DataError, match="level is 'air_pressure', expected 'atmosphere_sigma"):
        model_state(model, data)


def test_missing_and_other_units_are_refused(model, data):
    data["temperature"].attrs["units"] = "degC"
    with pytest.raises(DataError, match="'temperature' is in 'degC', expected 'K'"):
        model_state(model, data)
    del data["temperature"].attrs["units"]
    with pytest.raises(DataError, match="'temperature' has no units attribute"):
        model_state(model, data)


def test_missing_variable_and_nan_are_refused(model, data):
    with pytest.raises(DataError, match="variable 'eastward_wind' is missing"):
        model_state(model, data.drop_vars("eastward_wind"))
    data["surface_pressure"][1, 3, 3] = np.nan
    with pytest.raises(DataError, match="'surface_pressure' holds values that are not finite"):
        model_state(model, data)


def test_values_in_another_unit_and_times_that_are_not_there_are_refused(model, data):
    hectopascal = data.copy(deep=True)
    hectopascal["surface_pressure"][:] /= 100.0
    with pytest.raises(DataError, match=r"'surface_pressure' runs from .* Pa, expected 30000 to"):
        model_state(model, hectopascal)
    celsius = data.copy(deep=True)
    celsius["temperature"][:] -= 273.15
    with pytest.raises(DataError, match=r"'temperature' runs from .* is it in another unit\?"):
        model_state(model, celsius)
    with pytest.raises(DataError, match="index 2 asks for more than the 2 times that it has"):
        model_state(model, data, index=2)


def test_rows_from_the_north_and_columns_from_the_date_line_are_put_in_order(model, data):
    west = data.assign_coords(lon=(data["lon"] + 180.0) % 360.0 - 180.0).sortby("lon")
    turned = west.isel(lat=slice(None, None, -1))
    assert float(turned["lat"][0]) > 0.0 > float(turned["lon"][0])
    for mine, true in zip(
        model_state(model, turned).levels.current,
        model_state(model, data).levels.current,
        strict=True,
    ):
        assert mine.equal(true)


def test_a_missing_value_is_named_with_its_place(model, data):
    holed = data.copy(deep=True)
    holed["temperature"][1, 2, 5, 3] = np.nan
    with pytest.raises(DataError, match=r"level 0\.833333, lat -27\.2592, lon 33\.75"):
        model_state(model, holed)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda d: d.isel(lon=0), r"coordinate 'lon' lies over \(\), expected \(lon\) alone"),
        (
            lambda d: d.rename(lat="y").assign_coords(lat=("y", d["lat"].values)),
            r"coordinate 'lat' lies over \(y\), expected \(lat\) alone",
        ),
        (
            lambda d: d.assign_coords(lon=[f"{i}E" for i in range(32)]),
            r"coordinate 'lon' holds <U3, expected numbers",
        ),
        (
            lambda d: d.assign_coords(lon=np.where(np.arange(32) == 3, np.nan, d["lon"])),
            r"coordinate 'lon' is empty or lacks values",
        ),
        (lambda d: d.isel(lat=[]), r"coordinate 'lat' is empty or lacks values"),
        (
            lambda d: d.expand_dims(member=2),
            r"'temperature' lies over \(member, time, level, lat, lon\), expected \(time, level,",
        ),
        (
            lambda d: d.assign(surface_pressure=d["surface_pressure"].isel(time=0)),
            r"'surface_pressure' lies over \(lat, lon\), expected \(time, lat, lon\)",
        ),
    ],
)
def test_other_axes_are_refused_by_name(model, data, change, sentence):
    with pytest.raises(DataError, match=sentence):
        model_state(model, change(data))


def test_time_is_read_in_its_own_unit_and_since_its_own_date(model, data):
    def begun(values, **about):
        return model_state(model, data.assign_coords(time=("time", values, about))).time_s

    own = data["time"].values
    true = model_state(model, data).time_s
    assert true == 43200.0 + model.dt
    assert begun(24.0 * own, units="hours since 2001-03-20") == true
    assert begun(own + 31.0, units="days since 2001-02-17 00:00:00") == true
    import xarray as xr

    assert model_state(model, xr.decode_cf(data)).time_s == true
    for about in ({}, {"units": "days"}, {"units": "days since 2001-03-20", "calendar": "noleap"}):
        with pytest.raises(DataError, match="of the standard calendar"):
            begun(own, **about)


def test_one_flipped_bit_in_a_value_is_seen(data, tmp_path):
    path = write_dataset(tmp_path / "a.nc", data)
    whole = path.read_bytes()
    for name in ("temperature", "surface_pressure", "lat", "time"):
        at = whole.index(np.ascontiguousarray(data[name].values).tobytes()[:16]) + 5
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(DataError, match=r"cannot read .*a\.nc as netCDF"):
            open_dataset(path)


def test_a_disk_that_is_full_is_told_and_leaves_the_old_file(data, tmp_path, monkeypatch):
    path = write_dataset(tmp_path / "a.nc", data)
    before = path.read_bytes()

    def broken(*_, **__):
        raise RuntimeError("NetCDF: HDF error")

    monkeypatch.setattr(type(data), "to_netcdf", broken)
    with pytest.raises(DataError, match=r"cannot write .*a\.nc \(NetCDF: HDF error\); free some"):
        write_dataset(path, data)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [before]


def test_files_that_are_no_netcdf_are_refused(tmp_path):
    with pytest.raises(DataError, match="there is no file"):
        open_dataset(tmp_path / "none.nc")
    (tmp_path / "a.nc").write_text("not netcdf")
    with pytest.raises(DataError, match=r"cannot read .*a\.nc as netCDF"):
        open_dataset(tmp_path / "a.nc")


def test_zarr_holds_the_same(tmp_path):
    pytest.importorskip("zarr", reason="zarr is not installed")
    model = Model("T5L4")
    data = dataset(model, [snapshot(model, model.initial())])
    path = write_dataset(tmp_path / "a.zarr", data)
    assert open_dataset(path).identical(open_dataset(write_dataset(tmp_path / "a.nc", data)))
    assert write_dataset(path, data) == path
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.nc", "a.zarr"]


def test_zarr_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    model = Model("T5L4")
    data = dataset(model, [snapshot(model, model.initial())])
    with pytest.raises(ConfigError, match="the package zarr is not installed; install it"):
        write_dataset(tmp_path / "a.zarr", data)
