import math

import numpy as np
import pytest

from apps.chemistry.datasets.values import merge_replicates, read_value


@pytest.mark.parametrize(
    ("text", "options", "value", "bound"),
    [
        ("6.5", {}, 6.5, 0),
        ("> 6.5", {}, 6.5, 1),
        ("6.5", {"relation": "<="}, 6.5, -1),
        ("6.5", {"unit": "pKi", "relation": ">"}, 6.5, 1),
        ("1000", {"unit": "nM"}, 6.0, 0),
        ("1", {"unit": "uM"}, 6.0, 0),
        ("1", {"unit": "\u03bcM"}, 6.0, 0),
        ("0.001", {"unit": "mM"}, 6.0, 0),
        ("1e-6", {"unit": "M"}, 6.0, 0),
        ("1e6", {"unit": "pM"}, 6.0, 0),
        (">10", {"unit": "uM"}, 5.0, -1),
        ("10", {"unit": "uM", "relation": "<"}, 5.0, 1),
    ],
)
def test_values(text, options, value, bound):
    read = read_value(text, **options)
    assert read == (pytest.approx(value, rel=1e-12), bound, "")  # one logarithm in float64


@pytest.mark.parametrize("text", ["", " NA ", "nan", "NaN", "-", "none"])
def test_missing_is_no_problem(text):
    read = read_value(text, unit="nM")
    assert math.isnan(read.value)
    assert read.problem == ""


@pytest.mark.parametrize(
    ("text", "options", "problem"),
    [
        ("high", {}, "'high' is not a number"),
        ("inf", {}, "'inf' is not finite"),
        ("-3", {"unit": "nM"}, "'-3' nM has no logarithm; a concentration is above 0"),
        ("3", {"unit": "mg"}, "unit 'mg' is none of pM, nM, uM, mM, M, pK"),
        ("3", {"relation": "about"}, "relation 'about' is none of =, <, >"),
    ],
)
def test_problems(text, options, problem):
    read = read_value(text, **options)
    assert math.isnan(read.value)
    assert read.problem == problem


@pytest.mark.parametrize(
    ("value", "bound", "merged"),
    [
        ([6, 7, 9], [0, 0, 0], (7, 0, 3)),
        ([6, 7, 9], [0, 1, 0], (7.5, 0, 3)),  # exact values win over bounds
        ([6, 7], [1, 1], (7, 1, 0)),
        ([6, 7], [-1, -1], (6, -1, 0)),
        ([6, math.nan], [0, 0], (6, 0, 0)),
    ],
)
def test_replicates(value, bound, merged):
    assert merge_replicates(np.array(value, float), np.array(bound)) == merged


def test_contradicting_bounds_leave_no_value():
    assert math.isnan(merge_replicates(np.array([6.0, 7.0]), np.array([1, -1]))[0])
