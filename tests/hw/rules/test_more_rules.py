"""The rarer ops, backward passes and optimizers -> exactly the items that they should give."""

import pytest
import torch
import torch.nn.functional as F

from hw.program import Op, TensorInfo
from hw.rules import tasks_of
from hw.rules.contraction import product
from hw.rules.registry import find_rule
from hw.trace import trace
from hw.work import (
    Fourier,
    Gather,
    HostRead,
    Move,
    Pointwise,
    Reduction,
    Scatter,
    Softmax,
    SparseContraction,
)
from tests.hw.rules.asked import (
    COMPLEX,
    ROW,
    W,
    X,
    arithmetic,
    contraction,
    items,
    reduction,
    special,
)

V = torch.ones(4)
IMAGE = torch.ones(2, 4, 6, 6)
MATRIX, BATCH, COLUMN = torch.ones(6, 8), torch.ones(2, 3, 8), torch.ones(6)
KERNEL, UPWARD, SHIFT = torch.ones(5, 4, 3, 3), torch.ones(4, 5, 2, 2), torch.ones(5)
SPARE = torch.zeros(6, 4)  # to write in
HALF = torch.empty(6, 4, dtype=torch.float16)
LABEL = torch.tensor([1, 0, 3, 3, 2, 1])


CASES = {
    # --- products
    "outer": (lambda: torch.outer(V, V), [arithmetic(16, 2)]),
    "rank one added": (lambda: torch.addr(X, X[:, 0], V), [arithmetic(24, 3, 2)]),
    "matrix and vector": (lambda: torch.mv(X, V), [contraction(1, 6, 4, 1)]),
    "dot": (lambda: torch.dot(V, V), [contraction(1, 1, 4, 1)]),
    "product and bias": (
        lambda: torch.addmm(W[0], X, W),
        [contraction(1, 6, 4, 8), Pointwise(48, "arithmetic", "fp32", "fp32", 2, 1, is_bias=True)],
    ),
    "product and a whole matrix": (
        lambda: torch.addmm(MATRIX, X, W),
        [contraction(1, 6, 4, 8), arithmetic(48, 2)],
    ),
    "product without what is added": (
        lambda: torch.addmm(W[0], X, W, beta=0), [contraction(1, 6, 4, 8)],
    ),
    "vector product and bias": (
        lambda: torch.addmv(COLUMN, X, V), [contraction(1, 6, 4, 1), arithmetic(6, 2)],
    ),
    "batch and bias": (
        lambda: torch.baddbmm(BATCH, X.view(2, 3, 4), W.expand(2, 4, 8)),
        [contraction(2, 3, 4, 8), arithmetic(48, 2)],
    ),
    "complex product": (lambda: COMPLEX @ COMPLEX.t(), [contraction(1, 3, 16, 6)]),
    "product of nothing": (lambda: X[:0] @ W, []),
    # four images of 3 x 6 x 6; a window of 3 x 3 over positions 4 x 4
    "convolution and bias": (
        lambda: F.conv2d(IMAGE, KERNEL, SHIFT),
        [contraction(1, 5, 36, 32, n_group=1, window=36 * 32 / 288), arithmetic(160, 2)],
    ),
    "transposed convolution": (
        lambda: F.conv_transpose2d(IMAGE, UPWARD, stride=2),
        [contraction(1, 4, 20, 72, n_group=1, window=1.0)],
    ),
    # --- reductions
    "least of all": (lambda: X.min(), [reduction(1, 24)]),
    "least along": (lambda: X.min(1), [reduction(6, 4)]),
    "least of two": (lambda: torch.min(X, X), [arithmetic(24, 2)]),
    "median": (lambda: X.median(1), [reduction(6, 4)]),
    "both extremes": (lambda: X.aminmax(dim=1), [reduction(6, 4)]),
    "norm": (lambda: torch.linalg.vector_norm(X, dim=0), [reduction(4, 6)]),
    "any": (lambda: (X > 3).any(1), [
        arithmetic(24, out="bool"), Reduction(6, 4, "bool", "bool")]),
    "where greatest": (lambda: X.argmax(1), [reduction(6, 4, "int64")]),
    "sum of one entry": (lambda: X[0, 0].sum(), []),
    "deviation": (lambda: X.std(1), [reduction(6, 4), arithmetic(24, 1, 2), reduction(6, 4)]),
    "variance and mean": (
        lambda: torch.var_mean(X, 0), [reduction(4, 6), arithmetic(24, 1, 2), reduction(4, 6)],
    ),
    "log of a sum": (
        lambda: torch.logsumexp(X, 1), [reduction(6, 4), special(24), reduction(6, 4)],
    ),
    "squared loss": (lambda: F.mse_loss(X, X + 0), [
        arithmetic(24), arithmetic(24, 2, 2), reduction(1, 24)]),
    "absolute loss": (lambda: F.l1_loss(X, X), [
        arithmetic(24, 2), arithmetic(24), reduction(1, 24)]),
    "unreduced loss": (lambda: F.mse_loss(X, X, reduction="none"), [arithmetic(24, 2, 2)]),
    "entropy": (
        lambda: F.binary_cross_entropy(torch.full((6,), 0.5), torch.ones(6)),
        [Move(24, "fill"), Move(24, "fill"), special(6, 2, 2), reduction(1, 6)],
    ),
    "likelihood": (lambda: F.nll_loss(X, LABEL), [arithmetic(6, 2)]),
    "sort a short side": (lambda: W.sort(0), [arithmetic(32, 1, 3)]),
    "largest few": (lambda: W.topk(2), [arithmetic(32, 1, 6)]),
    "equal": (lambda: torch.equal(X, X + 1), [arithmetic(24), HostRead(1)]),
    "unique": (lambda: torch.unique(LABEL), [
        Pointwise(6, "arithmetic", "int64", "int64", 1, 2), HostRead(8)]),
    "selected": (lambda: torch.masked_select(X, X > 3), [
        arithmetic(24, out="bool"), arithmetic(24, 1, 2), HostRead(8)]),
    # --- look-ups
    "rows of the last axis": (
        lambda: IMAGE.index_select(3, ROW), [Gather(2 * 4 * 6 * 3, 1, 288, "fp32")],
    ),
    "rows of the second axis": (
        lambda: IMAGE.index_select(1, torch.tensor([0, 3])), [Gather(4, 36, 8, "fp32")],
    ),
    "rows of a vector": (
        lambda: V.index_select(0, torch.tensor([3, 0])), [Gather(2, 1, 4, "fp32")],
    ),
    "entries by place": (lambda: X.take(ROW), [Gather(3, 1, 24, "fp32")]),
    "entries by two indices": (
        lambda: X[ROW, torch.tensor([0, 1, 2])], [Gather(3, 1, 24, "fp32")],
    ),
    "blocks by two indices": (
        lambda: IMAGE[torch.tensor([0, 1, 1]), ROW % 4], [
            Pointwise(3, "arithmetic", "int64", "int64", 1, 2), Gather(3, 36, 8, "fp32")],
    ),
    "rows put": (
        lambda: X.index_put((ROW,), torch.ones(3, 4)),
        [Move(48, "fill"), Move(96, "copy"), Scatter(3, 4, 6, "fp32")],
    ),
    "rows put in place": (
        lambda: SPARE.index_put_((ROW,), X[:3]), [Scatter(3, 4, 6, "fp32")],
    ),
    "rows added in place": (
        lambda: SPARE.index_add_(0, ROW, X[:3]), [Scatter(3, 4, 6, "fp32")],
    ),
    "entries put in place": (
        lambda: SPARE.scatter_(0, ROW[:, None], X), [Scatter(3, 1, 24, "fp32")],
    ),
    # two of six rows, two of four columns in each of six rows
    "rows filled": (
        lambda: X.index_fill(0, torch.tensor([1, 2]), 3.0),
        [Move(96, "copy"), Scatter(2, 4, 6, "fp32")],
    ),
    "columns filled in place": (
        lambda: SPARE.index_fill_(1, torch.tensor([1, 2]), 3.0), [Scatter(12, 1, 24, "fp32")],
    ),
    "rows added along the second axis": (
        lambda: IMAGE.index_add(1, torch.tensor([0, 3]), IMAGE[:, :2]), [
            Move(1152, "copy"), Scatter(4, 36, 8, "fp32")],
    ),
    "entries added": (
        lambda: torch.zeros(9).scatter_add(0, LABEL, X[:, 0]),
        [Move(36, "fill"), Move(36, "copy"), Scatter(6, 1, 9, "fp32")],
    ),
    "counts": (lambda: torch.bincount(LABEL, minlength=9), [
        Move(72, "fill"), Scatter(6, 1, 9, "int64")]),
    "histogram": (lambda: torch.histc(X, 5), [Move(20, "fill"), Scatter(24, 1, 5, "fp32")]),
    # --- moves
    "stack": (lambda: torch.stack([X, X]), [Move(192, "copy")]),
    "repeat": (lambda: X.repeat(2, 1), [Move(192, "copy")]),
    "pad": (lambda: F.pad(X, (1, 1)), [Move(6 * 6 * 4, "copy")]),
    "flip": (lambda: X.flip(0), [Move(96, "rearrange")]),
    "roll": (lambda: X.roll(1, 0), [Move(96, "rearrange")]),
    "count up": (lambda: torch.arange(5), [Move(40, "fill")]),
    "copy to another format": (lambda: HALF.copy_(X), [arithmetic(24, out="fp16")]),
    "nothing to fill": (lambda: torch.zeros(0), []),
    "nothing to copy": (lambda: X[:0].clone(), []),
    # --- normalisation
    "softmax along the first axis": (lambda: X.softmax(0), [Softmax(4, 6, "fp32")]),
    "softmax of one": (lambda: torch.tensor(3.0).softmax(0), [Softmax(1, 1, "fp32")]),
    "norm of no rows": (lambda: F.layer_norm(X[:0], (4,)), []),
    "norm of no groups": (lambda: F.group_norm(IMAGE[:0], 2), []),
    "norm of two axes": (
        lambda: F.layer_norm(IMAGE, (6, 6)), [Softmax(8, 36, "fp32", "layer_norm")],
    ),
    "batch norm of images": (
        lambda: F.batch_norm(IMAGE, torch.zeros(4), torch.ones(4)),
        [Move(16, "fill"), Move(16, "fill"), arithmetic(288, 1, 2)],
    ),
    "pool by threes": (lambda: F.max_pool2d(IMAGE, 3, 1), [reduction(128, 9)]),
    "mean pool": (lambda: F.avg_pool2d(IMAGE, (2, 3)), [reduction(48, 6)]),
    "pool on a line": (lambda: F.avg_pool1d(X[None], 2), [reduction(12, 2)]),
    "adaptive pool": (lambda: F.adaptive_avg_pool2d(IMAGE, 2), [reduction(32, 9)]),
    "back along the first axis": (lambda: torch.fft.irfft(COMPLEX, n=4, dim=0), [
        Fourier(8, 4, "fp32")]),
    # 14 lines of three along the columns, each half of a complex one; three real ones of 14
    "back along two axes": (lambda: torch.fft.irfft2(COMPLEX, s=(3, 14)), [
        Fourier(14, 3, "fp32"), Fourier(3, 14, "fp32")]),
    # --- element by element
    "cube": (lambda: X**3, [arithmetic(24, 1, 2)]),
    "fifth power": (lambda: X**5, [arithmetic(24, 1, 3)]),
    "inverse square": (lambda: X**-2, [special(24, 1, 1, "divide")]),
    "ninth power": (lambda: X**9, [special(24, 1, 2)]),
    "inverse root": (lambda: X**-0.5, [special(24, 1, 1, "divide")]),
    "bisect among three": (
        lambda: torch.searchsorted(V[:3], X), [arithmetic(24, 2, 4, out="int64")],
    ),
    "complex of two": (lambda: torch.complex(X, X), [arithmetic(48, 2)]),
    "angle": (lambda: COMPLEX.angle(), [special(24, 1, 2)]),
    "complex quotient": (lambda: COMPLEX / COMPLEX, [special(48, 2, 3, "divide")]),
    "complex sum": (lambda: COMPLEX + COMPLEX, [arithmetic(48, 2, 1)]),
    "where": (lambda: torch.where(X > 3, X, X), [
        arithmetic(24, out="bool"), arithmetic(24, 3)]),
    "random numbers": (lambda: torch.rand(6, 4), [arithmetic(24, 1, 8)]),
    "smooth gate": (lambda: F.silu(X), [special(24, 1, 2)]),
    "third of three": (lambda: torch.addcdiv(X, X, X), [special(24, 3, 3, "divide")]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_items(name):
    step, wanted = CASES[name]
    assert items(step) == wanted


def test_a_transform_of_two_axes_is_one_of_each():
    found = items(lambda: torch.fft.fft2(COMPLEX[None]))
    # 3 lines of 8 complex entries, 8 columns of 3; a complex line counts as two real ones
    assert sorted((i.batch, i.length) for i in found) == [(6, 8), (16, 3)]


# --- backward passes --------------------------------------------------------------------------


def backward(step) -> list:
    """Return the items of the backward phase without those of the sum that starts it."""
    tasks = [t for t in tasks_of(trace(step)) if t.op.phase == "backward"]
    return [i for t in tasks for i in t.items if not isinstance(i, Move)]


def leaf(*shape: int) -> torch.Tensor:
    return torch.ones(*shape, requires_grad=True)


def test_gradients_of_a_convolution_are_those_that_are_asked_for():
    x, w, b = leaf(2, 4, 6, 6), leaf(5, 4, 3, 3), leaf(5)
    inward = contraction(1, 4, 5 * 9, 32, n_group=1, window=45 * 32 / 160)
    weight = contraction(1, 5, 32, 36, n_group=1, window=36 * 32 / 288)
    bias = arithmetic(160)
    assert backward(lambda: F.conv2d(x, w, b).sum().backward()) == [inward, weight, bias]
    assert backward(lambda: F.conv2d(x.detach(), w, b).sum().backward()) == [weight, bias]
    assert backward(lambda: F.conv2d(x, w.detach()).sum().backward()) == [inward]


def test_gradients_of_a_transposed_convolution_exchange_the_channels():
    x, w = leaf(2, 4, 3, 3), leaf(4, 5, 2, 2)
    found = backward(lambda: F.conv_transpose2d(x, w, stride=2).sum().backward())
    assert [(i.m, i.k, i.n, i.window) for i in found] == [(20, 4, 18, 1.0), (4, 18, 20, 1.0)]


def test_gradients_of_norms():
    x, weight, bias = leaf(6, 4), leaf(4), leaf(4)
    found = backward(lambda: F.layer_norm(x, (4,), weight, bias).sum().backward())
    assert found == [reduction(12, 4), arithmetic(24, 3, 8), reduction(8, 6)]
    found = backward(
        lambda: F.batch_norm(x, None, None, weight, bias, training=True).sum().backward()
    )
    assert found == [reduction(8, 6), arithmetic(24, 2, 5)]
    image = leaf(2, 4, 3)
    found = backward(lambda: F.group_norm(image, 2, weight, bias).sum().backward())
    assert found == [reduction(8, 6), arithmetic(24, 2, 8), reduction(8, 6)]


def test_gradients_of_softmax_look_ups_and_pools():
    x = leaf(6, 4)
    found = backward(lambda: x.softmax(1).sum().backward())
    assert found == [reduction(6, 4), arithmetic(24, 2, 3)]
    table = leaf(9, 4)
    (task,) = [t for t in tasks_of(trace(lambda: F.embedding(LABEL, table).sum().backward()))
               if t.op.name == "aten.embedding_dense_backward"]  # fmt: skip
    # all nine rows are cleared, six are added
    assert task.items == (Move(144, "fill"), Scatter(6, 4, 9, "fp32"))
    score = leaf(6, 5)
    (task,) = [t for t in tasks_of(trace(lambda: F.nll_loss(score, LABEL).backward()))
               if t.op.name == "aten.nll_loss_backward"]  # fmt: skip
    assert task.items == (Move(120, "fill"), arithmetic(6, 2))
    empty = leaf(0, 4)
    assert backward(lambda: F.layer_norm(empty, (4,)).sum().backward()) == []
    empty = leaf(0, 4, 3)
    assert backward(lambda: F.group_norm(empty, 2).sum().backward()) == []
    image = leaf(1, 2, 4, 4)
    assert backward(lambda: F.avg_pool2d(image, 2).sum().backward()) == [arithmetic(32, 1, 2)]
    cut = leaf(6, 4)
    moves = [i for t in tasks_of(trace(lambda: cut[1:3].sum().backward()))
             if t.op.name == "aten.slice_backward" for i in t.items]  # fmt: skip
    assert moves == [Move(96, "fill"), Move(32, "copy")]


def tensor(*shape: int, format: str = "fp32", **more) -> TensorInfo:
    n = int(torch.Size(shape).numel())
    return TensorInfo(shape, format, 0, n_stored=n, **more)


def recurrent(name: str, mode: int) -> list:
    rule = find_rule(name)
    assert rule is not None
    args = {"input": tensor(3, 2, 5), "hidden_size": 7, "mode": mode}
    return rule(Op(name, args, (tensor(3, 2, 7),), "forward", ""))


@pytest.mark.parametrize(("mode", "gates"), [(0, 1), (2, 4), (3, 3)])
def test_a_recurrent_layer_is_a_product_for_all_inputs_and_steps_after_it(mode, gates):
    forward, back = (recurrent(f"aten.mkldnn_rnn_layer{end}", mode) for end in ("", "_backward"))
    wide = 7 * gates  # from 5 inputs, 2 sequences of 3 steps
    step = [contraction(1, wide, 7, 2), special(2 * wide, 2, 1)]
    assert forward == [contraction(1, wide, 5, 6), *step * 3]
    # backwards each product has two gradients of its own size
    slower = [contraction(1, wide, 7, 2), special(2 * wide, 2, 2)]
    weights = [contraction(1, wide, 6, 5), contraction(1, wide, 6, 7)]
    assert back == [contraction(1, wide, 5, 6), *slower * 3, *weights]


def test_a_complex_factor_doubles_what_it_touches():
    real, complex_ = tensor(3, 4), tensor(3, 4, is_complex=True)
    sizes = [(i.k, i.n) for a, b in ((real, real), (real, complex_), (complex_, real),
                                     (complex_, complex_))
             for i in product(1, 3, 4, 5, a, b, real)]  # fmt: skip
    assert sizes == [(4, 5), (4, 10), (4, 10), (8, 10)]


# --- optimizers -------------------------------------------------------------------------------


def rule_of(name: str, **args) -> list:
    rule = find_rule(name)
    assert rule is not None
    return rule(Op(name, args, (), "optimizer", ""))


def test_list_ops_are_one_item_over_all_tensors():
    lists = (tensor(6, 4), tensor(5))
    assert rule_of("aten._foreach_add_", self=lists, scalar=1) == [arithmetic(29)]
    assert rule_of("aten._foreach_mul_", self=lists, other=lists) == [arithmetic(29, 2)]
    assert rule_of("aten._foreach_addcmul_", self=lists, tensor1=lists, tensor2=lists) == [
        arithmetic(29, 3, 2)
    ]
    assert rule_of("aten._foreach_addcdiv_", self=lists, tensor1=lists, tensor2=lists) == [
        special(29, 3, 3, "divide")
    ]
    assert rule_of("aten._foreach_sqrt", self=lists) == [special(29, 1, 1, "divide")]
    assert rule_of("aten._foreach_pow", self=lists, exponent=2) == [special(29, 1, 2)]
    assert rule_of("aten._foreach_add_", self=(), scalar=1) == []
    assert rule_of("aten._foreach_copy_", self=lists, src=lists) == [Move(116, "copy")]
    assert rule_of("aten._foreach_zero_", self=lists) == [Move(116, "fill")]
    # one sum of each tensor, over the mean size
    assert rule_of("aten._foreach_norm", self=lists) == [reduction(2, 14)]


def test_fused_optimizers_are_counted_from_their_definition():
    lists = (tensor(6, 4), tensor(5))
    assert rule_of("aten._fused_adam_", self=lists) == [
        arithmetic(29, 4, 12), special(29, 1, 2, "divide")]  # fmt: skip
    assert rule_of("aten._fused_sgd_", self=lists) == [arithmetic(29, 3, 4)]


# --- stored sparse ----------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")
def test_a_sparse_second_operand_is_the_transpose_and_a_bias_stays():
    dense, left, right = torch.zeros(8, 12), torch.ones(5, 8), torch.ones(12, 5)
    dense[0, 3] = dense[5, 7] = 1
    sparse = dense.to_sparse_csr()
    (item,) = items(lambda: left @ sparse)
    assert isinstance(item, SparseContraction)
    assert (item.product, item.rows, item.cols, item.n, item.n_block) == ("spmm_t", 8, 12, 5, 2)
    (item,) = items(lambda: sparse @ right[:, 0])
    assert (item.product, item.rows, item.cols, item.n, item.block) == ("spmm", 8, 12, 1, (1, 1))
    found = items(lambda: torch.addmm(left.t(), sparse, right))
    assert [type(i) for i in found][-2:] == [SparseContraction, Pointwise]


@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")
def test_a_sampled_product_makes_the_entries_of_its_pattern():
    pattern = torch.eye(6, 6).to_sparse_csr()
    item, add = items(lambda: torch.sparse.sampled_addmm(pattern, X, W[:, :6]))
    assert (item.product, item.rows, item.cols, item.n, item.n_block) == ("sddmm", 6, 6, 4, 6)
    assert add.kind == "arithmetic"
