"""Measured values as text to numbers: units, relations such as ">", and replicates."""

import math
from typing import NamedTuple

import numpy as np

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "-"})
# log10 of mol/l for each unit of concentration.
MOLAR = {"pM": -12, "nM": -9, "uM": -6, "mM": -3, "M": 0}
_UNIT = {name.lower(): name for name in MOLAR if name not in ("M", "mM")} | {
    "m": "M",
    "mm": "mM",
    "\u00b5m": "uM",  # micro sign
    "\u03bcm": "uM",  # Greek mu
    "nmol/l": "nM",
    "umol/l": "uM",
    "mol/l": "M",
}
_AS_IS = frozenset({"", "pk", "pki", "pkd", "pic50", "pec50", "log"})
_RELATION = {"": 0, "=": 0, "==": 0, "~": 0, ">": 1, ">=": 1, ">>": 1, "<": -1, "<=": -1, "<<": -1}


class Value(NamedTuple):
    """One measured value, or the reason why a cell holds none."""

    value: float
    """In the unit of the table; NaN where there is none."""
    bound: int
    """0 exact, 1 the true value lies above, -1 below."""
    problem: str
    """What is wrong with the cell; empty where it is a value or a word for missing."""


def read_value(text: str, *, relation: str = "", unit: str = "") -> Value:
    """Read one cell.

    Parameters
    ----------
    text : str
        A number, a word for missing, or a relation and a number (">10000").
    relation : str
        Content of the relation column, where there is one.
    unit : str
        A concentration (`MOLAR`) becomes a pK: 9 - log10(nM), and its relation turns around,
        for more than 10 uM means a pK of less than 5. Empty or a pK: the number as it is.
    """
    text = text.strip()
    if text.lower() in MISSING:
        return Value(math.nan, 0, "")
    number = text.lstrip("<>=~ ")
    sign = text[: len(text) - len(number)].strip() or relation.strip()
    if sign not in _RELATION:
        return Value(math.nan, 0, f"relation {sign[:20]!r} is none of =, <, >")
    try:
        value = float(number)
    except ValueError:
        return Value(math.nan, 0, f"{text[:40]!r} is not a number")
    if not math.isfinite(value):
        return Value(math.nan, 0, "" if math.isnan(value) else f"{text!r} is not finite")
    key = unit.strip().lower()
    if key in _AS_IS:
        return Value(value, _RELATION[sign], "")
    if key not in _UNIT:
        return Value(math.nan, 0, f"unit {unit[:20]!r} is none of {', '.join(MOLAR)}, pK")
    if value <= 0:
        return Value(math.nan, 0, f"{text!r} {unit} has no logarithm; a concentration is above 0")
    return Value(-math.log10(value) - MOLAR[_UNIT[key]], -_RELATION[sign], "")


def merge_replicates(value: np.ndarray, bound: np.ndarray) -> tuple[float, int, float]:
    """Return value, bound and spread (largest - smallest exact value) of measurements of one thing.

    Parameters
    ----------
    value, bound : ndarray, float and int [replicate]
        As in `Value`; NaN values are skipped.

    Notes
    -----
    The median of the exact values, where there are any; else the tightest bound; NaN where
    bounds point both ways.
    """
    known = np.isfinite(value)
    value, bound = value[known], bound[known]
    exact = value[bound == 0]
    if exact.size:
        return float(np.median(exact)), 0, float(np.ptp(exact))
    if not value.size or (bound != bound[0]).any():
        return math.nan, 0, 0.0
    tightest = value.max() if bound[0] > 0 else value.min()
    return float(tightest), int(bound[0]), 0.0
