"""Held-Suarez numbers: latitudes between rows, both hemispheres as samples, runs that go on."""

import numpy as np
import pytest

from apps.weather.atmosphere.held_suarez import HeldSuarez
from apps.weather.model import Model
from benchmarks.weather_held_suarez import (
    KINDS,
    OURS,
    REST_K,
    between_rows,
    climate,
    mirrored,
    ours,
    summary,
)

#: A latitude is read off a fine grid 0.05 degrees apart.
LATITUDE = 0.051


def made_up(model, jets, speed=30.0):
    """Zonal means with a jet in each hemisphere."""
    sine = np.sin(model.grid.latitude.numpy())
    cosine = np.sqrt(1.0 - sine**2)
    south, north = (np.sin(np.radians(x)) for x in jets)
    over = np.where(sine < 0, 1 - 4 * (sine + south) ** 2, 1 - 4 * (sine - north) ** 2)
    mean = np.zeros((len(KINDS), len(sine), model.levels.n_level))
    mean[0, :, 1] = speed * cosine * over
    mean[0, :, -1] = 0.3 * mean[0, :, 1]
    mean[2:4] = (20.0 * sine)[:, None]
    return mean


def test_mean_wind_between_rows_is_exact():
    """Solid-body rotation and a polynomial of the highest degree held."""
    model = Model("T21L4")
    sine = np.sin(model.grid.latitude.numpy())
    field = np.sqrt(1 - sine**2)[:, None] * np.stack([np.ones_like(sine), sine**21], axis=1)
    latitude = np.array([0.0, 41.3, 77.7])
    fine = np.sin(np.radians(latitude))
    expected = np.sqrt(1 - fine**2)[:, None] * np.stack([np.ones(3), fine**21], axis=1)
    assert between_rows(field, 21, latitude) == pytest.approx(expected, abs=1e-12)


def test_latitude_of_the_jet_is_not_a_row():
    model = Model("T21L4")
    sine = np.sin(model.grid.latitude.numpy())
    mean = np.zeros((len(KINDS), len(sine), 4))
    # u = cos(phi) sin(phi)^2 is greatest where sin(phi)^2 = 2/3; rows are 5.5 degrees apart
    mean[0, :, 1] = 30.0 * np.sqrt(1 - sine**2) * sine**2
    found = summary(model, mean)
    assert found["jet_latitude"] == pytest.approx(
        np.degrees(np.arcsin(np.sqrt(2 / 3))), abs=LATITUDE
    )
    assert found["jet_m_s"] == pytest.approx(30.0 * 2 / 3 / np.sqrt(3), rel=1e-5)


def test_a_hemisphere_is_a_sample():
    """Equal chunks have no error; hemispheres that differ average, and fluxes change their sign."""
    model = Model("T21L4")
    same = np.stack([made_up(model, (44.0, 44.0))] * 26)
    found = climate(model, same, [20] * 26)
    assert found["jet_latitude_error"] == pytest.approx(0.0, abs=1e-12)
    assert found["jet_m_s_error"] == pytest.approx(0.0, abs=1e-12)
    assert found["heat_flux_k_m_s"] == pytest.approx(20.0 * np.sin(model.grid.latitude[-1].item()))
    low, high = found["jet_latitude_240"]
    assert low == high == found["jet_latitude"]
    differ = np.stack([made_up(model, (38.0, 46.0))] * 26)
    found = climate(model, differ, [20] * 26)
    low, high = found["jet_latitude_240"]
    assert low < found["jet_latitude"] < high
    assert found["jet_latitude_error"] > 0.1
    assert mirrored(mirrored(differ)) == pytest.approx(differ)


def test_a_run_too_short_for_240_days_says_none():
    model = Model("T21L4")
    chunks = np.stack([made_up(model, (44.0, 44.0))] * 2)
    assert climate(model, chunks, [20, 20])["jet_latitude_240"] is None


def test_a_run_that_goes_on_keeps_its_chunks(tmp_path):
    """Stopped after day 21 and gone on with, as in one go."""
    whole = ours("T5L4", OURS, 42, 1, tmp_path / "whole")
    ours("T5L4", OURS, 21, 1, tmp_path / "parts")
    parts = ours("T5L4", OURS, 42, 1, tmp_path / "parts")
    assert isinstance(parts[0].physics, HeldSuarez)
    assert parts[2] == whole[2] == [20, 20, 1]
    assert np.array_equal(parts[1], whole[1])


def test_a_run_from_rest_begins_as_isca_does_and_is_kept_apart(tmp_path):
    """A day of Newtonian cooling moves 264 K by less than its fastest rate, a quarter of 50 K."""
    _, chunks, _ = ours("T5L4", OURS, 1, 0, tmp_path, None, True)
    assert abs(chunks[0, KINDS.index("t")] - REST_K).max() < 13.0
    other = ours("T5L4", OURS, 1, 0, tmp_path)[1]
    assert not np.array_equal(chunks, other)
