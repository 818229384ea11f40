"""Message passing and whole int8 layers -> exactly the items that they should give."""

import pytest
import torch

import core
from hw.rules import tasks_of
from hw.trace import trace
from hw.work import Gather, Pointwise, Scatter, SparseContraction

EDGES = torch.tensor([[0, 1, 2, 3, 3], [1, 0, 3, 2, 2]])


def items_by_op(step):
    return [(task.op.name, list(task.items)) for task in tasks_of(trace(step))]


@pytest.mark.parametrize("with_edge", [False, True])
def test_messages_are_a_gather_perhaps_arithmetic_and_a_scatter(with_edge):
    order = core.EdgeOrder.from_index(EDGES, 6)
    x = torch.ones(6, 4, requires_grad=True)
    edge = torch.ones(5, 4, requires_grad=True) if with_edge else None
    activation = "relu" if with_edge else "identity"

    def step():
        core.pass_messages(x, order, edge, activation=activation).backward(torch.ones(6, 4))

    got = dict(items_by_op(step))
    between = [Pointwise(20, "arithmetic", "fp32", "fp32", 2, 2)] if with_edge else []
    want = [Gather(5, 4, 6, "fp32"), *between, Scatter(5, 4, 6, "fp32")]
    assert got["core.pass_messages"] == want
    assert got["core.pass_messages_backward"] == want


def test_an_order_is_two_counts_and_two_placements():
    got = items_by_op(lambda: core.EdgeOrder.from_index(EDGES, 6))
    grouped = [Scatter(5, 1, 6, "int32"), Scatter(5, 1, 5, "int32")]
    assert [items for name, items in got if name == "core.group_rows"] == [grouped, grouped]


def test_a_frozen_int8_layer_is_traced_as_one_product_of_int8():
    g = torch.Generator().manual_seed(1)
    spec = core.LayerSpec(0.5, 4, "int8", "int8")
    layer = core.build_linear(16, 12, spec, generator=g)
    layer(torch.randn(3, 16, generator=g))
    small = core.freeze(layer)
    got = dict(items_by_op(lambda: small(torch.ones(3, 16))))
    rounding, product = got["core.linear_int8"]
    assert rounding == Pointwise(48, "arithmetic", "fp32", "int8", 1, 3)
    assert isinstance(product, SparseContraction)
    assert (product.weight_format, product.dense_format, product.out_format) == (
        "int8", "int8", "fp32"
    )  # fmt: skip
    assert (product.rows, product.cols, product.n) == (12, 16, 3)
    assert product.n_mac == 3 * small.codes.numel()


def test_a_layer_called_directly_and_its_trace_are_the_same_product():
    """Outside a trace the kernels are called without the named op; the bits do not tell."""
    g = torch.Generator().manual_seed(2)
    layer = core.build_linear(24, 20, core.LayerSpec(0.4, 4), generator=g)
    x = torch.randn(7, 24, generator=g)
    traced = []

    def step():
        layer.zero_grad()
        y = layer(x)
        y.square().sum().backward()
        traced[:] = [y.detach().clone(), layer.values.grad.clone(), layer.bias.grad.clone()]

    step()
    direct = list(traced)
    names = [name for name, _ in items_by_op(step)]
    assert names.count("core.spmm") == 1
    assert names.count("core.sddmm") == 1
    for a, b in zip(direct, traced, strict=True):
        assert torch.equal(a, b)
