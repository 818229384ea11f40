"""Softmax, normalisation layers, Fourier transforms, pooling."""

from __future__ import annotations

import math

from hw.program import Op
from hw.rules.registry import rule
from hw.work import Fourier, Pointwise, Reduction, Softmax, Work


@rule("aten._softmax", "aten._log_softmax", "aten._safe_softmax")
def _softmax(op: Op) -> list[Work]:
    x = op.out
    length = x.shape[op.args["dim"]] if x.shape else 1
    return [Softmax(x.n_element // max(length, 1), length, x.format)] if x.n_element else []


@rule("aten._softmax_backward_data", "aten._log_softmax_backward_data")
def _softmax_backward(op: Op) -> list[Work]:
    """Charge a row sum of grad x output, and one fused multiply-subtract."""
    x = op.out
    length = x.shape[op.args["dim"]] if x.shape else 1
    return [
        Reduction(x.n_element // max(length, 1), length, x.format, x.format),
        Pointwise(x.n_element, "arithmetic", x.format, x.format, 2, 3),
    ]


@rule("aten.native_layer_norm", "aten._fused_rms_norm")
def _layer_norm(op: Op) -> list[Work]:
    x = op.tensor("input")
    length = math.prod(op.args["normalized_shape"])
    if x.n_element == 0:
        return []
    return [Softmax(x.n_element // length, length, x.format, "layer_norm")]


@rule("aten.native_layer_norm_backward", "aten._fused_rms_norm_backward")
def _layer_norm_backward(op: Op) -> list[Work]:
    """Two row sums and an update for the input; two column sums for scale and shift."""
    x = op.tensor("input")
    length = math.prod(op.args["normalized_shape"])
    if x.n_element == 0:
        return []
    n_row = x.n_element // length
    return [
        Reduction(2 * n_row, length, x.format, x.format),
        Pointwise(x.n_element, "arithmetic", x.format, x.format, 3, 8),
        Reduction(2 * length, n_row, x.format, x.format),
    ]


@rule("aten.native_batch_norm", "aten._native_batch_norm_legit", "aten.cudnn_batch_norm",
      "aten._native_batch_norm_legit_no_training", "aten._batch_norm_with_update",
      "aten._batch_norm_no_update")  # fmt: skip
def _batch_norm(op: Op) -> list[Work]:
    """Statistics over all but the channel axis while training, then scale and shift."""
    x = op.tensor("input")
    n_channel = x.shape[1] if len(x.shape) > 1 else 1
    items: list[Work] = []
    trains = op.args.get("training", op.args.get("train", "update" in op.name))
    if trains and not op.name.endswith("no_training"):
        items.append(Reduction(2 * n_channel, x.n_element // n_channel, x.format, x.format))
    return [*items, Pointwise(x.n_element, "arithmetic", x.format, x.format, 1, 2)]


@rule("aten.native_batch_norm_backward", "aten.cudnn_batch_norm_backward")
def _batch_norm_backward(op: Op) -> list[Work]:
    x = op.tensor("input")
    n_channel = x.shape[1] if len(x.shape) > 1 else 1
    return [
        Reduction(2 * n_channel, x.n_element // n_channel, x.format, x.format),
        Pointwise(x.n_element, "arithmetic", x.format, x.format, 2, 5),
    ]


@rule("aten.native_group_norm")
def _group_norm(op: Op) -> list[Work]:
    x = op.tensor("input")
    n_row = x.shape[0] * op.args["group"]
    if x.n_element == 0:
        return []
    return [Softmax(n_row, x.n_element // n_row, x.format, "layer_norm")]


@rule("aten.native_group_norm_backward")
def _group_norm_backward(op: Op) -> list[Work]:
    x = op.tensor("input")
    n_row = x.shape[0] * op.args["group"]
    if x.n_element == 0:
        return []
    return [
        Reduction(2 * n_row, x.n_element // n_row, x.format, x.format),
        Pointwise(x.n_element, "arithmetic", x.format, x.format, 2, 8),
        Reduction(2 * x.shape[1], x.n_element // x.shape[1], x.format, x.format),
    ]


@rule("aten._fft_r2c", "aten._fft_c2r", "aten._fft_c2c")
def _fourier(op: Op) -> list[Work]:
    """One transform per line and axis; a complex one counts as two real ones."""
    source = op.tensor("self")
    items: list[Work] = []
    wider = max(source, op.out, key=lambda t: math.prod(t.shape))
    for dim in op.args["dim"]:
        # of a transform back to real numbers the last axis is longer than its source
        length = (op.out if op.name == "aten._fft_c2r" else source).shape[dim]
        n_line = math.prod(wider.shape) // max(wider.shape[dim], 1)
        factor = 2 if op.name == "aten._fft_c2c" else 1
        if n_line:
            items.append(Fourier(factor * n_line, length, source.format))
    return items


@rule(
    """aten.max_pool2d_with_indices aten.avg_pool2d aten._adaptive_avg_pool2d aten.avg_pool1d
    aten.adaptive_max_pool2d aten.avg_pool3d aten.max_pool3d_with_indices"""
)
def _pool(op: Op) -> list[Work]:
    """One result per window; overlapping windows read an entry more than once."""
    x, out = op.inputs[0], op.out
    kernel = op.args.get("kernel_size")
    window = max(1, x.n_element // max(out.n_element, 1))
    if kernel:
        n_axis = 1 if "1d" in op.name else 3 if "3d" in op.name else 2
        window = math.prod(kernel) if len(kernel) > 1 else kernel[0] ** n_axis
    return [Reduction(out.n_element, window, x.format, out.format)]


@rule(
    """aten.max_pool2d_with_indices_backward aten.avg_pool2d_backward
    aten._adaptive_avg_pool2d_backward"""
)
def _pool_backward(op: Op) -> list[Work]:
    out = op.out
    return [Pointwise(out.n_element, "arithmetic", out.format, out.format, 1, 2)]
