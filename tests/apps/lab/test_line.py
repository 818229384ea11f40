"""Lines through points beside a linear algebra library, and where none is to be had."""

import math

import numpy as np
import pytest

from apps.lab.line import fit_line


def test_slope_and_level_are_those_of_least_squares():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=50), rng.normal(3.0, 2.0, size=50)
    assert fit_line(x, y) == pytest.approx(np.polyfit(x, y, 1).tolist(), rel=1e-12)
    assert fit_line([0, 1, 2], [1.0, 3.0, 5.0]) == (2.0, 1.0)


def test_bits_do_not_hang_on_where_the_points_lie():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=997), rng.normal(size=997)
    found = set()
    for begin in range(8):
        room = np.empty((2, 1010))
        room[:, begin : begin + 997] = x, y
        found.add(fit_line(*room[:, begin : begin + 997]))
    assert len(found) == 1


@pytest.mark.parametrize(
    ("x", "y"), [([1.0], [2.0]), ([3.0, 3.0], [1.0, 2.0]), ([0, 1], [0.0, math.inf]), ([], [])]
)
def test_no_line_is_no_number(x, y):
    assert all(math.isnan(v) for v in fit_line(x, y))
