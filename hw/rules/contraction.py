"""Dense products: matrices, batches, convolutions, attention, recurrent layers."""

from __future__ import annotations

import math
from dataclasses import replace

from hw.program import Op, TensorInfo
from hw.rules import sparse
from hw.rules.pointwise import pointwise
from hw.rules.registry import rule
from hw.work import Attention, Contraction, Pointwise, Work


def product(
    batch: int, m: int, k: int, n: int, a: TensorInfo, b: TensorInfo, out: TensorInfo
) -> list[Work]:
    """Return the contraction; a complex one as the real product [m, 2k] x [2k, 2n]."""
    if a.is_complex and b.is_complex:
        k, n = 2 * k, 2 * n
    elif a.is_complex or b.is_complex:
        n *= 2
    if batch * m * k * n == 0:
        return []
    return [Contraction(batch, m, k, n, a.format, b.format, out.format)]


@rule("aten.mm", "aten._int_mm", "aten._scaled_mm", "aten._sparse_mm")
def _mm(op: Op) -> list[Work]:
    a, b = op.inputs[:2]
    if a.layout != "strided" or b.layout != "strided":
        return sparse.layout_product(a, b, op.out)
    return product(1, a.shape[0], a.shape[1], b.shape[1], a, b, op.out)


@rule("aten.addmm", "aten._addmm_activation", "aten.addmv")
def _addmm(op: Op) -> list[Work]:
    a, b = op.tensor("mat1" if "mat1" in op.args else "mat"), op.inputs[2]
    add: list[Work] = []
    if op.args.get("beta") != 0:
        is_bias = op.inputs[0].n_element < op.out.n_element
        add = [replace(pointwise(op, "arithmetic", 1, n_input=2), is_bias=is_bias)]
    if a.layout != "strided" or b.layout != "strided":
        return [*sparse.layout_product(a, b, op.out), *add]
    n = b.shape[1] if len(b.shape) > 1 else 1
    return [*product(1, a.shape[0], a.shape[1], n, a, b, op.out), *add]


@rule("aten.bmm", "aten.baddbmm")
def _bmm(op: Op) -> list[Work]:
    a, b = op.inputs[-2:]
    add = [pointwise(op, "arithmetic", 1, n_input=2)] if op.name == "aten.baddbmm" else []
    return [*product(a.shape[0], a.shape[1], a.shape[2], b.shape[2], a, b, op.out), *add]


@rule("aten.mv", "aten.dot", "aten.vdot")
def _vector(op: Op) -> list[Work]:
    a, b = op.inputs[:2]
    if a.layout != "strided":
        return sparse.layout_product(a, b, op.out)
    return product(1, a.shape[0] if len(a.shape) == 2 else 1, b.shape[0], 1, a, b, op.out)


@rule("aten.addr", "aten.ger", "aten.outer")
def _outer(op: Op) -> list[Work]:
    return [pointwise(op, "arithmetic", 2)]


def _convolution_shape(op: Op, result: TensorInfo) -> tuple[int, int, int, int]:
    """Return groups, channels (m), fan-in (k) and positions over all images (n).

    The weight is [out, in / groups, *kernel], of a transposed convolution [in, out / groups,
    *kernel], whose positions are those of its input; the multiply-adds are m k n either way.
    """
    x, weight = op.tensor("input"), op.tensor("weight")
    groups = op.args["groups"]
    position = math.prod((x if op.args["transposed"] else result).shape[2:])
    return groups, weight.shape[0] // groups, math.prod(weight.shape[1:]), x.shape[0] * position


def _window(op: Op, x: TensorInfo, n_entry: int) -> float:
    """Return how often a convolution's windows hold each entry of `x`, `n_entry` in all."""
    return 1.0 if op.args["transposed"] else max(1.0, n_entry / x.n_element)


