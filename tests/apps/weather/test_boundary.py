import math

import pytest
import torch

from apps.weather.boundary import Boundary

DAY = 86400.0
QUARTER_YEAR = 365.25 * DAY / 4


def test_sea_sun_and_carbon_dioxide_reach_the_columns():
    latitude = torch.tensor([0.0, 1.2], dtype=torch.float64)
    longitude = torch.full_like(latitude, math.pi)
    sst, sun, albedo, co2 = Boundary(warming_k=4.0, co2_ppmv=700.0).at(0.0, longitude, latitude)
    assert sst.tolist() == pytest.approx([273.15 + 31.0, 277.15])
    assert sun.tolist() == pytest.approx([1.0, math.cos(1.2)])
    assert co2.tolist() == [700.0, 700.0]
    assert (albedo > 0).all()


def test_seasons_move_the_sun_and_the_equinox_does_not():
    pole = torch.tensor([math.pi / 2], dtype=torch.float64)
    zero = torch.zeros_like(pole)
    june = Boundary(seasonal=True).at(QUARTER_YEAR, zero, pole)[1]
    assert float(june) == pytest.approx(math.sin(math.radians(23.44)))
    assert float(Boundary().at(QUARTER_YEAR, zero, pole)[1]) == pytest.approx(0.0, abs=1e-15)
