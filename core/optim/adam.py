"""Adam with decoupled weight decay."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from torch import Tensor
from torch.optim.optimizer import ParamsT

from core.optim.stateful import StatefulOptimizer


class Adam(StatefulOptimizer):
    """Adam, its weight decay apart from the gradient (AdamW).

    The rule of `torch.optim.AdamW`, with both moments at rest in `state_format`; see
    `StatefulOptimizer` for what that does.

    Parameters
    ----------
    params : iterable of Tensor or of dict
    lr, beta1, beta2, eps, weight_decay : float
    state_format : str
    seed : int

    Notes
    -----
    Source: Kingma & Ba 2015, arXiv 1412.6980, algorithm 1; Loshchilov & Hutter 2019,
    arXiv 1711.05101, algorithm 2.

    Examples
    --------
    >>> import torch
    >>> from core.optim import Adam
    >>> w = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    >>> optimizer = Adam([w], lr=0.1, state_format="bf16")
    >>> w.square().sum().backward()
    >>> optimizer.step()
    >>> w.detach().round(decimals=3)
    tensor([ 0.9000, -1.9000])
    """

    moments: ClassVar[dict[str, bool]] = {"mean": False, "square": True}

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        *,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        state_format: str = "fp32",
        seed: int = 0,
        **more: Any,
    ) -> None:
        defaults = {"lr": lr, "beta1": beta1, "beta2": beta2, "eps": eps}
        defaults |= {"weight_decay": weight_decay, **more}
        super().__init__(params, defaults, state_format=state_format, seed=seed)

    def update(
        self,
        weight: Tensor,
        grad: Tensor,
        moments: list[Tensor],
        group: dict[str, Any],
        n_step: int,
    ) -> None:
        """Do one step for one parameter."""
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.sub_(self.direction(grad, moments, group, n_step), alpha=group["lr"])

    @staticmethod
    def direction(
        grad: Tensor, moments: list[Tensor], group: dict[str, Any], n_step: int
    ) -> Tensor:
        """Update both moments in place; return the unbiased mean over the root of the square."""
        mean, square = moments
        beta1, beta2 = group["beta1"], group["beta2"]
        mean.lerp_(grad, 1 - beta1)
        square.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        root = square.sqrt().div_(math.sqrt(1 - beta2**n_step)).add_(group["eps"])
        return mean.div(1 - beta1**n_step).div_(root)
