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


def test_a_sun_without_a_day_shines_its_daily_mean_at_every_longitude_and_hour():
    latitude = torch.tensor([0.0, 0.8], dtype=torch.float64)
    hours = torch.arange(0.0, DAY, 60.0)
    for season in (False, True):
        moving, still = (Boundary(seasonal=season, diurnal=day) for day in (True, False))
        at = 40 * DAY
        each = [moving.at(at + float(t), 0 * latitude, latitude)[1] for t in hours]
        mean = still.at(at, torch.tensor([0.0, 2.0], dtype=torch.float64), latitude)[1]
        # the sun of `moving` goes on by a day's share of the year: 4e-3 in the mean
        assert mean.tolist() == pytest.approx(torch.stack(each).mean(0).tolist(), rel=5e-3)


def test_your_own_sea_is_a_function_of_place():
    latitude, longitude = torch.tensor([0.1, 0.2]), torch.tensor([1.0, 2.0])
    own = Boundary(sst=lambda lat, lon: 280.0 + lat + 10.0 * lon, warming_k=1.0)
    assert own.at(0.0, longitude, latitude)[0].tolist() == pytest.approx([291.1, 301.2])
