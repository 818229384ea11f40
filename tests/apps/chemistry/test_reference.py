import numpy as np
import pytest

from apps.chemistry.reference import COVERAGE, fit_interval


def test_errors_that_grow_with_distance_by_hand():
    distance = np.array([0.0, 0.25, 0.5, 0.75, 1.0] * 4)
    base, slope, factor = fit_interval(0.5 + 2.0 * distance, distance)
    # least squares through points on a line gives the line; every ratio is then 1
    assert (base, slope, factor) == pytest.approx((0.5, 2.0, 1.0), rel=1e-9)


def test_slope_is_never_negative_and_scale_never_zero():
    distance = np.linspace(0, 1, 20)
    base, slope, factor = fit_interval(1.0 - distance, distance)
    assert slope == 0.0
    assert base == pytest.approx(0.5)
    # errors 0, 1/19, ... 1 in units of .5; the ceil(21 * .8) = 17th smallest is 16/19 / .5
    assert factor == pytest.approx(16 / 19 / 0.5)
    base, _, _ = fit_interval(np.zeros(20), distance)
    assert base > 0


def test_four_in_five_new_errors_lie_inside():
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(200):
        distance = rng.uniform(0, 1, 400)
        error = np.abs(rng.standard_normal(400)) * (0.3 + distance)
        base, slope, factor = fit_interval(error[:200], distance[:200])
        inside = error[200:] <= (base + slope * distance[200:]) * factor
        far = distance[200:] > 0.5
        covered.append([inside.mean(), inside[far].mean(), inside[~far].mean()])
    # one set of 200 has sd (.8 * .2 * 2 / 200)**.5 = .04, the mean of 200 sets .003; the line's
    # two parameters take about 2 / 200 off, and a line is not quite right in either half
    np.testing.assert_allclose(np.mean(covered, axis=0), COVERAGE, atol=0.02)
