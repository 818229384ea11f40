"""Baselines: what fingerprints alone can do, printed beside every model."""

from apps.chemistry.baselines.joint import JointKernel, KernelAnswers, KernelMember
from apps.chemistry.baselines.mix import KERNEL_MODELS, MixKernel, predict_kernel_mix
from apps.chemistry.baselines.simple import BASELINES, nearest_training_row, predict_baselines

__all__ = [
    "BASELINES",
    "KERNEL_MODELS",
    "JointKernel",
    "KernelAnswers",
    "KernelMember",
    "MixKernel",
    "nearest_training_row",
    "predict_baselines",
    "predict_kernel_mix",
]
