"""Edges in both orders, sorted by the kernels and by plain torch."""

import pytest
import torch

from core.errors import DtypeError, IndexRangeError, ShapeError
from core.kernels import call
from core.sparse import EdgeOrder
from core.sparse.edges import group_rows


@pytest.fixture(params=["kernels", "torch"], autouse=True)
def route(request, monkeypatch):
    """Every test of this file runs on the compiled kernels and on plain torch."""
    if request.param == "torch":
        monkeypatch.setattr(call, "kernels", lambda: None)
    elif call.kernels() is None:
        pytest.skip("no compiled kernels here: no C++ compiler, or TESSERA_KERNELS=torch")


def test_groups_keep_the_order_of_their_rows():
    ptr, order = group_rows(torch.tensor([2, 0, 2, 2, 0]), 4)
    assert ptr.tolist() == [0, 2, 2, 5, 5]
    assert order.tolist() == [1, 4, 0, 2, 3]
    assert ptr.dtype == order.dtype == torch.int32


def test_an_order_by_hand():
    order = EdgeOrder.from_index(torch.tensor([[0, 2, 1, 2], [1, 1, 0, 2]]), 3, 4)
    assert order.target_ptr.tolist() == [0, 1, 3, 4, 4]
    assert order.edge_t.tolist() == [2, 0, 1, 3]
    assert order.source.tolist() == [1, 0, 2, 2]
    assert order.source_ptr.tolist() == [0, 1, 2, 4]
    assert order.edge_s.tolist() == [0, 2, 1, 3]
    assert order.target.tolist() == [1, 0, 1, 2]
    assert all(map(torch.equal, order.to("cpu").tensors, order.tensors))


def test_clear_errors():
    edge_index = torch.tensor([[0, 3, 1], [1, 1, 0]])
    with pytest.raises(
        IndexRangeError, match=r"EdgeOrder: edge_index\[1\] = 3 but there are 3 row"
    ):
        EdgeOrder.from_index(edge_index, 3, 2)
    with pytest.raises(DtypeError, match=r"EdgeOrder: edge_index must be int64, got int32"):
        EdgeOrder.from_index(edge_index.int(), 4)
    with pytest.raises(ShapeError, match=r"edge_index must have shape \[2, any\], got \[3, 2\]"):
        EdgeOrder.from_index(edge_index.t(), 4)
