"""Where a forecast starts from: observations, and the filter that spreads what they say."""

from apps.weather.assimilation.cycle import Filter, Follow, fields_of, follow, nearness, state_of
from apps.weather.assimilation.letkf import analyse, gaspari_cohn
from apps.weather.assimilation.networks import aircraft, radiosondes, stations, swath
from apps.weather.assimilation.observations import (
    KINDS,
    ObservationOperator,
    Places,
    in_box,
    join,
)

__all__ = [
    "KINDS",
    "Filter",
    "Follow",
    "ObservationOperator",
    "Places",
    "aircraft",
    "analyse",
    "fields_of",
    "follow",
    "gaspari_cohn",
    "in_box",
    "join",
    "nearness",
    "radiosondes",
    "state_of",
    "stations",
    "swath",
]
