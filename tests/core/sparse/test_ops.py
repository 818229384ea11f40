"""Block-sparse products against the masked dense product in float64."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch._subclasses import FakeTensorMode

from core.errors import DtypeError, PatternError, ShapeError
from core.kernels.call import kernels
from core.sparse import BlockPattern, matmul, ops
from core.sparse.pattern import transposed_order

BLOCKS = [(1, 1), (4, 4), (8, 8), (16, 16), (2, 3), (16, 1), (1, 8)]
# Componentwise |error| <= UNIT_ERROR[dtype] * (k + 2) * (|a| |b|), k the reduction length: holds
# for any order of summation (Higham 2002, section 3.1), with room for the final rounding.
UNIT_ERROR = {
    torch.float32: 2.0**-24,
    torch.float64: 2.0**-53,
    torch.bfloat16: 2.0**-8,
    torch.float16: 2.0**-11,
}


@pytest.fixture(params=["kernels", "torch"], autouse=True)
def route(request, monkeypatch):
    """Every test of this file runs on the compiled kernels and on plain torch."""
    if request.param == "torch":
        monkeypatch.setattr(ops, "kernels_for", lambda *operands: None)
    elif kernels() is not None:
        monkeypatch.setattr(ops, "dense_from", lambda *of: 2.0)  # the kernels at any density
    else:
        pytest.skip("no compiled kernels here: no C++ compiler, or TESSERA_KERNELS=torch")


def reference_dense(values, pattern):
    """S written out block by block in a Python loop, in float64."""
    rows, cols = pattern.shape
    br, bc = pattern.block
    dense = torch.zeros(rows, cols, dtype=torch.float64)
    places = zip(pattern.row_index.tolist(), pattern.col_index.tolist(), strict=True)
    for k, (i, j) in enumerate(places):
        part = dense[i * br : (i + 1) * br, j * bc : (j + 1) * bc]
        part += values[k, : part.shape[0], : part.shape[1]].double()
    return dense


def assert_product(got, a, b, dtype, mask=1):
    """`got` is mask * (a @ b) within the error bound of `dtype`."""
    a, b = a.detach().double(), b.detach().double()
    bound = UNIT_ERROR[dtype] * (a.shape[1] + 2) * (a.abs() @ b.abs())
    error = (got.detach().double() - mask * (a @ b)).abs()
    assert got.shape == bound.shape
    assert (error <= bound * mask).all(), f"{(error - bound).max():.3e} over the bound"


def patterns(rows, cols, block, generator):
    last = torch.tensor([-(-rows // block[0]) - 1]), torch.tensor([-(-cols // block[1]) - 1])
    none = torch.zeros(0, dtype=torch.int64)
    yield BlockPattern.random((rows, cols), block, 0.4, generator)
    yield BlockPattern.random((rows, cols), block, 0.05, generator)
    yield BlockPattern.dense((rows, cols), block)
    yield BlockPattern.from_index((rows, cols), block, *last)
    yield BlockPattern.from_index((rows, cols), block, none, none)


@pytest.mark.parametrize("dtype", UNIT_ERROR, ids=str)
@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_the_three_products_equal_masked_dense(block, dtype):
    g = torch.Generator().manual_seed(1)
    for rows, cols, batch in [(32, 48, 3), (37, 53, 70), (37, 53, 0), (5, 7, 1)]:
        for pattern in patterns(rows, cols, block, g):
            values = torch.randn(pattern.n_block, *block, generator=g).to(dtype).requires_grad_()
            x = torch.randn(batch, cols, generator=g).to(dtype).requires_grad_()
            dy = torch.randn(batch, rows, generator=g).to(dtype)
            dense = reference_dense(values.detach(), pattern)
            y = matmul(x, values, pattern)
            y.backward(dy)
            assert y.dtype == x.grad.dtype == values.grad.dtype == dtype
            assert_product(y, x, dense.t(), dtype)
            assert_product(x.grad, dy, dense, dtype)
            gradient = reference_dense(values.grad, pattern)
            assert_product(gradient, dy.t(), x, dtype, mask=pattern.mask())


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.data())
def test_any_pattern_in_any_order_of_its_blocks(data):
    """Empty rows and columns, full patterns, strided inputs, batches around the edges of tiles."""
    rows, cols = data.draw(st.tuples(st.integers(1, 90), st.integers(1, 90)), "shape")
    block = data.draw(st.tuples(*[st.sampled_from([1, 2, 3, 4, 8, 12, 16, 32])] * 2), "block")
    dtype = data.draw(st.sampled_from([torch.float32, torch.bfloat16]), "dtype")
    batch = data.draw(st.sampled_from([0, 1, 15, 16, 17, 63, 64, 65, 129]), "batch")
    n_row, n_col = -(-rows // block[0]), -(-cols // block[1])
    places = st.tuples(st.integers(0, n_row - 1), st.integers(0, n_col - 1))
    blocks = data.draw(st.lists(places, unique=True, max_size=60), "blocks")
    where = torch.tensor(blocks, dtype=torch.int64).view(-1, 2)
    pattern = BlockPattern.from_index((rows, cols), block, where[:, 0], where[:, 1])
    g = torch.Generator().manual_seed(data.draw(st.integers(0, 99), "seed"))
    values = torch.randn(pattern.n_block, *block, generator=g).to(dtype).requires_grad_()
    x = torch.randn(batch, 2 * cols, generator=g).to(dtype)[:, ::2].requires_grad_()
    dy = torch.randn(rows, batch, generator=g).to(dtype).t()
    y = matmul(x, values, pattern)
    gx, gv = torch.autograd.grad(y, (x, values), dy)
    dense = reference_dense(values.detach(), pattern)
    assert_product(y, x, dense.t(), dtype)
    assert_product(gx, dy, dense, dtype)
    assert_product(reference_dense(gv, pattern), dy.t(), x, dtype, mask=pattern.mask())


def test_entries_over_a_ragged_edge_neither_count_nor_learn():
    pattern = BlockPattern.dense((5, 7), (4, 4))
    values = torch.full((4, 4, 4), torch.nan)
    inside = torch.zeros(8, 8, dtype=torch.bool)
    inside[:5, :7] = True
    inside = inside.view(2, 4, 2, 4).transpose(1, 2).reshape(4, 4, 4)
    values[inside] = 1.0
    values.nan_to_num_(1e30).requires_grad_()
    x = torch.ones(3, 7)
    y = matmul(x, values, pattern)
    y.sum().backward()
    assert torch.equal(y, torch.full((3, 5), 7.0))
    assert torch.equal(values.grad, inside * 3.0)


def test_leading_axes_and_strides_do_not_matter():
    g = torch.Generator().manual_seed(2)
    pattern = BlockPattern.random((12, 20), (4, 4), 0.5, g)
    values = torch.randn(pattern.n_block, 4, 4, generator=g)
    x = torch.randn(20, 3, 8, generator=g)
    got = matmul(x.permute(2, 1, 0)[::2], values, pattern)
    assert got.shape == (4, 3, 12)
    contiguous = x.permute(2, 1, 0)[::2].contiguous().view(-1, 20)
    assert torch.equal(got.reshape(-1, 12), matmul(contiguous, values, pattern))
    strided = torch.randn(pattern.n_block, 4, 8, generator=g)[:, :, ::2]
    want = matmul(contiguous, strided.contiguous(), pattern)
    assert torch.equal(matmul(contiguous, strided, pattern), want)


@pytest.mark.parametrize("special", [torch.nan, torch.inf])
def test_nan_and_inf_pass_as_in_a_dense_product(special):
    pattern = BlockPattern.from_index((4, 4), (2, 2), torch.tensor([0, 1]), torch.tensor([0, 1]))
    x = torch.ones(2, 4)
    x[0, 1] = special
    y = matmul(x, torch.ones(2, 2, 2), pattern)
    assert not y[0, :2].isfinite().any()
    assert torch.equal(y[1], torch.full((4,), 2.0))


@pytest.mark.parametrize("block", [(1, 1), (4, 4), (3, 2)], ids=str)
@pytest.mark.parametrize("density", [0.05, 0.5])
def test_gradcheck_first_and_second_order(block, density):
    g = torch.Generator().manual_seed(3)
    pattern = BlockPattern.random((9, 10), block, density, g)
    values = torch.randn(pattern.n_block, *block, generator=g, dtype=torch.float64)
    x = torch.randn(3, 10, generator=g, dtype=torch.float64)
    operands = (x.requires_grad_(), values.requires_grad_())
    assert torch.autograd.gradcheck(lambda x, v: matmul(x, v, pattern), operands)
    assert torch.autograd.gradgradcheck(lambda x, v: matmul(x, v, pattern), operands)


def op_calls(requires_grad):
    g = torch.Generator().manual_seed(4)
    p = BlockPattern.random((9, 10), (4, 4), 0.5, g)
    x = torch.randn(3, 10, generator=g, requires_grad=requires_grad)
    dy = torch.randn(3, 9, generator=g, requires_grad=requires_grad)
    v = torch.randn(p.n_block, 4, 4, generator=g, requires_grad=requires_grad)
    named = torch.ops.core
    return [
        (named.spmm.default, (x, v, p.row_ptr, p.col_index, p.row_index, 9)),
        (named.spmm_t.default, (dy, v, p.col_ptr, p.row_index_t, p.order_t, 10)),
        (named.sddmm.default, (dy, x, p.row_index, p.col_index, 4, 4)),
        (
            named.spmm_backward.default,
            (dy, x, v, p.row_index, p.col_index, p.col_ptr, p.row_index_t, p.order_t),
        ),
    ]


@pytest.mark.parametrize("i", range(4))
def test_ops_keep_the_promises_torch_compile_needs(i):
    op, args = op_calls(requires_grad=True)[i]
    result = torch.library.opcheck(op, args)
    assert set(result.values()) == {"SUCCESS"}


@pytest.mark.parametrize("i", range(4))
def test_each_op_alone_has_the_right_gradient(i):
    op, args = op_calls(requires_grad=False)[i]
    n = 3 if i == 3 else 2
    operands = tuple(a.double().requires_grad_() for a in args[:n])
    assert torch.autograd.gradcheck(lambda *a: op(*a, *args[n:]), operands)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own
def test_compiled_layer_gives_the_same():
    g = torch.Generator().manual_seed(5)
    pattern = BlockPattern.random((16, 24), (8, 8), 0.5, g)
    values = torch.randn(pattern.n_block, 8, 8, generator=g, requires_grad=True)
    x = torch.randn(6, 24, generator=g)
    compiled = torch.compile(matmul, backend="aot_eager", fullgraph=True)
    y = compiled(x, values, pattern)
    y.square().sum().backward()
    got, values.grad = values.grad, None
    want = matmul(x, values, pattern)
    want.square().sum().backward()
    assert torch.equal(y, want)
    assert torch.equal(got, values.grad)


def test_shapes_alone_suffice_under_fake_tensors():
    g = torch.Generator().manual_seed(6)
    pattern = BlockPattern.random((37, 53), (4, 8), 0.5, g)
    with FakeTensorMode(allow_non_fake_inputs=True):
        x = torch.empty(5, 2, 53, requires_grad=True)
        values = torch.empty(pattern.n_block, 4, 8, requires_grad=True)
        y = matmul(x, values, pattern)
        y.sum().backward()
    assert y.shape == (5, 2, 37)
    assert x.grad.shape == x.shape
    assert values.grad.shape == values.shape


def test_transposed_order_sorts_by_column_then_row():
    p = BlockPattern.from_index(
        (3, 2), (1, 1), torch.tensor([0, 0, 2, 1]), torch.tensor([1, 0, 0, 1])
    )
    assert p.row_index.tolist() == [0, 0, 1, 2]
    assert p.col_index.tolist() == [0, 1, 1, 0]
    col_ptr, row_index_t, order_t = transposed_order(p.row_index, p.col_index, 2)
    assert col_ptr.tolist() == [0, 2, 4]
    assert row_index_t.tolist() == [0, 2, 0, 1]
    assert order_t.tolist() == [0, 3, 1, 2]


def test_clear_errors():
    g = torch.Generator().manual_seed(7)
    p = BlockPattern.random((8, 12), (4, 4), 0.5, g)
    v = torch.zeros(p.n_block, 4, 4)
    with pytest.raises(ShapeError, match=r"x must have 12 features .* got 8; did you pass it tr"):
        matmul(torch.zeros(3, 8), v, p)
    with pytest.raises(PatternError, match=r"values must have shape \[3, 4, 4\].*got \[2, 4, 4\]"):
        matmul(torch.zeros(3, 12), v[:2], p)
    with pytest.raises(DtypeError, match=r"x is torch.float64 but values are torch.float32"):
        matmul(torch.zeros(3, 12).double(), v, p)
    index = p.row_ptr, p.col_index, p.row_index
    with pytest.raises(ShapeError, match=r"x must be \[batch, features\] and values"):
        torch.ops.core.spmm(torch.zeros(12), v, *index, 8)
    with pytest.raises(PatternError, match=r"rows = 9 .* do not fit a pattern of 2 block rows"):
        torch.ops.core.spmm(torch.zeros(3, 12), v, *index, 9)
    with pytest.raises(PatternError, match=r"and 2 live blocks; pass the tensors of one"):
        torch.ops.core.spmm(torch.zeros(3, 12), v, p.row_ptr, p.col_index[:2], p.row_index, 8)
    with pytest.raises(ShapeError, match=r"dy must have shape \[3, any\], got \[4, 8\]"):
        torch.ops.core.sddmm(torch.zeros(4, 8), torch.zeros(3, 12), p.row_index, p.col_index, 4, 4)
    with pytest.raises(DtypeError, match=r"pattern tensors must be int32 on cpu, got torch.int64"):
        torch.ops.core.spmm(torch.zeros(3, 12), v, p.row_ptr.long(), p.col_index, p.row_index, 8)
    one = p.col_index[:1].expand(p.n_block)  # a single number in memory
    with pytest.raises(ShapeError, match=r"must be contiguous with one axis, got \[3\]"):
        torch.ops.core.spmm(torch.zeros(3, 12), v, p.row_ptr, one, p.row_index, 8)
    with pytest.raises(ShapeError, match=r"core::sddmm: pattern tensors must be contiguous"):
        torch.ops.core.sddmm(torch.zeros(3, 8), torch.zeros(3, 12), one, p.col_index, 4, 4)
    with pytest.raises(ShapeError, match=r"col_index must have shape \[3\], got \[2\]"):
        torch.ops.core.sddmm(
            torch.zeros(3, 8), torch.zeros(3, 12), p.row_index, p.col_index[:2], 4, 4
        )


def test_clear_errors_of_places_and_lengths():
    g = torch.Generator().manual_seed(7)
    p = BlockPattern.random((8, 12), (4, 4), 0.5, g)
    v, x, dy = torch.zeros(p.n_block, 4, 4), torch.zeros(3, 12), torch.zeros(3, 8)
    away = x.to("meta")
    with pytest.raises(ShapeError, match=r"x must have 12 features .* got a scalar"):
        matmul(torch.tensor(1.0), v, p)
    with pytest.raises(DtypeError, match=r"bias is on meta but x on cpu; move one of them"):
        matmul(x, v, p, torch.zeros(8, device="meta"))
    with pytest.raises(DtypeError, match=r"sparse matmul: x is on cpu but values on meta"):
        matmul(x, v.to("meta"), p)
    with pytest.raises(DtypeError, match=r"x is torch.float64 but values are torch.float32"):
        matmul(x.double(), v, p, torch.zeros(8))
    with pytest.raises(DtypeError, match=r"x must be dense, got torch.sparse_coo; convert it"):
        matmul(x.to_sparse(), v, p)
    ops, index_t = torch.ops.core, (p.col_ptr, p.row_index_t, p.order_t)
    index = p.row_ptr, p.col_index, p.row_index
    back = p.row_index, p.col_index, *index_t
    with pytest.raises(DtypeError, match=r"core::spmm: x is on cpu but the pattern on meta"):
        ops.spmm(x, v, p.row_ptr, p.col_index.to("meta"), p.row_index, 8)
    with pytest.raises(DtypeError, match=r"core::spmm: x is on meta but values on cpu"):
        ops.spmm(away, v, *index, 8)
    with pytest.raises(DtypeError, match=r"core::sddmm: dy is on cpu but x on meta"):
        ops.sddmm(dy, away, p.row_index, p.col_index, 4, 4)
    with pytest.raises(DtypeError, match=r"core::spmm_backward: x is on meta but another"):
        ops.spmm_backward(dy, away, v, *back)
    with pytest.raises(PatternError, match=r"at least one row and column, got 0 x 4"):
        ops.sddmm(dy, x, p.row_index, p.col_index, 0, 4)
    with pytest.raises(ShapeError, match=r"spmm_t: order_t must have shape \[3\], got \[2\]"):
        ops.spmm_t(dy, v, p.col_ptr, p.row_index_t, p.order_t[:2], 12)
    with pytest.raises(ShapeError, match=r"col_index must have shape \[3\], got"):
        ops.spmm_backward(dy, x, v, p.row_index, p.col_index[:2], *index_t)
