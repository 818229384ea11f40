"""Block-sparse matrices: patterns, products, layers; and segment sums."""

from core.sparse.build import LayerSpec, build_linear, freeze
from core.sparse.linear import BlockSparseLinear, DenseLinear, FrozenLinear
from core.sparse.ops import matmul
from core.sparse.pattern import BlockPattern
from core.sparse.segment import segment_sum
from core.sparse.topology import attention_blocks, banded, erdos_renyi_densities, grid_neighbours
from core.sparse.topology_update import PatternUpdater, TopologyRule

__all__ = [
    "BlockPattern",
    "BlockSparseLinear",
    "DenseLinear",
    "FrozenLinear",
    "LayerSpec",
    "PatternUpdater",
    "TopologyRule",
    "attention_blocks",
    "banded",
    "build_linear",
    "erdos_renyi_densities",
    "freeze",
    "grid_neighbours",
    "matmul",
    "segment_sum",
]
