"""Single ops -> exactly the items that they should give."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import core
from hw.rules import tasks_of
from hw.trace import trace
from hw.work import (
    Contraction,
    Fourier,
    Gather,
    HostRead,
    Move,
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

SEGMENT = ROW.repeat(2)
KERNEL = torch.ones(9, 2, 3)


CASES = {
    "add": (lambda: X + X, [arithmetic(24, 2)]),
    "add scalar": (lambda: X + 2, [arithmetic(24)]),
    "round": (lambda: core.round_to_format(X, "fp8_e4m3"), [arithmetic(24, 1, 3)]),
    "compare": (lambda: X > 0, [arithmetic(24, out="bool")]),
    "cast": (lambda: X.bfloat16(), [arithmetic(24, out="bf16")]),
    "divide": (lambda: X / X, [special(24, 2, kind="divide")]),
    "exp": (lambda: X.exp(), [special(24)]),
    "square": (lambda: X**2, [arithmetic(24)]),
    "fourth power": (lambda: X**4, [arithmetic(24, 1, 2)]),
    "root": (lambda: X**0.5, [special(24, kind="divide")]),
    "real power": (lambda: X**1.7, [special(24, 1, 2)]),
    "complex product": (lambda: COMPLEX * COMPLEX, [arithmetic(48, 2, 3)]),
    "bisect": (lambda: torch.bucketize(X, W[0]), [arithmetic(24, 2, 6, out="int64")]),
    "view": (lambda: X.t().reshape(4, 6)[1:, None].expand(3, 2, 6), []),
    "sum": (lambda: X.sum(1), [reduction(6, 4)]),
    "sum of one": (lambda: X[:, :1].sum(1), []),
    "max of two": (lambda: torch.maximum(X, X), [arithmetic(24, 2)]),
    "argmax": (lambda: X.argmax(0), [reduction(4, 6, "int64")]),
    "variance": (
        lambda: X.var(0),
        [
            reduction(4, 6),
            arithmetic(24, 1, 2),
            reduction(4, 6),
        ],
    ),
    # eight entries: three stages, three of two, two ... log2 (log2 + 1) / 2 = 6
    "sort": (lambda: W.sort(1), [arithmetic(32, 1, 6)]),
    "host": (lambda: X.sum().item(), [reduction(1, 24), HostRead(4)]),
    "nonzero": (lambda: torch.nonzero(X), [arithmetic(24, 1, 2), HostRead(8)]),
    "copy": (lambda: X.clone(), [Move(96, "copy")]),
    "transpose": (lambda: X.t().contiguous(), [Move(96, "rearrange")]),
    "join": (lambda: torch.cat([X, X]), [Move(192, "copy")]),
    "fill": (lambda: torch.zeros(5, dtype=torch.float16), [Move(10, "fill")]),
    "pick rows": (lambda: X[ROW], [Gather(3, 4, 6, "fp32")]),
    "pick columns": (lambda: X.index_select(1, torch.tensor([0, 3])), [Gather(12, 1, 24, "fp32")]),
    "pick entries": (lambda: X.gather(0, ROW[:, None]), [Gather(3, 1, 24, "fp32")]),
    "embedding": (lambda: F.embedding(ROW, X), [Gather(3, 4, 6, "fp32")]),
    "add rows": (
        lambda: X.index_add(0, ROW, X[:3]),
        [Move(96, "copy"), Scatter(3, 4, 6, "fp32")],
    ),
    "add entries": (
        lambda: X.scatter_add(0, ROW[:, None], X),
        [Move(96, "copy"), Scatter(3, 1, 24, "fp32")],
    ),
    "segment sum": (lambda: core.segment_sum(X, SEGMENT, 7), [Scatter(6, 4, 7, "fp32")]),
    "product": (lambda: X @ W, [contraction(1, 6, 4, 8)]),
    "product bf16": (
        lambda: F.linear(X[0:1].bfloat16(), W.t().bfloat16()),
        [
            arithmetic(4, out="bf16"),
            arithmetic(32, out="bf16"),
            Contraction(1, 1, 4, 8, "bf16", "bf16", "bf16"),
        ],
    ),
    "batched": (
        lambda: torch.bmm(X.view(2, 3, 4), W.expand(2, 4, 8)),
        [contraction(2, 3, 4, 8)],
    ),
    "matrix and vector": (lambda: X @ W[:, 0], [contraction(1, 6, 4, 1)]),
    "softmax": (lambda: X.softmax(-1), [Softmax(6, 4, "fp32")]),
    "layer norm": (lambda: F.layer_norm(X, (4,)), [Softmax(6, 4, "fp32", "layer_norm")]),
    "group norm": (
        lambda: F.group_norm(X.view(2, 4, 3), 2),
        [Softmax(4, 6, "fp32", "layer_norm")],
    ),
    "batch norm in use": (lambda: F.batch_norm(X, X[0], X[0]), [arithmetic(24, 1, 2)]),
    "real Fourier": (lambda: torch.fft.rfft(X, dim=1), [Fourier(6, 4, "fp32")]),
    "inverse real Fourier": (lambda: torch.fft.irfft(COMPLEX, n=14), [Fourier(3, 14, "fp32")]),
    "complex Fourier": (lambda: torch.fft.fft(COMPLEX), [Fourier(6, 8, "fp32")]),
    "pool": (lambda: F.max_pool2d(X[None], 2), [reduction(6, 4)]),
    "grouped convolution": (
        lambda: F.conv1d(X.view(1, 6, 4), KERNEL, groups=3),
        # windows of three overlap: 3 groups x 6 x 2 entries stem from 24
        [contraction(3, 3, 6, 2, n_group=3, window=1.5)],
    ),
}


@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")
@pytest.mark.parametrize("name", CASES)
def test_items(name):
    step, expected = CASES[name]
    assert items(step) == expected


def test_batch_norm_reduces_while_training_only():
    def step():
        return F.batch_norm(X, torch.zeros(4), torch.ones(4), training=True)

    assert reduction(8, 6) in items(step)


def test_attention_is_two_products_and_a_softmax_per_head():
    q = torch.ones(2, 3, 5, 8)
    (attention,) = items(lambda: F.scaled_dot_product_attention(q, q, q))
    assert attention.parts == (
        contraction(6, 5, 8, 5),
        Softmax(30, 5, "fp32"),
        contraction(6, 5, 5, 8),
    )


def test_grouped_convolution_gradients_keep_the_groups():
    """flop_counter leaves the groups out of the weight gradient; the definition does not."""
    x = torch.ones(1, 6, 4, requires_grad=True)
    w = torch.ones(9, 2, 3, requires_grad=True)
    products = [
        i
        for i in items(lambda: F.conv1d(x, w, groups=3).sum().backward())
        if isinstance(i, Contraction)
    ]
    assert [(i.batch, i.m, i.k, i.n) for i in products] == [
        (3, 3, 6, 2),
        (3, 2, 9, 2),  # the input's gradient gathers windows of the result's gradient
        (3, 3, 2, 6),
    ]
    assert [i.window for i in products] == [1.5, 54 / 18, 1.5]


def test_lstm_layer_counts_its_steps():
    """Per step four gates from the state; the inputs of all steps in one product."""
    lstm = torch.nn.LSTM(5, 7, batch_first=True)
    x = torch.ones(2, 3, 5)
    with torch.no_grad():
        total = sum(i.n_mac for i in items(lambda: lstm(x)) if isinstance(i, Contraction))
    assert total == 3 * 2 * 4 * 7 * (5 + 7)


# --- sparse -----------------------------------------------------------------------------------


@pytest.fixture
def pattern():
    mask = torch.zeros(8, 12)
    for row, col in ((0, 2), (1, 0), (1, 2)):
        mask[4 * row : 4 * row + 4, 4 * col : 4 * col + 4] = 1
    return core.BlockPattern.from_mask(mask.bool(), (4, 4))


def test_block_sparse_layer_hands_over_its_pattern(pattern):
    layer = core.BlockSparseLinear(12, 8, pattern=pattern, bias=False)
    x = torch.ones(5, 12, requires_grad=True)
    products = {
        i.product: i
        for i in items(lambda: layer(x).sum().backward())
        if isinstance(i, SparseContraction)
    }
    assert set(products) == {"spmm", "spmm_t", "sddmm"}
    for item in products.values():
        assert (item.rows, item.cols, item.n, item.block, item.n_block) == (8, 12, 5, (4, 4), 3)
        blocks = {(int(r), int(c)) for r, c in zip(item.row_index, item.col_index, strict=True)}
        assert blocks == {(0, 2), (1, 0), (1, 2)}
        assert item.n_mac == 3 * 16 * 5


def test_block_sparse_layer_under_fake_tensors_knows_its_counts(pattern):
    layer = core.BlockSparseLinear(12, 8, pattern=pattern, bias=False)
    tasks = tasks_of(trace(layer, torch.ones(5, 12), fake=True))
    (item,) = (i for t in tasks for i in t.items if isinstance(i, SparseContraction))
    assert (item.product, item.rows, item.cols, item.n, item.n_block) == ("spmm", 8, 12, 5, 3)


@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")
def test_sparse_layouts_behind_mm():
    dense = torch.zeros(8, 12)
    dense[4:8, 0:4] = 1
    x = torch.ones(12, 5)
    bsr, csr = dense.to_sparse_bsr((4, 4)), dense.to_sparse_csr()
    (item,) = items(lambda: bsr @ x)
    assert (item.product, item.rows, item.cols, item.n, item.block) == ("spmm", 8, 12, 5, (4, 4))
    assert (item.n_block, item.row_index.tolist(), item.col_index.tolist()) == (1, [1], [0])
    (item,) = items(lambda: csr @ x)
    assert (item.block, item.n_block, item.n_mac) == ((1, 1), 16, 80)
    assert np.array_equal(np.unique(item.row_index), [4, 5, 6, 7])


@pytest.mark.parametrize(
    ("weight_format", "activation_format"), [("bf16", "bf16"), ("int8", "fp32"), ("int4", "bf16")]
)
@pytest.mark.parametrize("density", [1.0, 0.5])
def test_low_precision_layers_have_rules(weight_format, activation_format, density):
    spec = core.LayerSpec(
        density=density, block=4, weight_format=weight_format, activation_format=activation_format
    )
    generator = torch.Generator().manual_seed(0)
    layer = core.build_linear(12, 8, spec, generator=generator)
    trained = items(lambda: layer(torch.ones(5, 12)).sum().backward())
    products = [i for i in trained if isinstance(i, Contraction | SparseContraction)]
    assert products
    frozen = core.freeze(layer)
    program = trace(lambda: frozen(torch.ones(5, 12)))
    assert tasks_of(program)
    if weight_format.startswith("int"):
        at_rest = {t.format for op in program.ops for t in op.inputs if t.n_element >= 48}
        assert "int8" in at_rest
