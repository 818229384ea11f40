"""Block-sparse matrices: patterns, products, layers; and segment sums."""

from core.sparse.build import LayerSpec, build_linear, freeze
from core.sparse.linear import BlockSparseLinear, DenseLinear, FrozenLinear
from core.sparse.ops import matmul
from core.sparse.pattern import BlockPattern
from core.sparse.segment import segment_sum

__all__ = [
    "BlockPattern",
    "BlockSparseLinear",
    "DenseLinear",
    "FrozenLinear",
    "LayerSpec",
    "build_linear",
    "freeze",
    "matmul",
    "segment_sum",
]
