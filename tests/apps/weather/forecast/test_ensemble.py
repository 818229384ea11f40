import numpy as np
import pytest

from apps.weather.forecast.ensemble import AXES, forecast_dataset
from apps.weather.forecast.netcdf import dataset, open_dataset, snapshot, write_dataset
from apps.weather.forecast.simulate import ModelConfig
from core.errors import ConfigError, DataError

# float32 on file, through two transforms
FILE_ROUNDING = 1e-5
DAY_S = 86400.0


@pytest.fixture(scope="module")
def model():
    return ModelConfig(resolution="T5L4", n_longwave=8, n_shortwave=8).build()


@pytest.fixture(scope="module")
def start(model):
    state = model.run(model.initial(seed=3), DAY_S)
    return dataset(model, [snapshot(model, state), snapshot(model, model.run(state, DAY_S))])


def test_members_dates_and_leads_stand_where_they_should(model, start, tmp_path):
    out = forecast_dataset(model, start, lead_h=24, every_h=12, n_member=3, noise_k=0.5, seed=1)
    assert out["temperature"].dims == AXES
    assert out["surface_pressure"].dims == tuple(axis for axis in AXES if axis != "level")
    sizes = {"init_time": 2, "lead_time": 3, "member": 3, "level": 4}
    assert {axis: out.sizes[axis] for axis in sizes} == sizes
    np.testing.assert_allclose(out["time"].values, [[1.0, 1.5, 2.0], [2.0, 2.5, 3.0]])
    assert out["temperature"].attrs["units"] == "K"
    # noise of 0.5 K about the start, and three members that differ
    spread = (out["temperature"].isel(lead_time=0) - start["temperature"].values[:, None]).std()
    # 36 harmonics hold their share of the white noise of 128 points
    assert float(spread) == pytest.approx(0.5 * (36 / 128) ** 0.5, rel=0.1)
    assert bool(np.isnan(out["precipitation"].isel(lead_time=0)).all())
    assert bool(np.isfinite(out["precipitation"].isel(lead_time=slice(1, None))).all())
    back = open_dataset(write_dataset(tmp_path / "f.nc", out))
    assert back.identical(out)
    again = forecast_dataset(model, start, lead_h=24, every_h=12, n_member=3, noise_k=0.5, seed=1)
    assert again.identical(out)


def test_without_noise_it_is_the_models_own_run(model, start):
    out = forecast_dataset(model, start, lead_h=24)
    truth = start["temperature"].isel(time=1).values
    found = out["temperature"].isel(init_time=0, lead_time=1, member=0).values
    # a forward step on either side of the day's leapfrog
    assert np.sqrt(((found - truth) ** 2).mean()) < 0.2
    first = out["temperature"].isel(init_time=1, lead_time=0, member=0).values
    np.testing.assert_allclose(first, truth, rtol=FILE_ROUNDING)


def test_members_of_the_start_go_on(model, start):
    import xarray as xr

    warm = start.copy(deep=True)
    warm["temperature"] = warm["temperature"].copy(data=start["temperature"].values + 1.0)
    both = xr.concat([start, warm], "member", data_vars="all", coords="minimal")
    both["level"].attrs = start["level"].attrs
    out = forecast_dataset(model, both.isel(time=[0]), lead_h=24)
    assert out.sizes["member"] == 2
    change = out["temperature"].isel(lead_time=0).diff("member")
    np.testing.assert_allclose(change.values, 1.0, atol=1e-3)


def test_what_cannot_be_is_refused(model, start):
    with pytest.raises(
        ConfigError, match="lead_h must be a whole number of every_h, got 30 and 24"
    ):
        forecast_dataset(model, start, lead_h=30)
    with pytest.raises(ConfigError, match="n_member is 4, but noise_k is 0; members must differ"):
        forecast_dataset(model, start, lead_h=24, n_member=4)
    with pytest.raises(ConfigError, match=r"every_h .* is not a whole number"):
        forecast_dataset(model, start, lead_h=1.3, every_h=1.3)
    bare = start.copy()
    bare["temperature"] = bare["temperature"].copy()
    del bare["temperature"].attrs["units"]
    with pytest.raises(DataError, match="start: variable 'temperature' has no units"):
        forecast_dataset(model, bare, lead_h=24)
