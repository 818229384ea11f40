import math

import numpy as np
import pytest
import xarray as xr
from scores.continuous import rmse as scores_rmse
from scores.stats.statistical_tests import diebold_mariano as scores_diebold_mariano

from apps.weather.atmosphere.grid import GaussianGrid
from apps.weather.verdict.metrics import (
    anomaly_correlation,
    box_weight,
    diebold_mariano,
    hours_lost,
    region_weights,
    rmse,
    squared_error,
)
from core.errors import ConfigError, ShapeError

GRID = GaussianGrid(21)
ROUNDING = 1e-12  # float64 sums of a few thousand terms
DRAW = np.random.default_rng(0)
SHAPE = (3, 2, 1, GRID.n_lat, GRID.n_lon)


def test_regions_have_the_areas_of_the_sphere():
    """sin(20 degrees) of the sphere lies in the tropics; a row of a Gaussian grid is its grain."""
    whole = region_weights(GRID)
    assert whole.sum(axis=(1, 2)) == pytest.approx(np.ones(4))
    area = GRID.area_weight.numpy().T
    grain = area.sum(1).max()
    s = math.sin(math.radians(20))
    for row, share in zip(whole, (1.0, 0.5 - s / 2, s, 0.5 - s / 2), strict=True):
        assert area[row > 0].sum() == pytest.approx(share, abs=grain)


def test_a_box_may_cross_the_zero_meridian():
    weight = box_weight(GRID, 0.0, 90.0, west=330.0, east=390.0)
    inside = np.degrees(GRID.longitude.numpy())[weight.sum(0) > 0]
    assert inside.min() == 0.0
    assert inside.max() == 354.375
    assert len(inside) == 11  # 331.875 to 354.375, and 0 to 28.125 are 5 and 6 columns
    with pytest.raises(ConfigError, match="no point of T21"):
        box_weight(GRID, 0.1, 0.2)


@pytest.mark.parametrize(
    "box", [(-100, 60, 0, 90), (60, -60, 0, 90), (0, 91, 0, 90), (0, 60, 90, 0), (0, 60, 0, 400)]
)
def test_a_box_beyond_a_pole_or_turned_round_is_refused(box):
    with pytest.raises(ConfigError, match="south, north, west, east in degrees"):
        box_weight(GRID, *box)


def test_rmse_agrees_with_scores():
    forecast, truth = DRAW.normal(size=(2, *SHAPE))
    ours = rmse(squared_error(forecast, truth, region_weights(GRID)))[:, 0, 0]
    axes = ["date", "lead", "variable", "lat", "lon"]
    weight = xr.DataArray(GRID.area_weight.numpy()[0], dims="lat") * xr.ones_like(
        xr.DataArray(np.zeros(GRID.n_lon), dims="lon")
    )
    theirs = scores_rmse(
        xr.DataArray(forecast, dims=axes),
        xr.DataArray(truth, dims=axes),
        preserve_dims="lead",
        weights=weight,
    )
    assert ours == pytest.approx(theirs.values, rel=ROUNDING)


def test_a_constant_error_is_its_own_rmse_and_shapes_must_agree():
    truth = DRAW.normal(size=SHAPE)
    loss = squared_error(truth + 0.25, truth, region_weights(GRID))
    assert rmse(loss) == pytest.approx(np.full((2, 1, 4), 0.25))
    with pytest.raises(ShapeError, match="must have one shape"):
        squared_error(truth[1:], truth, region_weights(GRID))


def test_anomaly_correlation_of_known_mixtures():
    """f' = t' + e with e orthogonal to t' and as large correlates by 1/sqrt(2)."""
    climate = np.full(SHAPE[2:], 5.0)
    weights = region_weights(GRID)[:1]
    longitude = np.broadcast_to(GRID.longitude.numpy(), SHAPE)
    truth = climate + np.sin(longitude)
    assert anomaly_correlation(truth, truth, climate, weights) == pytest.approx(np.ones((2, 1, 1)))
    opposed = anomaly_correlation(2 * climate - truth, truth, climate, weights)
    assert opposed == pytest.approx(-np.ones((2, 1, 1)))
    mixed = anomaly_correlation(truth + np.cos(longitude), truth, climate, weights)
    assert mixed == pytest.approx(np.full((2, 1, 1), math.sqrt(0.5)))
    flat = np.broadcast_to(climate, SHAPE)
    assert np.isnan(anomaly_correlation(flat, truth, climate, weights)).all()


@pytest.mark.parametrize("horizon", [1, 2, 4])
def test_p_values_agree_with_scores(horizon):
    noise = DRAW.normal(size=(2, 24))
    difference = 0.3 + noise[0] + 0.6 * np.roll(noise[0], 1)
    array = xr.DataArray(
        difference[None],
        dims=["lead", "date"],
        coords={"lead": [1], "date": np.arange(24), "h": ("lead", [horizon])},
    )
    theirs = scores_diebold_mariano(
        array, ts_dim="lead", h_coord="h", method="HLN", statistic_distribution="t"
    )
    # theirs gives the chance of a smaller statistic; ours of one as far out on either side
    one_side = float(theirs["confidence_gt_0"][0])
    two_sided = 2.0 * min(one_side, 1.0 - one_side)
    zero = np.zeros_like(difference)
    assert diebold_mariano(difference, zero, horizon) == pytest.approx(two_sided, rel=1e-9)


def test_autocorrelation_makes_a_difference_less_sure():
    steady = np.repeat(DRAW.normal(size=8), 4) + 0.5
    zero = np.zeros_like(steady)
    assert diebold_mariano(steady, zero, 4) > 2 * diebold_mariano(steady, zero, 1)


def test_equal_losses_say_nothing_and_too_few_dates_are_refused():
    loss = DRAW.normal(size=(6, 2))
    assert np.isnan(diebold_mariano(loss, loss, 2)).all()
    with pytest.raises(ConfigError, match="6 dates cannot judge a horizon of 6 dates"):
        diebold_mariano(loss, loss, 6)


def test_hours_lost_of_shifted_and_scaled_curves():
    lead = np.arange(0.0, 121.0, 12.0)
    reference = 1.0 + lead / 24.0
    # the other runs 6 hours ahead along the same line
    assert hours_lost(lead, reference, reference + 0.25)[2:] == pytest.approx(6.0)
    assert hours_lost(lead, reference, reference - 0.25)[2:] == pytest.approx(-6.0)
    assert hours_lost(lead, reference, reference) == pytest.approx(0.0)
    # worse at the start than the reference at 12 h: how much earlier cannot be said
    assert np.isnan(hours_lost(lead, reference, reference + 0.6)[:2]).all()
    # errors that have stopped growing: no time is lost between equal ones
    full = np.minimum(reference, 3.0)
    assert hours_lost(lead, full, full) == pytest.approx(0.0)
    # after a dip to 2.4 at 48 h the largest error before, 2.5, was reached at 36 h
    dipped = reference.copy()
    dipped[4] = 2.4
    assert hours_lost(lead, dipped, reference)[4] == pytest.approx(12.0)
