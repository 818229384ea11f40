"""How the page spells names, numbers and comparisons."""

import math

import pytest

from apps.lab.report import words


@pytest.mark.parametrize(
    ("name", "label", "unit", "direction"),
    [
        ("rmse", "RMSE", "", "lower"),
        ("rmse_cliff", "RMSE cliff", "", "lower"),
        ("r2", "R²", "", "higher"),
        ("r2_min", "R² min", "", "higher"),
        ("spearman", "Spearman", "", "higher"),
        ("roc_auc", "ROC AUC", "", "higher"),
        ("ci", "CI", "", "higher"),
        ("lw_rmse_k_per_day", "LW RMSE", "K/day", "lower"),
        ("sw_bias_k_per_day", "SW bias", "K/day", "zero"),
        ("olr_bias_w_m2", "OLR bias", "W/m²", "zero"),
        ("t_upper_rmse_k", "t upper RMSE", "K", "lower"),
    ],
)
def test_metrics_of_the_schema(name, label, unit, direction):
    assert words.metric_label(name) == label
    assert words.metric_unit(name) == unit
    assert words.direction(name) == direction


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.4096, "0.410"),
        (-0.01, "\N{MINUS SIGN}0.0100"),
        (1234.5, "1,234"),
        (99949.0, "99,949"),
        (99999.0, "1.00e+05"),
        (123456.0, "1.23e+05"),
        (0.000123, "1.23e\N{MINUS SIGN}04"),
        (0.0, "0"),
        (math.nan, words.MISSING),
        (None, words.MISSING),
    ],
)
def test_numbers(value, text):
    assert words.number(value) == text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (1.234e-5, "s", "12.3 µs"),
        (0.9996e-3, "s", "1.00 ms"),
        (2.5e-3, "J", "2.50 mJ"),
        (638_976, "byte", "639 kbyte"),
        (3e-11, "s", "0.0300 ns"),
        (0, "J", "0 J"),
    ],
)
def test_quantities(value, unit, text):
    assert words.quantity(value, unit) == text


def test_comparisons():
    assert words.difference("rmse", 0.4, 0.5) == "20 % lower"
    assert words.difference("rmse", 0.5, 0.4) == "25 % higher"
    assert words.difference("r2", 0.9, 0.85) == "0.050 higher"
    assert words.difference("rmse", 0.5, 0.5) == "the same"
    assert words.times(2.126) == "2.13\N{MULTIPLICATION SIGN}"
    assert words.times(0.8123) == "0.81\N{MULTIPLICATION SIGN}"
    assert words.is_better("rmse", 0.1, 0.2)
    assert words.is_better("r2", 0.2, 0.1)
    assert words.is_better("lw_bias_k_per_day", -0.1, 0.2)
    assert not words.is_better("lw_bias_k_per_day", -0.3, 0.2)


def test_a_ratio_near_one_is_not_short_of_digits():
    assert words.times(0.9987) == "0.999\N{MULTIPLICATION SIGN}"
    assert words.times(1.0) == "1.00\N{MULTIPLICATION SIGN}"
