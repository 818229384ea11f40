import math

import pytest
import torch

from apps.weather.atmosphere.grid import GaussianGrid, parse_resolution
from core.errors import ConfigError

EXACT = 1e-14  # sums of at most a few thousand float64 terms of order one


@pytest.mark.parametrize(("truncation", "n_lon"), [(21, 64), (31, 96), (42, 128)])
def test_sizes_hold_a_quadratic_product(truncation, n_lon):
    grid = GaussianGrid(truncation)
    assert (grid.n_lon, grid.n_lat) == (n_lon, n_lon // 2)
    assert 3 * truncation + 1 <= grid.n_lon


def test_area_mean_of_closed_forms():
    grid = GaussianGrid(21)
    sin = grid.sin_latitude.expand(grid.n_lon, -1)
    fields = torch.stack([torch.ones_like(sin), sin**2, sin**10, sin**3], dim=-1)
    expected = torch.tensor([1.0, 1 / 3, 1 / 11, 0.0], dtype=torch.float64)
    assert (grid.mean(fields) - expected).abs().max() < EXACT


def test_latitudes_run_south_to_north_and_longitudes_from_zero():
    grid = GaussianGrid(21)
    assert grid.latitude.diff().min() > 0
    assert grid.longitude[0] == 0
    # the northernmost of 32 Gauss latitudes, Abramowitz and Stegun table 25.4
    assert math.sin(float(grid.latitude[-1])) == pytest.approx(0.997263861849481, abs=1e-14)


def test_unknown_truncation_and_resolution_are_refused():
    with pytest.raises(ConfigError, match=r"truncation must be one of .*T21.* got T22"):
        GaussianGrid(22)
    assert parse_resolution("T31L10") == (31, 10)
    with pytest.raises(ConfigError, match=r"must look like T21L8 .* got 'T21'"):
        parse_resolution("T21")
    for flat in ("T21L0", "T21L1"):
        with pytest.raises(ConfigError, match=r"levels, two to 200\), got 'T21L.'; known .* T63"):
            parse_resolution(flat)
