import pytest
import torch

from apps.weather.atmosphere import constants as c
from apps.weather.atmosphere.cases import rossby_haurwitz
from apps.weather.atmosphere.held_suarez import HeldSuarez
from apps.weather.atmosphere.levels import SigmaLevels
from apps.weather.boundary import Boundary
from apps.weather.forecast.sample import load_sample
from apps.weather.model import Model
from apps.weather.physics import ExactRadiation, Physics
from core.errors import ConfigError, DataError

# The fixer leaves the rounding of one mean of exp(x), x = ln p_s: in float64 1e-16; in float32 that
# of the mean of x, near 4e-4 and held to 3e-11, and of x (0.05) times its rounding (3e-9) over many
# points.
MASS_FP64 = 1e-12
MASS_FP32 = 1e-10


def mean_pressure(model, state):
    grid = model.equations.to_grid(state.levels.current)
    return float(model.grid.mean(grid.surface_pressure))


def test_mass_is_held_by_the_fixer_and_drifts_without():
    drift = {}
    for fix in (True, False):
        model = Model("T10L4", physics=HeldSuarez(), dtype=torch.float64, fix_mass=fix)
        state = model.run(model.begin(rossby_haurwitz(model.equations)), 5 * c.DAY_S)
        drift[fix] = abs(mean_pressure(model, state) / c.MEAN_PRESSURE - 1.0)
    assert drift[True] < MASS_FP64
    assert 100 * MASS_FP64 < drift[False] < 1e-4


def test_mass_in_float32():
    model = Model("T21L8", physics=HeldSuarez())
    whole = Model("T21L8", dtype=torch.float64).transform
    state = model.run(load_sample(model), c.DAY_S)
    for _ in range(5):
        state = model.step(state)
        log_pressure = whole.synthesise(state.levels.current.log_pressure.double())
        assert abs(float(model.grid.mean(log_pressure.exp())) - 1.0) < MASS_FP32


def test_thirty_days_of_held_suarez_are_stable():
    model = Model("T21L8", physics=HeldSuarez())
    state = model.run(model.initial(), 30 * c.DAY_S)
    seen = model.diagnose(state)
    # cooling from 280 K towards an equilibrium whose mean is near 245 K, time scale 40 days
    assert 250.0 < seen["mean_temperature_k"] < 270.0
    assert 5.0 < seen["max_wind_m_s"] < 80.0


@pytest.mark.slow
def test_thirty_days_of_moist_air_are_stable():
    model = Model("T21L8", physics=Physics(ExactRadiation(41, 16)))
    state = model.run(model.initial(), 30 * c.DAY_S)
    seen = model.diagnose(state)
    assert 1.0 < seen["precipitation_mm_per_day"] < 8.0
    assert 200.0 < seen["olr_w_m2"] < 320.0
    assert seen["min_temperature_k"] > 180.0


def test_float32_stays_near_float64_for_a_day():
    out = []
    for dtype in (torch.float32, torch.float64):
        model = Model("T21L8", physics=HeldSuarez(), dtype=dtype)
        state = model.run(model.begin(rossby_haurwitz(model.equations)), c.DAY_S)
        grid = model.equations.to_grid(state.levels.current)
        out.append(grid.temperature.double())
    # 40 steps of 2^-24 * 300 K, growing no faster than linearly: 7e-4 K
    assert (out[0] - out[1]).abs().max() < 1e-3


def test_radiation_is_called_every_interval():
    calls = []

    class Counting(HeldSuarez):
        def radiate(self, columns):
            calls.append(columns.cos_zenith.clone())
            return ExactRadiation(8, 8)(columns)

    model = Model("T5L4", physics=Counting(), radiation_interval_s=10800.0)
    model.run(model.initial(), 6 * model.dt)
    assert len(calls) == 2
    assert not torch.equal(calls[0], calls[1])


def test_columns_are_the_grid_in_its_order():
    model = Model("T5L4", boundary=Boundary(co2_ppmv=700.0, warming_k=4.0))
    state = model.begin(rossby_haurwitz(model.equations, wavenumber=3))
    grid = model.equations.to_grid(state.levels.current)
    columns = model.columns(grid, 0.0)
    i = 5 * model.grid.n_lat + 6  # longitude 5, latitude 6
    assert torch.equal(columns.u[i], grid.u[5, 6])
    assert float(columns.pressure_half[i, -1]) == float(grid.surface_pressure[5, 6])
    assert float(columns.latitude[i]) == pytest.approx(float(model.grid.latitude[6]), rel=1e-6)
    assert float(columns.co2_ppmv[i]) == 700.0
    warm = float(columns.sst.max()) - 273.15
    assert 27.0 < warm < 31.0
    # midnight at longitude 0, noon half a turn away
    night, noon = columns.cos_zenith[6], columns.cos_zenith[8 * model.grid.n_lat + 6]
    assert float(night) == 0.0
    assert float(noon) == pytest.approx(float(model.grid.latitude[6].cos()), rel=1e-6)


def test_filled_humidity_is_not_negative_and_keeps_each_levels_mass():
    model = Model("T5L4", dtype=torch.float64)
    grid = model.equations.to_grid(model.initial().levels.current)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(grid.humidity.shape, generator=generator, dtype=torch.float64)
    columns = model.columns(grid._replace(humidity=1e-3 * (drawn + 1.0)), 0.0)
    filled = model.filled(columns.humidity, columns.pressure_half[:, -1])
    assert columns.humidity.min() < 0
    assert filled.min() >= 0
    weight = model._area * columns.pressure_half[:, -1:]
    before, after = ((weight * q).sum(0) for q in (columns.humidity, filled))
    assert torch.allclose(before, after, rtol=1e-14)


def test_duration_that_is_no_whole_number_of_steps_is_refused():
    model = Model("T21L8")
    with pytest.raises(ConfigError, match=r"3,700 s is not a whole .* 2,160 s and 4,320 s"):
        model.run(model.initial(), 3700.0)
    with pytest.raises(ConfigError, match="radiation_interval_s of 3,600 s is not a whole"):
        Model("T21L8", radiation_interval_s=3600.0)


def test_levels_must_agree_with_the_resolution():
    with pytest.raises(ConfigError, match="T21L8 asks for 8 levels, but levels has 4"):
        Model("T21L8", levels=SigmaLevels.equidistant(4))


def test_a_state_that_is_not_finite_stops_with_field_and_level():
    model = Model("T5L4")
    state = model.initial()
    state.levels.current.temperature[0, 1, 2, 3] = float("nan")
    with pytest.raises(DataError, match=r"Model\.run, day 0.0416.*: \w+ is not finite at level"):
        model.run(state, model.dt)
