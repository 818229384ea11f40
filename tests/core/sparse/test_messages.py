"""Message passing against a loop over edges in float64, on the kernels and on plain torch."""

import itertools

import pytest
import torch
from torch._subclasses import FakeTensorMode

from core.errors import ConfigError, DtypeError, IndexRangeError, ShapeError
from core.kernels.call import kernels
from core.sparse import EdgeOrder, messages, pass_messages

# A float32 sum of n terms, each itself a rounded sum of two, in any order: (n + 1) roundings of
# 2^-24 (Higham 2002, section 4.2), two more for a mean. bf16 adds the rounding of the result.
UNIT_ERROR = {torch.float32: 0.0, torch.bfloat16: 2.0**-8, torch.float64: 0.0}
N_SOURCE, N_TARGET, N_EDGE = 11, 9, 40


@pytest.fixture(params=["kernels", "torch"], autouse=True)
def route(request, monkeypatch):
    """Every test of this file runs on the compiled kernels and on plain torch."""
    if request.param == "torch":
        monkeypatch.setattr(messages, "kernels_for", lambda a, b, dtypes: None)
        monkeypatch.setattr(messages.call, "kernels", lambda: None)
    elif kernels() is None:
        pytest.skip("no compiled kernels here: no C++ compiler, or TESSERA_KERNELS=torch")
    return request.param


def problem(n_feature, dtype=torch.float32, order="unsorted"):
    g = torch.Generator().manual_seed(3)
    edge_index = torch.stack(
        [torch.randint(0, N_SOURCE, (N_EDGE,), generator=g),
         torch.randint(1, N_TARGET - 1, (N_EDGE,), generator=g)]
    )  # fmt: skip
    if order == "sorted":
        edge_index = edge_index[:, edge_index[1].argsort(stable=True)]
    x = torch.randn(N_SOURCE, n_feature, generator=g).to(dtype)
    edge = torch.randn(N_EDGE, n_feature, generator=g).to(dtype)
    dy = torch.randn(N_TARGET, n_feature, generator=g).to(dtype)
    return edge_index, x, edge, dy


def slow(edge_index, x, edge, activation, reduce, dy):
    """The result, the gradients, and the sizes that bound the errors of the three; all float64."""
    x, edge, dy = x.double(), None if edge is None else edge.double(), dy.double()
    y, size = torch.zeros(N_TARGET, x.shape[1]).double(), torch.zeros(N_TARGET, x.shape[1]).double()
    dx, dedge = torch.zeros_like(x), torch.zeros(N_EDGE, x.shape[1]).double()
    for t in range(N_TARGET):
        mine = (edge_index[1] == t).nonzero()[:, 0].tolist()
        if not mine:
            continue
        raw = torch.stack([x[edge_index[0, e]] + (0 if edge is None else edge[e]) for e in mine])
        message = raw.relu() if activation == "relu" else raw
        share = torch.ones_like(raw)
        if reduce == "max":
            y[t] = message.max(0).values
            share = torch.zeros_like(raw).scatter_(0, message.argmax(0)[None], 1.0)
        else:
            y[t] = message.sum(0) / (len(mine) if reduce == "mean" else 1)
            share = share / (len(mine) if reduce == "mean" else 1)
        size[t] = raw.abs().sum(0)
        each = share * dy[t] * ((raw > 0) if activation == "relu" else 1.0)
        for e, row in zip(mine, each, strict=True):
            dedge[e] = row
            dx[edge_index[0, e]] += row
    return (y, dx, dedge), size


