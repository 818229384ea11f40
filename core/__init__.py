"""Sparse and low-precision kernels, numerics and optimizers. Knows no machine."""

from core.memory import keep_freed_memory
from core.normalise import batch_norm
from core.precision import FORMATS, Format, dequantize, quantize, round_to_format
from core.sparse import (
    BlockPattern,
    BlockSparseLinear,
    DenseLinear,
    EdgeOrder,
    FrozenLinear,
    LayerSpec,
    PackedSequential,
    build_linear,
    freeze,
    matmul,
    pass_messages,
    segment_sum,
)

__all__ = [
    "FORMATS",
    "BlockPattern",
    "BlockSparseLinear",
    "DenseLinear",
    "EdgeOrder",
    "Format",
    "FrozenLinear",
    "LayerSpec",
    "PackedSequential",
    "batch_norm",
    "build_linear",
    "dequantize",
    "freeze",
    "keep_freed_memory",
    "matmul",
    "pass_messages",
    "quantize",
    "round_to_format",
    "segment_sum",
]
