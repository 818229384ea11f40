"""LAMB: Adam whose step of each layer is as long as its weights ask for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from core.optim.adam import Adam


class Lamb(Adam):
    """LAMB, for large batches: each tensor moves by `lr` times the norm of its weights.

    Parameters
    ----------
    params : iterable of Tensor or of dict
        A group with ``adapt=False`` takes plain Adam steps, as is usual for biases and norms.
    lr, beta1, beta2, eps, weight_decay : float
    adapt : bool
    state_format : str
    seed : int

    Notes
    -----
    r = m / (sqrt(v) + eps) with unbiased moments; u = r + weight_decay w;
    w = w - lr |w| / |u| u, the ratio being 1 where a norm is zero.
    Source: You et al. 2020, arXiv 1904.00962, algorithm 2, with the identity for phi. The norms
    are those of one parameter tensor; live blocks of a block-sparse layer are one tensor.

    Examples
    --------
    >>> import torch
    >>> from core.optim import Lamb
    >>> w = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    >>> w.square().sum().backward()
    >>> Lamb([w], lr=0.1).step()  # a tenth of the weights' own length
    >>> round(float((w.detach() - torch.tensor([3.0, 4.0])).norm()), 3)
    0.5
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        *,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        adapt: bool = True,
        state_format: str = "fp32",
        seed: int = 0,
    ) -> None:
        super().__init__(
            params,
            lr,
            beta1=beta1,
            beta2=beta2,
            eps=eps,
            weight_decay=weight_decay,
            adapt=adapt,
            state_format=state_format,
            seed=seed,
        )

    def update(
        self,
        weight: Tensor,
        grad: Tensor,
        moments: list[Tensor],
        group: dict[str, Any],
        n_step: int,
    ) -> None:
        """Do one step for one parameter."""
        u = self.direction(grad, moments, group, n_step)
        u.add_(weight, alpha=group["weight_decay"])
        if group["adapt"]:
            size, length = weight.norm(), u.norm()
            u.mul_(torch.where((size > 0) & (length > 0), size / length, 1.0))
        weight.sub_(u, alpha=group["lr"])
