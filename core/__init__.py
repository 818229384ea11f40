"""Sparse and low-precision kernels, numerics and optimizers. Knows no machine."""

from core.precision import FORMATS, Format, dequantize, quantize, round_to_format
from core.sparse import (
    BlockPattern,
    BlockSparseLinear,
    DenseLinear,
    FrozenLinear,
    LayerSpec,
    build_linear,
    freeze,
    matmul,
    segment_sum,
)

__all__ = [
    "FORMATS",
    "BlockPattern",
    "BlockSparseLinear",
    "DenseLinear",
    "Format",
    "FrozenLinear",
    "LayerSpec",
    "build_linear",
    "dequantize",
    "freeze",
    "matmul",
    "quantize",
    "round_to_format",
    "segment_sum",
]
