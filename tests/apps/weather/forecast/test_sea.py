import math

import numpy as np
import pytest
import torch
import xarray as xr

from apps.weather.boundary import Boundary
from apps.weather.forecast.sea import sea_surface
from core.errors import DataError

# a bilinear value of a straight line, in float64
ROUNDING = 1e-12


def sea(unit="K", longitude=(0.0, 90.0, 180.0, 270.0)):
    lat = np.array([60.0, 0.0, -60.0])  # north first, as many files have it
    value = 280.0 + 0.1 * lat[:, None] + np.array([0.0, 9.0, 18.0, 9.0])
    return xr.Dataset(
        {"sea_surface_temperature": (("lat", "lon"), value, {"units": unit})},
        coords={"lat": lat, "lon": list(longitude)},
    )


def test_values_between_points_across_the_meridian_and_beyond_the_last_latitude():
    degrees = torch.tensor(
        [[60.0, 0.0], [30.0, 45.0], [-15.0, 315.0], [0.0, 359.0], [89.0, 180.0]],
        dtype=torch.float64,
    )
    latitude, longitude = torch.deg2rad(degrees).unbind(1)
    found = sea_surface(sea())(latitude, longitude)
    expected = [286.0, 287.5, 283.0, 280.1, 304.0]
    np.testing.assert_allclose(found.numpy(), expected, rtol=ROUNDING)
    # the same field told from -90 to 180 degrees, and through the boundary, warmed
    other = sea(longitude=(0.0, 90.0, 180.0, -90.0))
    boundary = Boundary(sst=sea_surface(other), warming_k=4.0)
    warmed, _, _, _ = boundary.at(0.0, longitude.float(), latitude.float())
    assert warmed.dtype == torch.float32
    np.testing.assert_allclose(warmed.numpy(), np.array(expected) + 4.0, rtol=1e-6)


def test_what_is_no_sea_is_refused():
    with pytest.raises(
        DataError, match="variable 'sea_surface_temperature' is missing; it has sst"
    ):
        sea_surface(sea().rename(sea_surface_temperature="sst"))
    with pytest.raises(DataError, match="in 'degC', expected units 'K'; convert it"):
        sea_surface(sea(unit="degC"))
    with pytest.raises(DataError, match="must lie over lat and lon"):
        sea_surface(sea().rename(lat="latitude"))
    celsius = sea()
    celsius["sea_surface_temperature"][:] -= 273.15
    with pytest.raises(DataError, match=r"runs from .* expected K between 200 and 350"):
        sea_surface(celsius)
    land = sea()
    land["sea_surface_temperature"][0, 0] = math.nan
    with pytest.raises(DataError, match="fill what is missing"):
        sea_surface(land)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.isel(lat=[0]),
        lambda data: data.isel(lon=[]),
        lambda data: data.assign_coords(lat=[60.0, np.nan, -60.0]),
        lambda data: data.assign_coords(lat=[100.0, 0.0, -60.0]),
        lambda data: data.assign_coords(lon=["0E", "90E", "180E", "90W"]),
    ],
)
def test_a_sea_whose_coordinates_are_none_is_refused(change):
    with pytest.raises(DataError, match="needs two latitudes or more from -90 to 90"):
        sea_surface(change(sea()))
