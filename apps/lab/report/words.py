"""How the page spells names, numbers and comparisons."""

from __future__ import annotations

import math
from typing import Literal

Direction = Literal["lower", "higher", "zero"]

# Stands where there is no number.
MISSING = "\N{EN DASH}"

# Ends of metric names that state a unit, longest first.
_UNITS = (
    ("_k_per_day", "K/day"),
    ("_w_m2", "W/m²"),
    ("_percent", "%"),
    ("_day", "days"),
    ("_k", "K"),
    ("_s", "s"),
    ("_j", "J"),
)
_SPELLED = {
    "rmse": "RMSE",
    "mae": "MAE",
    "mse": "MSE",
    "r2": "R²",
    "rm2": "rm²",
    "ci": "CI",
    "roc": "ROC",
    "auc": "AUC",
    "lw": "LW",
    "sw": "SW",
    "olr": "OLR",
    "spearman": "Spearman",
    "svm": "SVM",
    "rf": "RF",
    "ecfp4": "ECFP4",
}
_HIGHER = {"r2", "rm2", "spearman", "pearson", "auc", "ci", "accuracy", "coverage"}
_PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))


def metric_label(name: str) -> str:
    """Spell a metric: ``lw_rmse_k_per_day`` as ``LW RMSE``; its unit is `metric_unit`'s."""
    unit_end = _unit_end(name)
    words = name.removesuffix(unit_end).split("_")
    return " ".join(_SPELLED.get(word, word) for word in words)


def metric_unit(name: str) -> str:
    """Give the unit that a metric's name states, or an empty text."""
    return dict(_UNITS).get(_unit_end(name), "")


def direction(name: str) -> Direction:
    """Say where a metric is best: low (errors), high (correlations), or near zero (biases)."""
    words = name.split("_")
    if "bias" in words:
        return "zero"
    return "higher" if _HIGHER & set(words) else "lower"


def is_better(name: str, value: float, than: float) -> bool:
    """Compare two values of one metric."""
    kind = direction(name)
    if kind == "zero":
        return abs(value) < abs(than)
    return value > than if kind == "higher" else value < than


def number(value: float | None, digits: int = 3) -> str:
    """Round to significant digits, without an exponent between 0.001 and 100,000."""
    if value is None or not math.isfinite(value):
        return MISSING
    if value == 0:
        return "0"
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])  # of the rounded value
    if not -4 < exponent < 5:
        return f"{value:.{digits - 1}e}".replace("-", "\N{MINUS SIGN}")
    text = f"{value:,.{max(digits - 1 - exponent, 0)}f}"
    return text.replace("-", "\N{MINUS SIGN}")


def quantity(value: float, unit: str) -> str:
    """Write a value with an SI prefix: 1.23 µs, 4.5 mJ, 638 kbyte."""
    if value == 0 or not math.isfinite(value):
        return f"{number(value)} {unit}"
    scale, prefix = next((p for p in _PREFIXES if abs(value) >= 0.9995 * p[0]), _PREFIXES[-1])
    return f"{number(value / scale)} {prefix}{unit}"


def with_unit(text: str, unit: str) -> str:
    """Put the unit after a number, where there is one."""
    return f"{text} {unit}" if unit else text


def times(ratio: float) -> str:
    """Write a ratio as a factor: 2.13×, 0.81×, 340×."""
    return f"{number(ratio, 3 if ratio >= 0.995 else 2)}\N{MULTIPLICATION SIGN}"


def difference(name: str, value: float, than: float) -> str:
    """Say how `value` stands against `than`: ``31 % lower``, ``the same``."""
    if value == than:
        return "the same"
    if than == 0 or direction(name) != "lower":
        sign = "higher" if value > than else "lower"
        return f"{number(abs(value - than), 2)} {sign}"
    return f"{number(100 * abs(value / than - 1), 2)} % {'higher' if value > than else 'lower'}"


def plain(name: str) -> str:
    """Turn an identifier into words: ``train_mean`` as ``train mean``, ``svm`` as ``SVM``."""
    return " ".join(_SPELLED.get(word, word) for word in name.split("_"))


def _unit_end(name: str) -> str:
    return next((end for end, _ in _UNITS if name.endswith(end) and name != end), "")
