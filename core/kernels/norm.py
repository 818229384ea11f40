"""Batch normalisation while training, with what follows it (norm.cpp)."""

from __future__ import annotations

import torch
from torch import Tensor

from core.kernels.call import Kernels, pointer


def batch_norm(
    kernels: Kernels, x: Tensor, base: Tensor | None, weight: Tensor, bias: Tensor,
    running: tuple[Tensor, Tensor], *, eps: float, momentum: float, relu: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return the output, as `x`, and mean and inverse deviation, float32 [feature].

    `running` are the mean and the variance that move towards those of the rows.
    """
    x, base = x.contiguous(), None if base is None else base.contiguous()
    out, mean, inverse = torch.empty_like(x), torch.empty_like(weight), torch.empty_like(weight)
    kernels.batch_norm(
        x.data_ptr(), pointer(base), weight.data_ptr(), bias.data_ptr(), *x.shape, eps, momentum,
        relu, x.dtype == torch.bfloat16, *(t.data_ptr() for t in (out, mean, inverse, *running)),
        torch.get_num_threads(),
    )  # fmt: skip
    return out, mean, inverse


def batch_norm_backward(
    kernels: Kernels, g: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor,
    inverse: Tensor, *, relu: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return the gradients of `x`, weight and bias; that of the base is `g`."""
    g, x = g.contiguous(), x.contiguous()
    dx, dweight, dbias = torch.empty_like(x), torch.empty_like(weight), torch.empty_like(bias)
    kernels.batch_norm_backward(
        *(t.data_ptr() for t in (g, x, weight, bias, mean, inverse)), *x.shape, relu,
        x.dtype == torch.bfloat16, *(t.data_ptr() for t in (dx, dweight, dbias)),
        torch.get_num_threads(),
    )  # fmt: skip
    return dx, dweight, dbias
