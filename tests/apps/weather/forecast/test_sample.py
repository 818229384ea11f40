import pytest
import torch

from apps.weather.atmosphere.constants import DAY_S
from apps.weather.forecast.sample import (
    FURTHER_DAY,
    SAMPLE_FILE,
    SPIN_UP_DAY,
    load_sample,
    sample_file,
)
from apps.weather.model import Model
from apps.weather.physics import ExactRadiation, Physics

LARGEST_BYTE = 400_000


def test_the_sample_is_a_spun_up_climate():
    model = Model("T21L8", physics=Physics(ExactRadiation(16, 8)))
    state = load_sample(model)
    assert state.time_s == SPIN_UP_DAY * DAY_S
    assert SAMPLE_FILE.stat().st_size < LARGEST_BYTE
    seen = model.diagnose(state)
    assert seen["min_temperature_k"] > 180.0  # ozone keeps the top warm
    assert 240.0 < seen["mean_temperature_k"] < 260.0
    assert 20.0 < seen["max_wind_m_s"] < 110.0
    grid = model.equations.to_grid(state.levels.current)
    # the top of middle latitudes is the last to settle: 213 K on day 300, 205 from day 420 on
    degree = model.grid.latitude.abs().rad2deg()
    top = grid.temperature.mean(0)[(degree > 30) & (degree < 60), 0]
    assert float(top.mean()) == pytest.approx(205.5, abs=3.0)
    u = grid.u.mean(0)  # [lat, level]
    jet = model.grid.latitude[int(u.max(1).values.argmax())].abs().rad2deg()
    assert 25.0 < float(jet) < 50.0
    assert float(u[15:17, -1].max()) < 0.0  # trade winds at the equator
    # the sample needs no restart shock: three hours on, the wind has moved by metres per second
    later = model.run(state, 5 * model.dt)
    change = model.equations.to_grid(later.levels.current).u - grid.u
    assert float(change.square().mean().sqrt()) < 3.0
    assert torch.isfinite(later.precipitation).all()


def test_a_finer_model_begins_from_the_same_fields():
    coarse, fine = Model("T21L8"), Model("T31L8")
    one, other = load_sample(coarse), load_sample(fine)
    assert other.time_s == one.time_s
    for a, b in zip(one.levels.current, other.levels.current, strict=True):
        assert torch.equal(a[:, :22, :22], b[:, :22, :22])
        assert float(b[:, 22:].abs().sum()) == float(b[:, :, 22:].abs().sum()) == 0.0
    winds = [m.diagnose(s)["max_wind_m_s"] for m, s in ((coarse, one), (fine, other))]
    # the same wind seen at other points
    assert winds[0] == pytest.approx(winds[1], rel=0.05)
    later = fine.run(other, 12 * fine.dt)
    assert later.levels.n_step == 12
    assert float(later.levels.current.vorticity[:, 22:].abs().sum()) > 0.0


@pytest.mark.parametrize("resolution", ["T31L8", "T10L8", "T21L20"])
def test_other_levels_and_grids_begin_from_the_same_climate(resolution):
    coarse, other = Model("T21L8"), Model(resolution)
    one, two = coarse.diagnose(load_sample(coarse)), other.diagnose(load_sample(other))
    assert two["mean_temperature_k"] == pytest.approx(one["mean_temperature_k"], abs=1.0)
    assert two["mean_surface_pressure_pa"] == pytest.approx(1e5, rel=1e-4)
    assert two["min_temperature_k"] > 180.0


def test_another_step_begins_anew_and_the_same_step_goes_on():
    same, other = load_sample(Model("T21L8")), load_sample(Model("T21L8", dt=1800.0))
    assert same.levels.n_step > 0 == other.levels.n_step
    for a, b in zip(same.levels.current, other.levels.current, strict=True):
        assert torch.equal(a, b)


def test_t31l10_goes_on_from_its_own_settled_state():
    model = Model("T31L10")
    state = load_sample(model)
    assert state.time_s == (SPIN_UP_DAY + FURTHER_DAY["T31L10"]) * DAY_S
    assert state.levels.n_step > 0  # no forward step
    assert sample_file("T31L10").stat().st_size < LARGEST_BYTE
    grid = model.equations.to_grid(state.levels.current)
    # put on these levels the top begins at 204.2 K and needs months to warm
    assert float(model.grid.mean(grid.temperature)[0]) == pytest.approx(209.5, abs=1.0)
    assert model.diagnose(state)["min_temperature_k"] > 180.0
    # other levels or another step have no use for it
    for other in (Model("T31L10", dt=1200.0), Model("T31L8")):
        assert load_sample(other).time_s == SPIN_UP_DAY * DAY_S


def test_columns_are_known_by_the_state_they_begin_from():
    assert sample_file("T31L10") != sample_file("T42L20") == SAMPLE_FILE == sample_file("T21L8")
