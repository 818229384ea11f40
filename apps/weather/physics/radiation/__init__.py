"""Radiation at any number of spectral points: the scheme that a learned one is to replace."""

from apps.weather.physics.radiation.exact import (
    MOST_POINTS,
    ExactRadiation,
    Radiation,
    result_from_fluxes,
)
from apps.weather.physics.radiation.longwave import Longwave
from apps.weather.physics.radiation.shortwave import Shortwave
from apps.weather.physics.radiation.sun import (
    SOLAR_CONSTANT,
    cos_zenith,
    daily_mean_cos_zenith,
    declination,
)

__all__ = [
    "MOST_POINTS",
    "SOLAR_CONSTANT",
    "ExactRadiation",
    "Longwave",
    "Radiation",
    "Shortwave",
    "cos_zenith",
    "daily_mean_cos_zenith",
    "declination",
    "result_from_fluxes",
]
