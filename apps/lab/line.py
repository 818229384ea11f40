"""The straight line through points, in the same bits wherever they lie in memory."""

import math

import numpy as np
from numpy.typing import ArrayLike


def fit_line(x: ArrayLike, y: ArrayLike) -> tuple[float, float]:
    """Return slope and level at nought of the least-squares line.

    Parameters
    ----------
    x, y : array_like, float [point]
        Places and values.

    Returns
    -------
    slope, level : float
        NaN where a value is not finite or all places are one.

    Notes
    -----
    Sums are exact (`math.fsum`): those of a linear algebra library depend, in their last digits, on
    where an array begins, and a run that was taken up again would differ from one that was not.
    """
    place, value = (np.asarray(some, dtype=np.float64) for some in (x, y))
    if not (np.isfinite(place).all() and np.isfinite(value).all()) or place.size < 2:
        return math.nan, math.nan
    at, height = math.fsum(place) / place.size, math.fsum(value) / value.size
    away = place - at
    spread = math.fsum(away * away)
    slope = math.fsum(away * (value - height)) / spread if spread > 0.0 else math.nan
    return slope, height - slope * at
