"""Block-sparse matrices: patterns, products, layers; and segment sums."""

from core.sparse.attention import BlockSparseAttention, block_sparse_attention
from core.sparse.build import LayerSpec, build_linear, freeze
from core.sparse.convolution import SparseConv2d, dilated_taps
from core.sparse.edges import EdgeOrder
from core.sparse.linear import BlockSparseLinear, DenseLinear, FrozenLinear
from core.sparse.messages import pass_messages
from core.sparse.ops import matmul
from core.sparse.packed import PackedSequential
from core.sparse.pattern import BlockPattern
from core.sparse.segment import segment_sum
from core.sparse.topology import attention_blocks, banded, erdos_renyi_densities, grid_neighbours
from core.sparse.topology_update import PatternUpdater, TopologyRule

__all__ = [
    "BlockPattern",
    "BlockSparseAttention",
    "BlockSparseLinear",
    "DenseLinear",
    "EdgeOrder",
    "FrozenLinear",
    "LayerSpec",
    "PackedSequential",
    "PatternUpdater",
    "SparseConv2d",
    "TopologyRule",
    "attention_blocks",
    "banded",
    "block_sparse_attention",
    "build_linear",
    "dilated_taps",
    "erdos_renyi_densities",
    "freeze",
    "grid_neighbours",
    "matmul",
    "pass_messages",
    "segment_sum",
]
