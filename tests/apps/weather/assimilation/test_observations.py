import math

import pytest
import torch

from apps.weather.assimilation.cycle import fields_of, nearness, state_of
from apps.weather.assimilation.networks import (
    HUMIDITY_ERROR,
    HUMIDITY_TOP,
    aircraft,
    radiosondes,
    stations,
    swath,
)
from apps.weather.assimilation.observations import (
    KINDS,
    ObservationOperator,
    Places,
    in_box,
    join,
)
from apps.weather.atmosphere.constants import RADIUS
from apps.weather.model import Model
from core.errors import DataError

MODEL = Model("T10L4", dtype=torch.float64)


def places(latitude, longitude, sigma, kind, error=1.0):
    def one(x):
        return torch.tensor([float(x)], dtype=torch.float64)

    index = torch.tensor([KINDS.index(kind)])
    return Places(one(latitude), one(longitude), one(sigma), index, one(error))


def known():
    """Columns with u = sigma, v = longitude in grid steps, T = latitude (rad), q = 0, p = 9."""
    n_lon, n_lat, n = MODEL.grid.n_lon, MODEL.grid.n_lat, MODEL.levels.n_level
    shape = (n_lon, n_lat, n)
    u = torch.from_numpy(MODEL.levels.full.copy()).expand(shape)
    v = torch.arange(n_lon).double().reshape(-1, 1, 1).expand(shape)
    t = MODEL.grid.latitude.reshape(1, -1, 1).expand(shape)
    p = torch.full((n_lon, n_lat, 1), 9.0, dtype=torch.float64)
    return torch.cat([u, v, t, torch.zeros(shape), p], dim=-1).reshape(1, n_lon * n_lat, -1)


def shown(*args):
    return float(ObservationOperator(MODEL, places(*args))(known()))


def test_linear_fields_are_met_exactly():
    assert shown(12.0, 200.0, 0.4, "u") == pytest.approx(0.4)
    assert shown(12.0, 200.0, 0.4, "temperature") == pytest.approx(math.radians(12.0))
    assert shown(12.0, 17.0, 0.4, "v") == pytest.approx(17.0 / 360.0 * 32)
    assert shown(-40.0, 3.0, 1.0, "surface_pressure") == pytest.approx(9.0)


def test_longitude_wraps_and_edges_hold():
    # between the last meridian (31) and the first (0)
    assert shown(0.0, 360.0 - 360.0 / 64, 0.5, "v") == pytest.approx(15.5)
    assert shown(0.0, -360.0 / 64, 0.5, "v") == pytest.approx(15.5)
    assert shown(0.0, 0.0, 0.01, "u") == pytest.approx(0.125)
    assert shown(0.0, 0.0, 0.99, "u") == pytest.approx(0.875)
    top = float(MODEL.grid.latitude[-1])
    assert shown(90.0, 0.0, 0.5, "temperature") == pytest.approx(top)


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ((91.0, 0.0, 0.5, "u"), r"observation 0: latitude is 91, outside the domain -90..90"),
        ((0.0, 361.0, 0.5, "u"), r"longitude is 361, outside the domain -180..360"),
        ((0.0, 0.0, 1.2, "u"), r"sigma is 1.2, outside the domain 0..1"),
        ((0.0, math.nan, 0.5, "u"), r"longitude is nan, outside the domain"),
        ((0.0, 0.0, 0.5, "u", 0.0), r"error is 0, expected a standard deviation above nought"),
    ],
)
def test_observations_outside_the_domain_are_named(where, sentence):
    good = places(0.0, 0.0, 0.5, "u")
    bad = places(*where)
    with pytest.raises(DataError, match=sentence):
        bad.check()
    with pytest.raises(DataError, match="observation 1: "):
        ObservationOperator(MODEL, join([good, bad]))


def test_networks_lie_in_the_domain_and_repeat():
    generator = torch.Generator().manual_seed(0)
    where = stations(400, generator)
    # half the sphere lies within 30 degrees of the equator: binomial deviation 10 of 400
    assert abs(int((where[:, 0].abs() < 30).sum()) - 200) < 40
    levels = torch.from_numpy(MODEL.levels.full.copy())
    sondes = radiosondes(where[:5], levels)
    n_low = int((levels > HUMIDITY_TOP).sum())
    assert len(sondes.kind) == 5 * (3 * 4 + n_low + 1)
    humid = sondes.take(torch.nonzero(sondes.kind == KINDS.index("humidity")).squeeze(1))
    assert float(humid.sigma.min()) > HUMIDITY_TOP
    assert humid.error.tolist() == pytest.approx((HUMIDITY_ERROR * humid.sigma**3).tolist())
    flights = aircraft(where, 3, 10, generator)
    assert len(flights.kind) == 3 * 10 * 3
    orbit = swath(0.0, 21600.0, levels[1:3])
    assert len(orbit.kind) == 90 * 3 * 2
    for network in (sondes, flights, orbit):
        network.check()
    # a polar orbit comes within nine degrees of the poles and, in six hours, sees each side
    assert float(orbit.latitude.abs().max()) > 80.0
    assert torch.equal(swath(0.0, 21600.0, levels[1:3]).longitude, orbit.longitude)
    assert float(swath(21600.0, 21600.0, levels).longitude[0]) != float(orbit.longitude[0])


def test_flights_follow_great_circles():
    """Between two places on the equator, along it; evenly about the middle."""
    where = torch.tensor([[0.0, 10.0], [0.0, 70.0]], dtype=torch.float64)
    flight = aircraft(where, 1, 3, torch.Generator().manual_seed(0))
    assert flight.latitude.abs().max() < 1e-9
    assert sorted(flight.longitude[:3].tolist()) == pytest.approx([10.0, 40.0, 70.0])


def test_a_box_holds_what_it_should_across_the_meridian():
    found = join([places(30.0, x, 0.5, "u") for x in (149.0, 151.0, -170.0, 355.0)])
    assert in_box(found, 20.0, 60.0, 150.0, 240.0).tolist() == [False, True, True, False]
    assert in_box(found, 40.0, 60.0, 150.0, 240.0).tolist() == [False] * 4


def test_nearness_falls_with_distance():
    column = 5 * MODEL.grid.n_lat + 3
    latitude = math.degrees(float(MODEL.grid.latitude[3]))
    longitude = math.degrees(float(MODEL.grid.longitude[5]))
    there = join([places(latitude, longitude, 0.5, "u"), places(-latitude, longitude, 0.5, "u")])
    taper, place = nearness(MODEL, join([there, there]), RADIUS)
    assert taper.shape[1] == 2
    assert place.tolist() == [int(place[0]), int(place[1])] * 2
    # arccos near one loses half the digits: 1e-8 of a radian
    assert float(taper[column, place[0]]) == pytest.approx(1.0, abs=1e-6)
    assert float(taper[column, place[1]]) == 0.0


def test_columns_and_states_turn_into_each_other():
    state = MODEL.initial(seed=3)
    fields = fields_of(MODEL, state)
    back = fields_of(MODEL, state_of(MODEL, fields, 0.0))
    # winds of a few m/s and pressures of 1e5 Pa through the transforms in float64
    assert float((back - fields).abs().max()) < 1e-6
