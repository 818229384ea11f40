"""Baselines: what fingerprints alone can do, printed beside every model."""

from apps.chemistry.baselines.mix import KERNEL_MODELS, MixKernel, predict_kernel_mix
from apps.chemistry.baselines.simple import BASELINES, nearest_training_row, predict_baselines
from apps.chemistry.baselines.teacher import Teacher

__all__ = [
    "BASELINES",
    "KERNEL_MODELS",
    "MixKernel",
    "Teacher",
    "nearest_training_row",
    "predict_baselines",
    "predict_kernel_mix",
]
