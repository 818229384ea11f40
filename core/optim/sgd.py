"""Stochastic gradient descent with momentum."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor
from torch.optim.optimizer import ParamsT

from core.optim.stateful import StatefulOptimizer


class Sgd(StatefulOptimizer):
    """SGD with heavy-ball momentum: m = momentum m + g + weight_decay w; w = w - lr m.

    The rule of `torch.optim.SGD`, with momentum at rest in `state_format`; see
    `StatefulOptimizer` for what that does.

    Parameters
    ----------
    params : iterable of Tensor or of dict
    lr, momentum, weight_decay : float
    state_format : str
    seed : int

    Examples
    --------
    >>> import torch
    >>> from core.optim import Sgd
    >>> w = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    >>> w.square().sum().backward()
    >>> Sgd([w], lr=0.25, momentum=0.0).step()
    >>> w.detach()
    tensor([ 0.5000, -1.0000])
    """

    moments: ClassVar[dict[str, bool]] = {"momentum": False}

    def __init__(
        self,
        params: ParamsT,
        lr: float,
        *,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        state_format: str = "fp32",
        seed: int = 0,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
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
        (m,) = moments
        m.mul_(group["momentum"]).add_(grad)
        if group["weight_decay"]:
            m.add_(weight, alpha=group["weight_decay"])
        weight.sub_(m, alpha=group["lr"])
