import pytest
import torch

from apps.weather.atmosphere.cases import rossby_haurwitz
from apps.weather.atmosphere.dynamics import PrimitiveEquations
from apps.weather.atmosphere.grid import GaussianGrid
from apps.weather.atmosphere.levels import SigmaLevels
from apps.weather.atmosphere.precision import RoundedTransform, Storage, scaled_round
from apps.weather.atmosphere.spectral import HarmonicTransform
from apps.weather.atmosphere.state import State
from apps.weather.atmosphere.stepping import TimeLevels

GRID = GaussianGrid(10)
UNIT = {"bf16": 2.0**-8, "fp16": 2.0**-11, "tf32": 2.0**-11}  # half a step, relative


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("name", sorted(UNIT))
def test_scaled_rounding_is_relative_even_for_tiny_fields(name):
    """Down to 2^-24 of the largest entry, fp16's subnormals; each level has its own scale."""
    x = 1e-5 * draw(40, 30, 2) * torch.tensor([1.0, 1e-4], dtype=torch.float64)
    error = (scaled_round(x, name) - x).abs()
    largest = x.abs().flatten(0, -2).amax(0)
    assert bool((error <= UNIT[name] * x.abs() + 2.0**-34 * largest).all())
    assert float(error.max()) > 0


@pytest.mark.parametrize("name", sorted(UNIT))
def test_rounded_tables_err_by_their_unit_and_kept_columns_do_not(name):
    exact = HarmonicTransform(GRID, dtype=torch.float64)
    low = RoundedTransform(GRID, tables=name, keep=3, dtype=torch.float64)
    for table in ("_project", "_evaluate", "_to_even", "_from_odd"):
        a, b = getattr(exact, table), getattr(low, table)
        assert bool(((a - b).abs() <= UNIT[name] * a.abs() + 2.0**-25).all())
        assert not torch.equal(a, b)
    assert torch.equal(exact._evaluate[..., :3], low._evaluate[..., :3])
    assert torch.equal(exact._project[..., :3, :], low._project[..., :3, :])


def test_operands_are_rounded_on_the_way_in():
    low = RoundedTransform(GRID, operands="bf16", dtype=torch.float64)
    exact = HarmonicTransform(GRID, dtype=torch.float64)
    field = draw(GRID.n_lon, GRID.n_lat, 3)
    assert torch.equal(low.analyse(field), exact.analyse(scaled_round(field, "bf16")))


def levels_of(value, equations):
    state = rossby_haurwitz(equations)
    moved = State(*(x + value for x in state))
    return TimeLevels(moved, moved, 5)


@pytest.fixture(scope="module")
def equations():
    transform = HarmonicTransform(GRID, dtype=torch.float64)
    return PrimitiveEquations(transform, SigmaLevels.equidistant(2))


@pytest.mark.parametrize(
    ("rounding", "arrives"), [("nearest", 0.0), ("compensated", 1.0), ("stochastic", 1.0)]
)
def test_small_increments_are_lost_unless_cared_for(equations, rounding, arrives):
    """Steps of 1/50 K on 288 K, whose neighbours in bf16 lie 1 or 2 K apart."""
    n_step, step = 400, 0.02
    store = Storage("bf16", rounding=rounding, generator=torch.Generator().manual_seed(0))
    levels = levels_of(0.0, equations)
    levels = TimeLevels(levels.previous, levels.current, 1)
    for _ in range(n_step):
        # a leapfrog without a tendency but one
        old = levels.previous
        new = old._replace(temperature=old.temperature.clone())
        new.temperature[0, 0, 0] += 2 * step
        levels = store(TimeLevels(levels.current, new, levels.n_step + 1))
    moved = float(levels.current.temperature[0, 0, 0, 0]) - 288.0
    # one spacing, or for stochastic rounding some roots of the 400 draws of up to 2 K
    assert moved == pytest.approx(arrives * n_step * step, abs=2.5)


def test_kept_wavenumbers_come_back_whole(equations):
    levels = levels_of(1e-3, equations)
    stored = Storage("bf16", keep=2)(levels)
    a, b = levels.current.temperature, stored.current.temperature
    assert torch.equal(a[:, :, :2], b[:, :, :2])
    assert not torch.equal(a[:, :, 2:], b[:, :, 2:])
