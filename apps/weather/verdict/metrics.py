"""Scores of forecasts, with the conventions of WeatherBench 2, and how sure a difference is.

Fields are [date, lead, variable, lat, lon]. Squared errors are averaged over the area and the
dates before the root is taken; anomaly correlations are averaged over dates (Rasp et al. 2024,
J. Adv. Model. Earth Syst. 16, e2023MS004019).
"""

from __future__ import annotations

import math

import numpy as np

from apps.weather.atmosphere.grid import GaussianGrid
from core.errors import ConfigError, ShapeError

# South and north, degrees: the regions of WeatherBench 2.
REGIONS = {
    "global": (-90.0, 90.0),
    "north": (20.0, 90.0),
    "tropics": (-20.0, 20.0),
    "south": (-90.0, -20.0),
}


def box_weight(
    grid: GaussianGrid, south: float, north: float, west: float = 0.0, east: float = 360.0
) -> np.ndarray:
    """Area weights [lat, lon] of the grid points in a box (degrees), which sum to one.

    A box whose east lies beyond 360 goes on across the zero meridian.

    Raises
    ------
    ConfigError
        If the box reaches beyond a pole or more than once round, or holds no point.
    """
    if not (-90.0 <= south < north <= 90.0 and 0.0 < east - west <= 360.0):
        raise ConfigError(
            f"box_weight: a box is south, north, west, east in degrees with -90 <= south < north "
            f"<= 90 and west < east <= west + 360, got {south:g}, {north:g}, {west:g}, {east:g}"
        )
    latitude = np.degrees(grid.latitude.numpy())
    longitude = np.degrees(grid.longitude.numpy())
    inside_lat = (latitude >= south) & (latitude <= north)
    inside_lon = (longitude - west) % 360.0 < east - west
    weight = grid.area_weight.numpy().T * np.outer(inside_lat, inside_lon)
    if weight.sum() == 0.0:
        raise ConfigError(
            f"box_weight: no point of {grid} lies in {south:g}..{north:g} N, {west:g}..{east:g} E; "
            "widen the box"
        )
    return weight / weight.sum()


def region_weights(grid: GaussianGrid) -> np.ndarray:
    """Weights [region, lat, lon] of `REGIONS`."""
    return np.stack([box_weight(grid, *bounds) for bounds in REGIONS.values()])


def _area_mean(field: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.einsum("...yx,ryx->...r", field.astype(np.float64), weights, optimize=True)


def squared_error(forecast: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area mean squared error by date, float64 [date, lead, variable, region]."""
    if forecast.shape != truth.shape:
        raise ShapeError(
            f"squared_error: forecast {forecast.shape} and truth {truth.shape} must have one shape,"
            " [date, lead, variable, lat, lon]; choose the truth at the time each forecast is for"
        )
    return _area_mean((forecast.astype(np.float64) - truth) ** 2, weights)


def rmse(loss: np.ndarray) -> np.ndarray:
    """Root of the mean over dates (axis 0) of squared errors."""
    return np.sqrt(loss.mean(axis=0))


def anomaly_correlation(
    forecast: np.ndarray, truth: np.ndarray, climatology: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Mean over dates of the correlation of departures from `climatology` [variable, lat, lon].

    Departures are not centred again in the region. A forecast without any departure has none: NaN.
    """
    a, b = forecast.astype(np.float64) - climatology, truth.astype(np.float64) - climatology
    power = _area_mean(a**2, weights) * _area_mean(b**2, weights)
    product = _area_mean(a * b, weights)
    out = np.full(product.shape, np.nan)
    np.divide(product, np.sqrt(power), out=out, where=power > 0.0)
    return out.mean(axis=0)


def diebold_mariano(loss_a: np.ndarray, loss_b: np.ndarray, horizon: int) -> np.ndarray:
    """Two-sided p-value that the mean of ``loss_a - loss_b`` over dates (axis 0) is nought.

    The variance of the mean counts autocovariances up to lag `horizon` - 1, since forecasts whose
    spans overlap err alike; statistic and Student's distribution as corrected for few dates by
    Harvey, Leybourne and Newbold 1997 (Int. J. Forecasting 13, 281, equation 9).

    Parameters
    ----------
    loss_a, loss_b : ndarray [date, ...]
    horizon : int
        Forecast span over the spacing of the dates, rounded up.

    Returns
    -------
    ndarray [...]
        NaN where the variance estimate is not positive: then nothing can be said.
    """
    from scipy.special import stdtr

    difference = loss_a - loss_b
    n = len(difference)
    if not 1 <= horizon < n:
        raise ConfigError(
            f"diebold_mariano: {n} dates cannot judge a horizon of {horizon} dates; "
            "forecast from more dates or space them wider"
        )
    mean = difference.mean(axis=0)
    centred = difference - mean
    variance = (centred**2).sum(axis=0) / n
    for lag in range(1, horizon):
        variance = variance + 2.0 * (centred[lag:] * centred[:-lag]).sum(axis=0) / n
    correction = (n + 1 - 2 * horizon + horizon * (horizon - 1) / n) / n
    known = variance > 0.0
    statistic = np.full(np.shape(mean), np.nan)
    np.divide(mean, np.sqrt(np.where(known, variance / n, 1.0)), out=statistic, where=known)
    return 2.0 * stdtr(n - 1, -np.abs(statistic) * math.sqrt(correction))


def hours_lost(lead_h: np.ndarray, reference: np.ndarray, other: np.ndarray) -> np.ndarray:
    """How many hours earlier `other` is as wrong as `reference` is at each lead; negative if later.

    Parameters
    ----------
    lead_h : ndarray [lead]
        Hours, rising; the first is that of the common start.
    reference, other : ndarray [lead]
        Errors by lead.

    Notes
    -----
    Counted back to the latest lead at which the worse of the two was no more wrong than the better
    one is now; NaN where it never was, its start being worse already. Between leads the errors run
    straight; a dip is filled with the largest error before it.
    """
    a, b = np.maximum.accumulate(reference), np.maximum.accumulate(other)
    out = np.empty(len(lead_h))
    for i, (ours, theirs) in enumerate(zip(a, b, strict=True)):
        out[i] = lead_h[i] - _last(lead_h[: i + 1], b if theirs >= ours else a, min(ours, theirs))
        out[i] *= 1.0 if theirs >= ours else -1.0
    return out


def _last(lead_h: np.ndarray, error: np.ndarray, value: float) -> float:
    """Give the latest of `lead_h` at which the rising curve `error` is at most `value`."""
    i = int(np.searchsorted(error[: len(lead_h)], value, side="right"))
    if i == 0:
        return float("nan")
    if i == len(lead_h):
        return float(lead_h[-1])
    share = (value - error[i - 1]) / (error[i] - error[i - 1])
    return float(lead_h[i - 1] + share * (lead_h[i] - lead_h[i - 1]))
