"""Observing networks like those that exist: radiosondes, aircraft, a satellite's swath.

Errors are round figures of the size that centres assign to such instruments. Radiosondes alone
observe humidity, and only where there is some to speak of.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from apps.weather.assimilation.observations import KINDS, SURFACE, Places, join

_U, _V, _T, _Q = (KINDS.index(name) for name in ("u", "v", "temperature", "humidity"))
SONDE_ERROR = {_U: 1.5, _V: 1.5, _T: 0.8}  # m/s, m/s, K
AIRCRAFT_ERROR = {_U: 2.0, _V: 2.0, _T: 1.0}
SWATH_ERROR = {_T: 1.5}
PRESSURE_ERROR = 100.0  # Pa
# kg/kg at the ground, a tenth of what tropical air holds there; falls with sigma cubed as it does.
HUMIDITY_ERROR = 1.5e-3
HUMIDITY_TOP = 0.3  # sigma, above which a radiosonde's humidity is of no use
CRUISE_SIGMA = 0.25
# A sun-synchronous orbit such as the weather satellites have.
_INCLINATION, _PERIOD_S, _DAY_S = math.radians(98.7), 6080.0, 86400.0


def _every_kind(
    latitude: Tensor, longitude: Tensor, sigma: Tensor, errors: dict[int, float]
) -> Places:
    """Each kind of `errors` at each place."""
    n, k = len(latitude), len(errors)
    return Places(
        latitude.repeat(k),
        longitude.repeat(k),
        sigma.repeat(k),
        torch.tensor(list(errors)).repeat_interleave(n),
        torch.tensor(list(errors.values()), dtype=torch.float64).repeat_interleave(n),
    )


def stations(n: int, generator: torch.Generator) -> Tensor:
    """Latitude and longitude of `n` stations spread evenly by chance, degrees [n, 2]."""
    drawn = torch.rand(n, 2, generator=generator, dtype=torch.float64)
    return torch.stack([torch.rad2deg(torch.asin(2 * drawn[:, 0] - 1)), 360 * drawn[:, 1]], dim=1)


def radiosondes(where: Tensor, levels: Tensor) -> Places:
    """Wind, temperature and humidity at each sigma of `levels` above a station; its pressure."""
    n = len(where)
    latitude, longitude = where.repeat_interleave(len(levels), dim=0).unbind(1)
    profile = _every_kind(latitude, longitude, levels.repeat(n), SONDE_ERROR)
    one = torch.ones(n, dtype=torch.float64)
    pressure = _every_kind(where[:, 0], where[:, 1], one, {SURFACE: PRESSURE_ERROR})
    low = levels[levels > HUMIDITY_TOP]
    latitude, longitude = where.repeat_interleave(len(low), dim=0).unbind(1)
    humidity = _every_kind(latitude, longitude, low.repeat(n), {_Q: HUMIDITY_ERROR})
    humidity = humidity._replace(error=humidity.error * humidity.sigma**3)
    return join([profile, humidity, pressure])


def aircraft(where: Tensor, n_flight: int, n_report: int, generator: torch.Generator) -> Places:
    """Wind and temperature at `CRUISE_SIGMA` along great circles between pairs of stations."""
    if n_flight == 0 or len(where) < 2:
        none = torch.empty(0, dtype=torch.float64)
        return _every_kind(none, none, none, AIRCRAFT_ERROR)
    pairs = torch.rand(n_flight, len(where), generator=generator).argsort(1)[:, :2]
    ends = _unit_vector(where[pairs])
    share = torch.linspace(0.0, 1.0, n_report, dtype=torch.float64).reshape(1, -1, 1)
    # a chord pushed out to the sphere runs along the great circle
    track = ends[:, :1] * (1.0 - share) + ends[:, 1:] * share
    track = (track / track.norm(dim=-1, keepdim=True)).reshape(-1, 3)
    latitude, longitude = _degrees(track)
    sigma = torch.full_like(latitude, CRUISE_SIGMA)
    return _every_kind(latitude, longitude, sigma, AIRCRAFT_ERROR)


def swath(
    time_s: float,
    span_s: float,
    levels: Tensor,
    *,
    every_s: float = 240.0,
    half_degree: float = 9.0,
) -> Places:
    """Temperatures retrieved under and beside a polar orbiter in the `span_s` before `time_s`."""
    t = torch.arange(time_s - span_s, time_s, every_s, dtype=torch.float64)
    phase = 2.0 * math.pi * t / _PERIOD_S
    turned = 2.0 * math.pi * t / _DAY_S
    latitude = torch.asin((math.sin(_INCLINATION) * phase.sin()).clamp(-1.0, 1.0))
    longitude = torch.atan2(math.cos(_INCLINATION) * phase.sin(), phase.cos()) - turned
    track = _unit_vector(torch.rad2deg(torch.stack([latitude, longitude], dim=1)))
    forward = torch.gradient(track, dim=0)[0]
    beside = torch.linalg.cross(track, forward / forward.norm(dim=1, keepdim=True))
    angles = [math.radians(a) for a in (-half_degree, 0.0, half_degree)]
    foot = torch.cat([track * math.cos(a) + beside * math.sin(a) for a in angles])
    latitude, longitude = _degrees(foot / foot.norm(dim=1, keepdim=True))
    n = len(latitude)
    latitude, longitude = (x.repeat_interleave(len(levels)) for x in (latitude, longitude))
    return _every_kind(latitude, longitude, levels.repeat(n), SWATH_ERROR)


def _unit_vector(degrees: Tensor) -> Tensor:
    """Give unit vectors [..., 3] of latitude and longitude [..., 2] in degrees."""
    latitude, longitude = torch.deg2rad(degrees).unbind(-1)
    across = latitude.cos()
    return torch.stack([across * longitude.cos(), across * longitude.sin(), latitude.sin()], dim=-1)


def _degrees(vector: Tensor) -> tuple[Tensor, Tensor]:
    latitude = torch.rad2deg(torch.asin(vector[:, 2].clamp(-1.0, 1.0)))
    return latitude, torch.rad2deg(torch.atan2(vector[:, 1], vector[:, 0])) % 360.0
