"""The edges of a graph in the two orders in which messages are passed along them.

``core::group_rows`` sorts rows by their group, which for edges is one of their two ends.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from core.checks import check_dtype, check_index, check_shape
from core.kernels import call, messages

_LIBRARY = torch.library.Library("core", "FRAGMENT")
_LIBRARY.define("group_rows(Tensor index, int n_group) -> (Tensor, Tensor)")


@dataclass(frozen=True, eq=False)
class EdgeOrder:
    """The edges of a graph, grouped by target and by source; made once for each batch.

    Parameters
    ----------
    target_ptr : Tensor, int32 [target + 1]
        Edges ``target_ptr[i]`` to ``target_ptr[i + 1]`` of the order by target point at i.
    source, edge_t : Tensor, int32 [edge]
        Source and number of each edge, in the order by target.
    source_ptr : Tensor, int32 [source + 1]
    target, edge_s : Tensor, int32 [edge]
        The like for the order by source.

    Examples
    --------
    >>> import torch, core
    >>> edge_index = torch.tensor([[0, 2, 1], [1, 1, 0]])  # 0 -> 1, 2 -> 1, 1 -> 0
    >>> order = core.EdgeOrder.from_index(edge_index, 3)
    >>> order.target_ptr.tolist(), order.source.tolist()
    ([0, 1, 3, 3], [1, 0, 2])
    """

    target_ptr: Tensor
    source: Tensor
    edge_t: Tensor
    source_ptr: Tensor
    target: Tensor
    edge_s: Tensor

    @classmethod
    def from_index(
        cls, edge_index: Tensor, n_source: int, n_target: int | None = None
    ) -> EdgeOrder:
        """Sort edges given in any order.

        Parameters
        ----------
        edge_index : Tensor, int64 [2, edge]
            Source and target of each edge; a pair may occur more than once.
        n_source : int
            Rows that messages come from.
        n_target : int, optional
            Rows that they go to; `n_source` if left out.

        Raises
        ------
        ShapeError, DtypeError, IndexRangeError
            If `edge_index` is not two rows of valid indices.
        """
        who, what = "EdgeOrder", "give sources and targets, one column per edge"
        check_shape(who, "edge_index", edge_index, (2, None), what)
        check_dtype(who, "edge_index", edge_index, (torch.int64,))
        source, target = edge_index
        target_ptr, edge_t = group_rows(target, n_source if n_target is None else n_target)
        source_ptr, edge_s = group_rows(source, n_source)
        ends = source.index_select(0, edge_t).int(), target.index_select(0, edge_s).int()
        return cls(target_ptr, ends[0], edge_t, source_ptr, ends[1], edge_s)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The six tensors, in the order of the fields."""
        return (
            self.target_ptr, self.source, self.edge_t, self.source_ptr, self.target, self.edge_s
        )  # fmt: skip

    def to(self, device: torch.device | str) -> EdgeOrder:
        """Return the same order on `device`."""
        return EdgeOrder(*(t.to(device) for t in self.tensors))


def group_rows(index: Tensor, n_group: int) -> tuple[Tensor, Tensor]:
    """Return where each group starts, int32 [n_group + 1], and the rows sorted by group, int32.

    Parameters
    ----------
    index : Tensor, int64 [row]
        Group of each row, 0..n_group-1. Rows of one group keep their order.
    n_group : int
    """
    ptr, order = torch.ops.core.group_rows.default(index, n_group)
    return ptr, order


def _group_rows(index: Tensor, n_group: int) -> tuple[Tensor, Tensor]:
    kernels = call.kernels() if index.device.type == "cpu" else None
    if kernels is not None and (groups := messages.group_rows(kernels, index, n_group)) is not None:
        return groups
    if index.device.type == "cpu":  # reading the index back would stall an accelerator
        check_index("EdgeOrder", "edge_index", index, n_group, "row")
    rows, order = torch.sort(index, stable=True)
    edges = torch.arange(n_group + 1, device=index.device)
    return torch.searchsorted(rows, edges, out_int32=True), order.int()


_LIBRARY.impl("group_rows", _group_rows, "CompositeExplicitAutograd")


@torch.library.register_fake("core::group_rows", lib=_LIBRARY)
def _(index: Tensor, n_group: int) -> tuple[Tensor, Tensor]:
    ptr = index.new_empty(n_group + 1, dtype=torch.int32)
    return ptr, ptr.new_empty(index.numel())
