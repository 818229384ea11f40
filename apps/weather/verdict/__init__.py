"""How good a scheme is, as forecasters and climatologists judge."""

from apps.weather.verdict.card import scorecard
from apps.weather.verdict.climate import ClimateConfig
from apps.weather.verdict.ensemble import (
    balanced_error,
    bred,
    fair_crps,
    hours_to_solution,
    rank_histogram,
    spread_skill,
)
from apps.weather.verdict.fields import VARIABLES, at_pressure, judged_fields
from apps.weather.verdict.longrun import LongRun, run_daily
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
from apps.weather.verdict.score import ScoreConfig

__all__ = [
    "REGIONS",
    "VARIABLES",
    "ClimateConfig",
    "LongRun",
    "ScoreConfig",
    "anomaly_correlation",
    "at_pressure",
    "balanced_error",
    "box_weight",
    "bred",
    "diebold_mariano",
    "fair_crps",
    "hours_lost",
    "hours_to_solution",
    "judged_fields",
    "rank_histogram",
    "region_weights",
    "rmse",
    "run_daily",
    "scorecard",
    "spread_skill",
    "squared_error",
]
