"""Batch normalisation of rows together with the relu or the residual step that follows it.

In a training step on a CPU such layers wait for memory: normalisation, activation and residual
step, each on its own, read and write the same rows over and over. Here each direction reads them
twice, and nothing but the input is kept between the two.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.checks import check_dtype, check_shape
from core.kernels import norm as compiled
from core.kernels.call import Kernels, kernels_for
from core.sparse.ops import is_unwatched


def batch_norm(
    norm: nn.Module, x: Tensor, *, relu: bool = False, base: Tensor | None = None
) -> Tensor:
    """Return ``base + f(norm(x))``, f the identity or relu.

    Parameters
    ----------
    norm : nn.Module
        An `nn.BatchNorm1d` that trains, with weights and running statistics, goes through the
        compiled kernels, where rows are fp32 or bf16 and its own tensors float32; it is left as
        its own call would leave it. Any other module is called, and the rest follows in torch.
    x : Tensor, float [row, feature]
    relu : bool
    base : Tensor, same dtype [row, feature], optional
        What is added, zero without it.

    Returns
    -------
    Tensor, same dtype [row, feature]
        Differentiable in `x`, `base` and the weights, any number of times.

    Raises
    ------
    ShapeError, DtypeError
        If `base` does not go with `x`.
    ValueError
        By torch, if a norm that trains is given a single row.

    Notes
    -----
    Source: Ioffe and Szegedy, Batch normalization, arXiv:1502.03167.
    Checked against: torch in float64.

    Examples
    --------
    >>> import torch, core
    >>> core.batch_norm(torch.nn.BatchNorm1d(1, eps=0), torch.tensor([[1.0], [3.0]]), relu=True)
    tensor([[0.],
            [1.]], grad_fn=<_BatchNormBackward>)
    """
    if base is not None and (base.shape != x.shape or base.dtype != x.dtype):
        check_shape("batch_norm", "base", base, tuple(x.shape), "give one row per row of x")
        check_dtype("batch_norm", "base", base, (x.dtype,))
    kernels = _kernels(norm, x)
    if kernels is None:
        return _followed(norm(x), relu, base)
    norm._buffers["num_batches_tracked"].add_(1)  # type: ignore[union-attr]  # see `_kernels`
    weight, bias = norm._parameters.values()
    out: Tensor = _BatchNorm.apply(x, base, weight, bias, norm, relu, kernels)
    return out


def _kernels(norm: nn.Module, x: Tensor) -> Kernels | None:
    """Return the kernels where they give what `norm` itself would."""
    if type(norm) is not nn.BatchNorm1d or not norm.training or not is_unwatched(x):
        return None
    # By the dictionaries: a module's own way to its tensors costs a microsecond each.
    own = *norm._parameters.values(), *norm._buffers.values()
    if len(own) != 5 or any(t is None or not t.is_cpu for t in own):
        return None
    if any(t.dtype != torch.float32 for t in own[:4]):  # type: ignore[union-attr]  # none is None
        return None
    hooks = norm._forward_hooks, norm._forward_pre_hooks, norm._backward_hooks
    if any(hooks) or norm._backward_pre_hooks or norm.momentum is None:
        return None
    if x.dim() != 2 or x.shape[0] < 2 or x.shape[1] != norm.num_features:
        return None
    return kernels_for(x, x, (torch.float32, torch.bfloat16))


def _followed(y: Tensor, relu: bool, base: Tensor | None) -> Tensor:
    y = torch.relu(y) if relu else y
    return y if base is None else base + y


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, base: Tensor | None, weight: Tensor, bias: Tensor,
        norm: nn.BatchNorm1d, relu: bool, kernels: Kernels,
    ) -> Tensor:  # fmt: skip
        assert norm.momentum is not None
        mean, variance, _ = norm._buffers.values()
        assert mean is not None
        assert variance is not None
        out, mean, inverse = compiled.batch_norm(
            kernels, x, base, weight, bias, (mean, variance), eps=norm.eps, momentum=norm.momentum,
            relu=relu,
        )  # fmt: skip
        ctx.save_for_backward(x, weight, bias, mean, inverse)
        ctx.eps, ctx.relu, ctx.kernels = norm.eps, relu, kernels
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, inverse = ctx.saved_tensors
        if torch.is_grad_enabled() or not is_unwatched(g):
            gradients = _gradients_of_torch(g, x, weight, bias, ctx.eps, ctx.relu)
        else:
            gradients = compiled.batch_norm_backward(
                ctx.kernels, g, x, weight, bias, mean, inverse, relu=ctx.relu
            )
        dx, *dweights = gradients
        needs = ctx.needs_input_grad
        return dx if needs[0] else None, g if needs[1] else None, *dweights, None, None, None


def _gradients_of_torch(
    g: Tensor, x: Tensor, weight: Tensor, bias: Tensor, eps: float, relu: bool
) -> tuple[Tensor, ...]:
    """Return the gradients of x, weight and bias, themselves differentiable where asked for."""
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        of = tuple(t if t.requires_grad else t.detach().requires_grad_() for t in (x, weight, bias))
        y = functional.batch_norm(
            of[0], None, None, weight=of[1], bias=of[2], training=True, eps=eps
        )
        y = torch.relu(y) if relu else y
        return torch.autograd.grad(y, of, g, create_graph=again)
