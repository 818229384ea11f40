"""Segment sums against a Python loop."""

import pytest
import torch

from core.errors import DtypeError, IndexRangeError, ShapeError
from core.kernels.call import kernels
from core.sparse import segment, segment_sum

# A sum of n float32 terms in any order: |error| <= n * 2^-24 * sum |x| (Higham 2002, section 4.2).
UNIT_ERROR = 2.0**-24


@pytest.fixture(params=["kernels", "torch"], autouse=True)
def route(request, monkeypatch):
    """Every test of this file runs on the compiled kernels and on plain torch."""
    if request.param == "torch":
        monkeypatch.setattr(segment, "kernels_for", lambda a, b: None)
    elif kernels() is None:
        pytest.skip("no compiled kernels here: no C++ compiler, or TESSERA_KERNELS=torch")


@pytest.mark.parametrize("order", ["sorted", "unsorted"])
@pytest.mark.parametrize("n_feature", [1, 16, 37, 300])
def test_equals_a_loop_also_with_empty_segments(order, n_feature):
    g = torch.Generator().manual_seed(1)
    index = torch.randint(1, 20, (200,), generator=g)
    index[index == 7] = 8
    if order == "sorted":
        index = index.sort().values
    x = torch.randn(200, n_feature, generator=g)
    got = segment_sum(x, index, 23)
    for s in range(23):
        mine = x[index == s].double()
        bound = mine.shape[0] * UNIT_ERROR * mine.abs().sum(0)
        assert ((got[s].double() - mine.sum(0)).abs() <= bound).all()
    assert got[[0, 7, 20, 21, 22]].eq(0).all()


@pytest.mark.parametrize("n_segment", [1, 3, 400])
def test_threads_change_no_bit(n_segment):
    g = torch.Generator().manual_seed(3)
    index = torch.randint(0, n_segment, (1000,), generator=g).sort().values
    x = torch.randn(1000, 40, generator=g)
    before = torch.get_num_threads()
    try:
        results = []
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            results.append(segment_sum(x, index, n_segment))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(results[0], r) for r in results[1:])


def test_no_rows_and_non_contiguous_rows():
    assert torch.equal(segment_sum(torch.zeros(0, 3), torch.zeros(0).long(), 2), torch.zeros(2, 3))
    x = torch.arange(24.0).view(3, 8).t()
    index = torch.tensor([0, 0, 1, 1, 0, 0, 1, 1, 9, 9])[:8]
    assert torch.equal(segment_sum(x, index, 2), segment_sum(x.contiguous(), index, 2))


def test_gradcheck_first_and_second_order():
    x = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    index = torch.tensor([2, 0, 2, 2, 1, 0])
    operand = (x.requires_grad_(),)
    assert torch.autograd.gradcheck(lambda x: segment_sum(x, index, 4), operand)
    assert torch.autograd.gradgradcheck(lambda x: segment_sum(x, index, 4).square(), operand)


def test_op_keeps_the_promises_torch_compile_needs():
    x = torch.randn(6, 3, requires_grad=True)
    args = (x, torch.tensor([2, 0, 2, 2, 1, 0]), 4)
    result = torch.library.opcheck(torch.ops.core.segment_sum.default, args)
    assert set(result.values()) == {"SUCCESS"}


def test_clear_errors():
    x, index = torch.zeros(3, 2), torch.tensor([0, 1, 5])
    with pytest.raises(IndexRangeError, match=r"index\[2\] = 5 but there are 4 segments"):
        segment_sum(x, index, 4)
    with pytest.raises(IndexRangeError, match=r"index\[0\] = -1 but there are 4 segments"):
        segment_sum(x, index - 1, 4)
    with pytest.raises(DtypeError, match=r"index must be int64, got int32; convert it"):
        segment_sum(x, index.int(), 6)
    with pytest.raises(ShapeError, match=r"index must have shape \[3\], got \[2\]"):
        segment_sum(x, index[:2], 6)
    with pytest.raises(ShapeError, match=r"x must have shape \[any, any\], got \[3\]"):
        segment_sum(x[:, 0], index, 6)
