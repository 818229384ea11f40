"""Where the sun stands."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from apps.weather.atmosphere.constants import DAY_S

SOLAR_CONSTANT = 1361.0  # W/m2 at the mean distance (Kopp and Lean 2011)
OBLIQUITY = math.radians(23.44)
YEAR_S = 365.25 * DAY_S


def declination(time_s: float) -> float:
    """Declination of the sun, radian, `time_s` after a March equinox on a circular orbit."""
    return math.asin(math.sin(OBLIQUITY) * math.sin(2.0 * math.pi * time_s / YEAR_S))


def cos_zenith(
    latitude: Tensor, longitude: Tensor, time_s: float, declination: float = 0.0
) -> Tensor:
    """Cosine of the zenith angle, zero by night; noon at longitude 0 falls on half past a day.

    Angles in radian, `time_s` since midnight at longitude 0. Declination 0 is the equinox, at
    which the aquaplanet stays by convention.
    """
    hour = 2.0 * math.pi * (math.fmod(time_s, DAY_S) / DAY_S - 0.5) + longitude
    overhead = math.sin(declination) * torch.sin(latitude)
    return (overhead + math.cos(declination) * torch.cos(latitude) * torch.cos(hour)).clamp(min=0)


def daily_mean_cos_zenith(latitude: Tensor, declination: float = 0.0) -> Tensor:
    """Mean of `cos_zenith` over a day, closed form."""
    cos_set = (-torch.tan(latitude) * math.tan(declination)).clamp(-1.0, 1.0)
    sunset = torch.arccos(cos_set)
    still = sunset * torch.sin(latitude) * math.sin(declination)
    moving = torch.cos(latitude) * math.cos(declination) * torch.sin(sunset)
    return (still + moving) / math.pi
