"""How good a scheme is, as forecasters judge: scorecard, significance, hours of skill."""

from apps.weather.verdict.fields import VARIABLES, at_pressure, judged_fields
from apps.weather.verdict.metrics import (
    REGIONS,
    anomaly_correlation,
    box_weight,
    diebold_mariano,
    hours_lost,
    region_weights,
    rmse,
    squared_error,
)
from apps.weather.verdict.score import ScoreConfig, scorecard

__all__ = [
    "REGIONS",
    "VARIABLES",
    "ScoreConfig",
    "anomaly_correlation",
    "at_pressure",
    "box_weight",
    "diebold_mariano",
    "hours_lost",
    "judged_fields",
    "region_weights",
    "rmse",
    "scorecard",
    "squared_error",
]
