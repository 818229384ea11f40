"""The page's own drawing puts points where the numbers say."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.lab.report.charts import Point, log_ticks, nice_ticks, scatter


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_enclose_the_interval_at_even_steps(low, width):
    ticks = nice_ticks(low, low + width)
    slack = 1e-6 * max(width, abs(low))
    assert ticks[0] <= low + slack
    assert ticks[-1] >= low + width - slack
    assert 2 <= len(ticks) <= 7
    steps = [b - a for a, b in pairwise(ticks)]
    # Ticks are rounded to 12 places, and each difference loses what doubles of their size lose.
    rounding = 2e-12 + 4 * 2**-52 * max(map(abs, ticks))
    assert steps == pytest.approx([steps[0]] * len(steps), rel=1e-9, abs=rounding)


def test_ticks_of_one_value_lie_around_it():
    ticks = nice_ticks(2.0, 2.0)
    assert ticks[0] < 2.0 < ticks[-1]
    assert nice_ticks(0.0, 0.0)[-1] > 0


def test_log_ticks_are_round_and_few():
    assert log_ticks(-3, -2) == pytest.approx([1e-3, 2e-3, 5e-3, 1e-2])
    assert log_ticks(0, 9) == pytest.approx([1, 1e2, 1e4, 1e6, 1e8])


def places(svg):
    found = re.findall(r'<circle class="c(\d)" cx="([\d.]+)" cy="([\d.]+)"', svg)
    return {int(i): (float(x), float(y)) for i, x, y in found}


def test_points_lie_where_the_numbers_say():
    points = [Point("a", 1e-3, 0.2, 0), Point("b", 1e-2, 0.4, 1), Point("c", 1e-1, 0.3, 2)]
    svg = scatter(points, x_label="energy", x_unit="J", y_label="RMSE", line=("svm", 0.3))
    at = places(svg)
    # Equal ratios are equal distances to the right; more is higher up, by proportion.
    assert at[1][0] - at[0][0] == pytest.approx(at[2][0] - at[1][0], abs=0.11)
    assert at[2][1] == pytest.approx((at[0][1] + at[1][1]) / 2, abs=0.11)
    assert at[1][1] < at[0][1]
    line = re.search(r'class="rival"[^>]* y1="([\d.]+)"', svg)
    assert float(line.group(1)) == at[2][1]
    assert "<title>a: 1.00 mJ, 0.200</title>" in svg


def test_one_point_and_names_with_markup():
    svg = scatter([Point("<b>", 1.0, 0.0, 0)], x_label="&", x_unit="J", y_label="'", line=None)
    assert "<b>" not in svg
    assert "&lt;b&gt;" in svg
    assert places(svg)[0][0] > 0
