"""Many molecules as one graph: the batch that the network reads."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from apps.chemistry.molecules import MolGraph
from core.errors import DataError

if TYPE_CHECKING:
    from torch_geometric.data import Data


class MolBatch(NamedTuple):
    """Packed molecules; the fields bear the names and shapes of a `torch_geometric.data.Batch`.

    The network reads these names only, so a Batch collated from `pyg_data` serves as well.
    Shape letters: A atoms, E directed edges, G molecules, T tasks.
    """

    x: Tensor
    """float32 [A, feature]: atoms of all molecules, one molecule after the other."""
    edge_index: Tensor
    """int64 [2, E]: source and target atom, counted over the whole batch."""
    edge_attr: Tensor
    """float32 [E, feature]"""
    batch: Tensor
    """int64 [A]: which molecule each atom belongs to."""
    ptr: Tensor
    """int64 [G + 1]: first atom of each molecule, then A."""
    y: Tensor
    """float32 [G, T]: measured values, 0 where there is none."""
    y_weight: Tensor
    """float32 [G, T]: 1 where `y` was measured, 0 where it was not."""
    bound: Tensor | None = None
    """float32 [G, T]: 0 exact, 1 the true value lies above `y`, -1 below; None: all exact."""
    hint: Tensor | None = None
    """float32 [G, T]: what a teacher says of `y`, see `apps.chemistry.baselines.JointKernel`."""
    hint_weight: Tensor | None = None
    """float32 [G, T]: weight of the distance from `hint` in the loss, a measured value's being 1;
    0 where there is no hint."""
    edge_kind: Tensor | None = None
    """int32 [E]: row of each edge in `edge_table`; None: `edge_attr` has to be read."""
    edge_table: Tensor | None = None
    """float32 [kind, feature]: the distinct rows of `edge_attr`; bonds are of a few kinds."""

    @property
    def num_graphs(self) -> int:
        """G, the number of molecules."""
        return self.y.shape[0]

    def to(self, device: torch.device | str) -> "MolBatch":
        """Return the batch on `device`."""
        return MolBatch._make(None if tensor is None else tensor.to(device) for tensor in self)


def pack(
    graphs: Sequence[MolGraph],
    target: np.ndarray | None = None,
    bound: np.ndarray | None = None,
) -> MolBatch:
    """Return the molecules as one disconnected graph.

    Parameters
    ----------
    graphs : sequence of MolGraph
        At least one; each with at least one atom.
    target : float32 [molecule, task], optional
        NaN where a task has no value. None makes one task without values (prediction).
    bound : int8 [molecule, task], optional
        Which values are bounds, see `MolBatch`.

    Raises
    ------
    core.errors.DataError
        If there is no graph, if `target` has another number of rows, or holds an infinity.

    Checked against: a `torch_geometric.data.Batch` of the same molecules.
    """
    if not graphs:
        raise DataError("pack: graphs is empty; expected at least one molecule")
    if target is None:
        target = np.full((len(graphs), 1), np.nan, dtype=np.float32)
    if target.ndim != 2 or len(target) != len(graphs):
        raise DataError(
            f"pack: target must have shape [{len(graphs)}, task], one row per molecule, "
            f"got {list(target.shape)}"
        )
    if np.isinf(target).any():
        row = int(np.nonzero(np.isinf(target).any(axis=1))[0][0])
        raise DataError(f"pack: target of molecule {row} is infinite; drop it or make it NaN")
    n_atom = np.array([graph.n_atom for graph in graphs])
    n_edge = np.array([graph.n_edge for graph in graphs])
    ptr = np.concatenate([[0], np.cumsum(n_atom)])
    edge_index = np.concatenate([graph.edge_index for graph in graphs], axis=1)
    edge_index = edge_index + np.repeat(ptr[:-1], n_edge)
    measured = ~np.isnan(target)
    arrays = (
        np.concatenate([graph.atom_features for graph in graphs]),
        edge_index,
        np.concatenate([graph.edge_features for graph in graphs]),
        np.repeat(np.arange(len(graphs)), n_atom),
        ptr,
        np.where(measured, target, 0.0).astype(np.float32),
        measured.astype(np.float32),
    )
    limits = None if bound is None else torch.from_numpy(bound).float()
    tensors = [torch.from_numpy(array) for array in arrays]
    return MolBatch._make([*tensors, limits, None, None, *_kinds(arrays[2])])


def _kinds(edge_features: np.ndarray) -> tuple[Tensor | None, Tensor | None]:
    """Return kinds and table of edges whose features are zeros and ones; None for others."""
    if not ((edge_features == 0) | (edge_features == 1)).all():
        return None, None
    code = edge_features @ (2.0 ** np.arange(edge_features.shape[1])).astype(np.float32)
    _, first, kind = np.unique(code, return_index=True, return_inverse=True)
    if not first.size:  # single atoms
        return None, None
    return torch.from_numpy(kind.astype(np.int32)), torch.from_numpy(edge_features[first])


def pyg_data(graph: MolGraph, target: np.ndarray | None = None) -> "Data":
    """Return one molecule as a `torch_geometric.data.Data`, for PyG's own loaders and layers.

    `target` is float32 [task]; NaN where there is no value.
    """
    from torch_geometric.data import Data

    one = pack([graph], None if target is None else np.asarray(target, np.float32)[None])
    return Data(
        x=one.x, edge_index=one.edge_index, edge_attr=one.edge_attr, y=one.y, y_weight=one.y_weight
    )