@pytest.mark.parametrize("reduce", ["sum", "mean", "max"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_equals_a_loop_over_edges(dtype, reduce):
    # 211 = 128 + 64 + 16 + 3: panels of several widths, and a part of a vector.
    for n_feature, order, with_edge, activation in itertools.product(
        (3, 211), ("sorted", "unsorted"), (False, True), ("identity", "relu")
    ):
        edge_index, x, edge, dy = problem(n_feature, dtype, order)
        edge = edge if with_edge else None
        for leaf in (x, edge):
            _ = leaf is None or leaf.requires_grad_()
        index = EdgeOrder.from_index(edge_index, N_SOURCE, N_TARGET)
        y = pass_messages(x, index, edge, activation=activation, reduce=reduce)
        y.backward(dy)
        want, size = slow(
            edge_index, x.detach(), edge.detach() if with_edge else None, activation, reduce, dy
        )
        got = (y, x.grad, edge.grad) if with_edge else (y, x.grad)
        bound = [N_EDGE * 2.0**-24 * s for s in (size, dy.double().abs().sum(0), dy.abs().max())]
        for a, b, s in zip(got, want, bound, strict=False):
            assert a.dtype == dtype
            assert ((a.double() - b).abs() <= s + UNIT_ERROR[dtype] * b.abs()).all()
        assert y[[0, N_TARGET - 1]].eq(0).all()


@pytest.mark.parametrize("reduce", ["sum", "mean", "max"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_edges_of_few_kinds_equal_edges_with_a_row_each(dtype, reduce):
    g = torch.Generator().manual_seed(5)
    for n_feature, activation in itertools.product((3, 211), ("identity", "relu")):
        edge_index, x, table, dy = problem(n_feature, dtype)
        table = table[:6].clone().requires_grad_()
        kind = torch.randint(0, 6, (N_EDGE,), dtype=torch.int32, generator=g)
        index = EdgeOrder.from_index(edge_index, N_SOURCE, N_TARGET)
        how = {"activation": activation, "reduce": reduce}
        y = pass_messages(x, index, table, kind=kind, **how)
        (got,) = torch.autograd.grad(y, table, dy)
        rows = table.detach().index_select(0, kind).requires_grad_()
        want = pass_messages(x, index, rows, **how)
        (each,) = torch.autograd.grad(want, rows, dy)
        assert torch.equal(y, want)
        # Sums of up to 40 gradients of edges; those of bf16 rows are rounded before they are added.
        wide = torch.zeros(6, n_feature).double()
        size = wide.index_add(0, kind, each.double().abs())
        bound = (N_EDGE * 2.0**-24 + 2 * UNIT_ERROR[dtype]) * size
        assert ((got.double() - wide.index_add(0, kind, each.double())).abs() <= bound).all()


def test_no_edges_no_rows_and_non_contiguous_rows():
    none = EdgeOrder.from_index(torch.zeros(2, 0).long(), 3)
    assert torch.equal(pass_messages(torch.ones(3, 2), none, reduce="max"), torch.zeros(3, 2))
    empty = EdgeOrder.from_index(torch.zeros(2, 0).long(), 0)
    assert pass_messages(torch.ones(0, 2), empty).shape == (0, 2)
    edge_index, x, edge, _ = problem(24)
    index = EdgeOrder.from_index(edge_index, N_SOURCE, N_TARGET)
    turned = x.t().contiguous().t()
    assert torch.equal(pass_messages(turned, index, edge), pass_messages(x, index, edge))


@pytest.mark.parametrize("reduce", ["sum", "mean", "max"])
def test_nan_and_inf_spread_as_in_a_loop(reduce):
    index = EdgeOrder.from_index(torch.tensor([[0, 1, 2], [0, 0, 1]]), 3)
    x = torch.tensor([[torch.nan, torch.inf], [1.0, 2.0], [3.0, -torch.inf]])
    y = pass_messages(x, index, reduce=reduce)
    assert y[0, 0].isnan()
    assert y[:2, 1].tolist() == [torch.inf, -torch.inf]
    assert pass_messages(x, index, activation="relu", reduce=reduce)[0, 0].isnan()


@pytest.mark.parametrize("reduce", ["sum", "mean", "max"])
def test_gradcheck_first_and_second_order(reduce):
    edge_index, x, edge, _ = problem(3, torch.float64)
    index = EdgeOrder.from_index(edge_index, N_SOURCE, N_TARGET)

    def call(x, edge, kind=None):
        return pass_messages(x, index, edge, kind=kind, activation="relu", reduce=reduce)

    kind = torch.arange(N_EDGE, dtype=torch.int32) % 5
    for operands in ((x, edge), (x, edge[:5].clone())):
        leaves = [t.detach().requires_grad_() for t in operands]
        how = {} if len(operands[1]) == N_EDGE else {"kind": kind}
        assert torch.autograd.gradcheck(lambda *a, how=how: call(*a, **how), leaves)
        assert torch.autograd.gradgradcheck(lambda *a, how=how: call(*a, **how).square(), leaves)


def test_ops_keep_the_promises_torch_compile_needs():
    edge_index, x, edge, dy = problem(5)
    index = EdgeOrder.from_index(edge_index, N_SOURCE, N_TARGET)
    ops = torch.ops.core
    cases = [(ops.group_rows, (edge_index[0], N_SOURCE))]
    for reduce in ("mean", "max"):
        arguments = (
            x.requires_grad_(),
            edge.requires_grad_(),
            None,
            *index.tensors,
            True,
            reduce,
            False,
        )
        cases.append((ops.pass_messages, arguments))
        winner = ops.pass_messages(*arguments)[1]
        where = index.target_ptr, index.source_ptr, index.target, index.edge_s
        operands = dy, x.detach(), edge.detach(), None, winner
        cases.append((ops.pass_messages_backward, (*operands, *where, True, reduce, False, N_EDGE)))
    for op, arguments in cases:
        result = torch.library.opcheck(op.default, arguments)
        assert set(result.values()) == {"SUCCESS"}


def test_shapes_alone_suffice_under_fake_tensors():
    with FakeTensorMode():
        index = EdgeOrder.from_index(torch.zeros(2, 40).long(), 11, 9)
        x = torch.zeros(11, 6, requires_grad=True)
        edge = torch.zeros(40, 6, requires_grad=True)
        y = pass_messages(x, index, edge, activation="relu", reduce="max")
        y.sum().backward()
    assert y.shape == (9, 6)
    assert x.grad.shape == x.shape
    assert edge.grad.shape == edge.shape


def test_threads_do_not_change_a_bit():
    g = torch.Generator().manual_seed(4)
    edge_index = torch.randint(0, 700, (2, 3000), generator=g)
    x, edge, dy = (torch.randn(n, 70, generator=g) for n in (700, 3000, 700))
    index = EdgeOrder.from_index(edge_index, 700)
    before, results = torch.get_num_threads(), []
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            leaves = x.clone().requires_grad_(), edge.clone().requires_grad_()
            y = pass_messages(leaves[0], index, leaves[1], activation="relu")
            results.append((y.detach(), *torch.autograd.grad(y, leaves, dy)))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert torch.equal(a, b)


def test_clear_errors():
    edge_index, x, edge, _ = problem(4)
    index = EdgeOrder.from_index(edge_index, N_SOURCE, N_TARGET)
    with pytest.raises(ShapeError, match=r"x must have shape \[11, any\], got \[10, 4\]; give one"):
        pass_messages(x[1:], index)
    with pytest.raises(ShapeError, match=r"edge must have shape \[40, 4\], got \[40, 3\]"):
        pass_messages(x, index, edge[:, 1:])
    with pytest.raises(DtypeError, match=r"x is torch.float32 but edge is torch.bfloat16; convert"):
        pass_messages(x, index, edge.bfloat16())
    with pytest.raises(ConfigError, match=r"activation must be .* got 'gelu' and 'sum'"):
        pass_messages(x, index, activation="gelu")
    kind = torch.full((N_EDGE,), 6, dtype=torch.int32)
    with pytest.raises(DtypeError, match=r"pass_messages: kind must be int32, got int64; convert"):
        pass_messages(x, index, edge, kind=kind.long())
    with pytest.raises(ConfigError, match=r"kind needs edge, the table of which it names the rows"):
        pass_messages(x, index, kind=kind)
    with pytest.raises(IndexError):
        pass_messages(x, index, edge[:6], kind=kind)
    broken = (index.target_ptr, index.source[1:], *index.tensors[2:])
    with pytest.raises(IndexRangeError, match=r"index tensors differ in length; pass those of one"):
        torch.ops.core.pass_messages(x, None, None, *broken, False, "sum", False)
    spread = (index.target_ptr, index.source[:1].expand(N_EDGE), *index.tensors[2:])
    with pytest.raises(ShapeError, match=r"index tensors must be contiguous with one axis"):
        torch.ops.core.pass_messages(x, None, None, *spread, False, "sum", False)
    with pytest.raises(ShapeError, match=r"edge must have shape \[40, 4\], got \[39, 4\]"):
        torch.ops.core.pass_messages(x, edge[1:], None, *index.tensors, False, "sum", False)


def test_the_gradient_op_reads_and_writes_nothing_beyond_its_operands():
    edge_index, x, edge, _ = problem(4)
    order = EdgeOrder.from_index(edge_index, N_SOURCE, N_TARGET)
    index = order.target_ptr, order.source_ptr, order.target, order.edge_s
    g, none, back = torch.ones(N_TARGET, 4), order.source[:0], torch.ops.core.pass_messages_backward
    with pytest.raises(ShapeError, match=r"g must have shape \[9, any\], got \[8, 4\]"):
        back(g[1:], None, None, None, none, *index, False, "sum", False, 0)
    with pytest.raises(ShapeError, match=r"g must have shape \[9, 4\], got \[9, 3\]"):
        back(g[:, 1:], x, edge, None, none, *index, True, "sum", False, 0)
    with pytest.raises(ConfigError, match=r"the gradient of relu needs the x of the forward pass"):
        back(g, None, None, None, none, *index, True, "sum", False, 0)
    with pytest.raises(ShapeError, match=r"winner must have shape \[9, 4\], got \[0\]"):
        back(g, None, None, None, none, *index, False, "max", False, 0)
    with pytest.raises(ShapeError, match=r"n_edge_row must be 0 or 40, the number of edges, got 6"):
        back(g, None, None, None, none, *index, False, "sum", False, 6)
    with pytest.raises(ShapeError, match=r"kind must have shape \[40\], got \[39\]"):
        back(g, None, None, none.new_zeros(39), none, *index, False, "sum", False, 6)


def test_bad_indices_are_errors_not_crashes(route):
    if route == "torch":
        pytest.skip("torch has errors of its own")
    edge_index, x, _, _ = problem(4)
    ptr, source, *rest = EdgeOrder.from_index(edge_index, N_SOURCE, N_TARGET).tensors
    with pytest.raises(IndexRangeError, match=r"core::pass_messages: .* index points outside"):
        torch.ops.core.pass_messages(x, None, None, ptr, source + 9, *rest, False, "sum", False)
    with pytest.raises(ValueError, match=r"core::pass_messages: .* do not ascend from 0"):
        torch.ops.core.pass_messages(x, None, None, ptr.flip(0), source, *rest, False, "sum", False)


@pytest.mark.parametrize("activation", ["identity", "relu"])
@pytest.mark.parametrize("n_feature", [16, 32, 48, 112, 304, 5])
def test_own_row_begins_the_sum(n_feature, activation):
    g = torch.Generator().manual_seed(5)
    order = EdgeOrder.from_index(torch.randint(0, 12, (2, 30), generator=g), 12)
    x, edge, dy = (
        torch.randn(n, n_feature, generator=g, dtype=torch.float64) for n in (12, 30, 12)
    )
    results = []
    for own, dtype in ((True, torch.float32), (False, torch.float64)):
        leaves = [t.to(dtype).requires_grad_() for t in (x, edge)]
        y = pass_messages(leaves[0], order, leaves[1], activation=activation, own=own)
        y = y if own else y + leaves[0]
        results.append([y, *torch.autograd.grad(y, leaves, dy.to(dtype))])
    for mine, exact in zip(*results, strict=True):
        torch.testing.assert_close(mine.double(), exact, rtol=1e-5, atol=1e-5)


def test_own_row_needs_sums_between_the_same_rows():
    index = torch.tensor([[0, 1], [1, 0]])
    x = torch.ones(2, 3)
    with pytest.raises(ConfigError, match="own needs sums"):
        pass_messages(x, EdgeOrder.from_index(index, 2), own=True, reduce="max")
    wide = EdgeOrder.from_index(index, 2, 4)
    with pytest.raises(ConfigError, match="2 sources and 4 targets"):
        pass_messages(x, wide, own=True)
    with pytest.raises(IndexRangeError, match="as many rows"):
        torch.ops.core.pass_messages(x, None, None, *wide.tensors, False, "sum", True)
