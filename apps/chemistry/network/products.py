"""Dense products of the network by oneDNN, which uses the widest registers of any processor.

The library behind `torch.mm` leaves half of some of them unused. oneDNN compiles each shape anew,
for ten times as long as the product takes, and keeps what it compiled: rows are filled up so that
batches share few shapes.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import core
from core.sparse.ops import is_unwatched

#: Rows of products by oneDNN are filled up to a multiple of this, or to a power of two below it.
ROW_STEP = 256
_FEW = 64  # rows below which calling oneDNN costs a float32 layer more than it saves
_BY_ONEDNN = getattr(torch.ops.mkldnn, "_linear_pointwise", None)


def by_rows(linear: nn.Module, x: Tensor) -> Tensor:
    """Return ``linear(x)``; x is float [row, n].

    Where oneDNN may run a dense layer, it works on a number of rows that many batches share.
    """
    n_row = x.shape[0]
    is_plain = _is_plain(linear)
    of_torch = is_plain and (n_row < _FEW or not has_onednn(x))
    if of_torch or isinstance(linear, core.BlockSparseLinear):
        out: Tensor = linear(x)
        return out
    step = min(ROW_STEP, 1 << max(0, n_row - 1).bit_length())
    filled = functional.pad(x, (0, 0, 0, -n_row % step)) if n_row % step else x
    if is_plain:
        assert isinstance(linear, core.DenseLinear)
        out = _Product.apply(filled, linear.weight, linear.bias)
    else:
        out = linear(filled)
    return out[:n_row]


def has_onednn(x: Tensor) -> bool:
    """Whether `product` takes the rows, which nothing watches that asks for torch's own."""
    if _BY_ONEDNN is None or not torch.backends.mkldnn.is_available():
        return False
    return x.is_cpu and x.dtype == torch.float32 and x.shape[0] > 0 and is_unwatched(x)


def product(x: Tensor, weight: Tensor, bias: Tensor | None, *, relu: bool = False) -> Tensor:
    """Return ``f(x W^T + b)`` without gradients, f the identity or relu.

    Parameters
    ----------
    x : Tensor, float32 [row, in]
    weight : Tensor, float32 [out, in]
    bias : Tensor, float32 [out], optional
    relu : bool
    """
    assert _BY_ONEDNN is not None
    out: Tensor = _BY_ONEDNN(x, weight, bias, "relu" if relu else "none", [], "")
    return out


def _is_plain(linear: nn.Module) -> bool:
    """Whether the layer is a dense product of float32 numbers and nothing else."""
    if not isinstance(linear, core.DenseLinear) or linear.weight.dtype != torch.float32:
        return False
    roles = linear.roles
    return {roles.weight.name, roles.activation.name, roles.gradient.name} == {"fp32"}


class _Product(torch.autograd.Function):
    """``x W^T + b`` and its gradients, float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        return product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs_dx, needs_dweight, needs_dbias = ctx.needs_input_grad
        dx = dweight = dbias = None
        # To be differentiated again, or watched: by plain torch.
        is_direct = not torch.is_grad_enabled() and has_onednn(g)
        if needs_dx:
            dx = product(g, weight.t(), None) if is_direct else g @ weight
        if needs_dweight:
            dweight = product(g.t(), x.t(), None) if is_direct else g.t() @ x
        if ctx.has_bias and needs_dbias:
            dbias = g.sum(dim=0)
        return dx, dweight, dbias
