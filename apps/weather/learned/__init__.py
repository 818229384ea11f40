"""Radiation as a network learns it: columns, emulator, training and scores."""

from apps.weather.learned.audit import AuditedRadiation, RangeDetector
from apps.weather.learned.columns import (
    ColumnsConfig,
    LabelledColumns,
    cached_columns,
    sample_columns,
    split_index,
)
from apps.weather.learned.emulator import (
    EMULATOR_FILE,
    Emulator,
    load_emulator,
    save_emulator,
)
from apps.weather.learned.fitting import NetworkConfig, fit_emulator
from apps.weather.learned.recurrent import RecurrentEmulator
from apps.weather.learned.scheme import LearnedRadiation
from apps.weather.learned.scores import baselines, forcing_error, score, score_scheme

__all__ = [
    "EMULATOR_FILE",
    "AuditedRadiation",
    "ColumnsConfig",
    "Emulator",
    "LabelledColumns",
    "LearnedRadiation",
    "NetworkConfig",
    "RangeDetector",
    "RecurrentEmulator",
    "baselines",
    "cached_columns",
    "fit_emulator",
    "forcing_error",
    "load_emulator",
    "sample_columns",
    "save_emulator",
    "score",
    "score_scheme",
    "split_index",
]
