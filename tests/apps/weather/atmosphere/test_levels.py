import numpy as np
import pytest

from apps.weather.atmosphere.levels import VERTICAL_SCHEMES, SigmaLevels
from core.errors import ConfigError


@pytest.mark.parametrize("scheme", VERTICAL_SCHEMES)
def test_thickness_sums_to_one_and_the_conversion_is_the_weighted_transpose(scheme):
    levels = SigmaLevels.of([0.0, 0.05, 0.2, 0.5, 0.8, 1.0], scheme)
    assert levels.thickness.sum() == pytest.approx(1.0, abs=1e-15)
    left = levels.thickness[:, None] * levels.conversion
    right = (levels.thickness[:, None] * levels.hydrostatic).T
    np.testing.assert_allclose(left, right, atol=1e-15)


def test_simmons_burridge_reproduces_its_equations():
    """Equations 3.17 and 3.19, written as loops."""
    levels = SigmaLevels.of([0.0, 0.1, 0.4, 0.7, 1.0])
    half, temperature = levels.half, np.array([210.0, 230.0, 260.0, 290.0])
    convergence = np.array([1.0, -2.0, 0.5, 3.0])
    for k in range(4):
        depth = np.log(half[k + 1] / half[k]) if k else np.nan
        alpha = np.log(2.0) if k == 0 else 1 - half[k] / (half[k + 1] - half[k]) * depth
        height = alpha * temperature[k]
        for j in range(k + 1, 4):
            height += temperature[j] * np.log(half[j + 1] / half[j])
        assert (levels.hydrostatic @ temperature)[k] == pytest.approx(height, rel=1e-14)
        above = sum(convergence[j] * (half[j + 1] - half[j]) for j in range(k))
        inner = alpha * convergence[k]
        if k:
            inner += depth * above / (half[k + 1] - half[k])
        assert (levels.conversion @ convergence)[k] == pytest.approx(inner, rel=1e-14)


def test_trapezoidal_isothermal_geopotential_is_minus_log_sigma():
    levels = SigmaLevels.equidistant(8, "trapezoidal")
    np.testing.assert_allclose(levels.hydrostatic.sum(1), -np.log(levels.full), rtol=1e-14)


@pytest.mark.parametrize("half", [(0.0, 0.5), (0.1, 1.0), (0.0, 0.6, 0.5, 1.0)])
def test_half_levels_out_of_order_are_refused(half):
    with pytest.raises(ConfigError, match="must rise strictly from 0"):
        SigmaLevels(half)


def test_unknown_scheme_is_refused():
    with pytest.raises(ConfigError, match=r"scheme must be one of .* got 'spline'"):
        SigmaLevels.equidistant(4, "spline")
