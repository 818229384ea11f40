import numpy as np
import pytest
import torch

from apps.chemistry.molecules import featurise
from apps.chemistry.network import pack, pyg_data
from core.errors import DataError

SMILES = ["CCO", "c1ccccc1N", "C", "C[C@H](N)C(=O)O"]


def test_pack_places_atoms_edges_and_targets_of_each_molecule():
    graphs = [featurise(s) for s in SMILES]
    target = np.array([[1.0, np.nan], [2.0, 3.0], [np.nan, 4.0], [5.0, 6.0]], np.float32)
    batch = pack(graphs, target)
    assert batch.num_graphs == 4
    assert batch.ptr.tolist() == [0, 3, 10, 11, 17]
    for i, graph in enumerate(graphs):
        first, last = batch.ptr[i].item(), batch.ptr[i + 1].item()
        assert torch.equal(batch.x[first:last], torch.from_numpy(graph.atom_features))
        assert (batch.batch[first:last] == i).all()
        mine = (batch.edge_index[0] >= first) & (batch.edge_index[0] < last)
        assert torch.equal(batch.edge_index[:, mine] - first, torch.from_numpy(graph.edge_index))
        assert torch.equal(batch.edge_attr[mine], torch.from_numpy(graph.edge_features))
    assert batch.y.tolist() == [[1, 0], [2, 3], [0, 4], [5, 6]]
    assert batch.y_weight.tolist() == [[1, 0], [1, 1], [0, 1], [1, 1]]


def test_edges_are_rows_of_a_table_of_kinds():
    batch = pack([featurise(s) for s in SMILES])
    assert batch.edge_kind.dtype == torch.int32
    assert torch.equal(batch.edge_table[batch.edge_kind], batch.edge_attr)
    assert len(batch.edge_table) == 4  # single, single in conjugation, aromatic, double
    graph = featurise("CCO")
    odd = pack([graph._replace(edge_features=graph.edge_features * 0.5)])
    assert odd.edge_kind is None
    assert pack([featurise("C")]).edge_kind is None


def test_pack_without_target_measures_nothing():
    batch = pack([featurise("CCO")])
    assert batch.y_weight.tolist() == [[0.0]]


def test_pack_is_the_batch_of_pyg():
    from torch_geometric.data import Batch

    graphs = [featurise(s) for s in SMILES]
    target = np.arange(8, dtype=np.float32).reshape(4, 2)
    target[1, 0] = np.nan
    ours = pack(graphs, target)
    theirs = Batch.from_data_list([pyg_data(g, t) for g, t in zip(graphs, target, strict=True)])
    for name in set(ours._fields[:7]):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
    assert ours.num_graphs == theirs.num_graphs


@pytest.mark.parametrize(
    ("graphs", "target", "match"),
    [
        ([], None, "pack: graphs is empty; expected at least one molecule"),
        (["C"], np.zeros((2, 1)), r"target must have shape \[1, task\].* got \[2, 1\]"),
        (["C"], np.zeros(1), r"target must have shape \[1, task\].* got \[1\]"),
        (["C", "N"], np.array([[0.0], [np.inf]]), "target of molecule 1 is infinite"),
    ],
)
def test_pack_refuses(graphs, target, match):
    with pytest.raises(DataError, match=match):
        pack([featurise(s) for s in graphs], target)
