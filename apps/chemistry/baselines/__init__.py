"""Baselines: what fingerprints alone can do, printed beside every model."""

from apps.chemistry.baselines.simple import BASELINES, nearest_training_row, predict_baselines

__all__ = ["BASELINES", "nearest_training_row", "predict_baselines"]