@rule("aten.convolution")
def _convolution_forward(op: Op) -> list[Work]:
    x, weight, out = op.tensor("input"), op.tensor("weight"), op.out
    groups, m, k, n = _convolution_shape(op, out)
    if groups * m * k * n == 0:
        return []
    items: list[Work] = [
        Contraction(
            *(groups, m, k, n, weight.format, x.format, out.format),
            n_group=groups,
            window=_window(op, x, groups * k * n),
        )
    ]
    if op.args["bias"] is not None:
        items.append(pointwise(op, "arithmetic", 1, n_input=2))
    return items


@rule("aten.convolution_backward")
def _convolution_backward(op: Op) -> list[Work]:
    """Return the gradients that `output_mask` asks for: input, weight, bias.

    Each has the multiply-adds of the forward product: the input's gathers the windows of the
    gradient (of a transposed convolution, the roles of m and k are exchanged), the weight's is
    reduced over the positions.
    """
    grad, x, weight = op.tensor("grad_output"), op.tensor("input"), op.tensor("weight")
    groups, m, fan_in, n = _convolution_shape(op, grad)
    wants_input, wants_weight, wants_bias = op.args["output_mask"]
    items: list[Work] = []
    if groups * m * fan_in * n == 0:
        return items
    out = op.out.format
    if wants_input:
        inner, outer = fan_in, m
        if not op.args["transposed"]:
            n_tap = math.prod(weight.shape[2:])
            inner, outer = fan_in // n_tap, m * n_tap
        window = _window(op, grad, groups * outer * n)
        formats = (weight.format, grad.format, out)
        items.append(Contraction(groups, inner, outer, n, *formats, groups, window))
    if wants_weight:
        window = _window(op, x, groups * fan_in * n)
        formats = (grad.format, x.format, out)
        items.append(Contraction(groups, m, n, fan_in, *formats, groups, window))
    if wants_bias:
        items.append(Pointwise(grad.n_element, "arithmetic", grad.format, grad.format))
    return items


_ATTENTION = (
    "aten._scaled_dot_product_flash_attention_for_cpu",
    "aten._scaled_dot_product_flash_attention",
    "aten._scaled_dot_product_efficient_attention",
    "aten._scaled_dot_product_cudnn_attention",
    "aten._scaled_dot_product_attention_math",
)


@rule(*_ATTENTION, *(f"{name}_backward" for name in _ATTENTION[:-1]))
def _attention(op: Op) -> list[Work]:
    """Attention of every head; a causal mask is charged in full, as flop_counter does."""
    q, k, v = op.tensor("query"), op.tensor("key"), op.tensor("value")
    batch = math.prod(q.shape[:-2])
    sizes = (batch, q.shape[-2], k.shape[-2], q.shape[-1], v.shape[-1])
    return [Attention(*sizes, q.format, op.name.endswith("_backward"))]


#: Gates of one step of a recurrent layer, by oneDNN's mode number (0 and 1 plain, 2 LSTM, 3 GRU).
_GATES = {0: 1, 1: 1, 2: 4, 3: 3}


@rule("aten.mkldnn_rnn_layer", "aten.mkldnn_rnn_layer_backward")
def _recurrent(op: Op) -> list[Work]:
    """One product for all inputs, then step by step a product with the state and the gates.

    Backwards each product has two gradients of its own size.
    """
    x = op.tensor("input")
    n_step, n, d_input = x.shape
    d_hidden = op.args["hidden_size"]
    gates = _GATES[op.args["mode"]] * d_hidden
    f = x.format
    backward = op.name.endswith("backward")
    step: list[Work] = [
        Contraction(1, gates, d_hidden, n, f, f, f),
        Pointwise(n * gates, "transcendental", f, f, 2, 2 if backward else 1),
    ]
    items: list[Work] = [Contraction(1, gates, d_input, n_step * n, f, f, f), *step * n_step]
    if backward:
        items += [
            Contraction(1, gates, n_step * n, d_input, f, f, f),
            Contraction(1, gates, n_step * n, d_hidden, f, f, f),
        ]
    return items
