"""Compiled kernels for CPUs, with a plain C interface."""

from core.kernels.load import library

__all__ = ["library"]
