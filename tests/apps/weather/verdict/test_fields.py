import numpy as np
import pytest
import torch

from apps.weather.atmosphere import constants as c
from apps.weather.model import Model
from apps.weather.verdict.fields import VARIABLES, at_pressure, judged_fields


def test_a_line_in_log_pressure_is_met_exactly():
    pressure = torch.tensor([[1e4, 3e4, 6e4, 9e4]], dtype=torch.float64)
    field = 7.0 + 2.0 * pressure.log()
    for target in (2e4, 6e4, 8.5e4, 5e3, 1e5):
        expected = 7.0 + 2.0 * np.log(target)
        assert float(at_pressure(field, pressure, target)) == pytest.approx(expected)


def test_isothermal_air_at_rest_has_its_hydrostatic_height():
    """Height of 500 hPa above a flat 1000 hPa is R T / g ln 2 less what a layer's rule misses."""
    model = Model("T5L8", dtype=torch.float64)
    fields = dict(
        zip(VARIABLES, judged_fields(model, model.initial(temperature=250.0)), strict=True)
    )
    expected = c.GAS_CONSTANT * 250.0 / c.GRAVITY * np.log(2.0)
    # Simmons-Burridge heights of 8 layers are off by some d sigma^2 / 24 sigma^2 of R T / g: 20 m
    assert fields["z500"] == pytest.approx(np.full((8, 16), expected), abs=20.0)
    assert fields["t850"] == pytest.approx(np.full((8, 16), 250.0), abs=1e-3)
    assert fields["ps"] == pytest.approx(np.full((8, 16), c.MEAN_PRESSURE), rel=1e-6)
    assert fields["q700"] == pytest.approx(np.zeros((8, 16)))


def test_axes_are_latitude_then_longitude():
    model = Model("T5L8")
    state = model.initial(seed=1)
    grid = model.equations.to_grid(state.levels.current)
    wind = judged_fields(model, state)[list(VARIABLES).index("u250")]
    assert wind.shape == (8, 16)
    # sigma of 250 hPa lies midway between the second and the third of eight levels, in pressure
    mid = (grid.u[..., 1] + grid.u[..., 2]) / 2
    assert np.corrcoef(wind.ravel(), mid.T.numpy().ravel())[0, 1] > 0.99
