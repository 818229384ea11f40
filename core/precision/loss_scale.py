"""Dynamic loss scaling: keeps small gradients above the underflow of a short format."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from core.errors import ConfigError


class LossScaler:
    """Multiplies the loss so that gradients use the range of their format, and undoes it.

    A step whose gradients overflow is left out and halves the scale; `every` good steps in a row
    double it (Micikevicius et al. 2018, arXiv 1710.03740, section 3.2). Scales are powers of two,
    so that unscaling is exact.

    Parameters
    ----------
    scale : float
        The first scale.
    every : int
        Good steps before the scale doubles.
    smallest : float
        Below it the run counts as lost.

    Examples
    --------
    >>> from core.precision import LossScaler
    >>> scaler = LossScaler(1024.0)
    >>> scaler.scale
    1024.0
    """

    def __init__(self, scale: float = 2.0**16, *, every: int = 2000, smallest: float = 1.0) -> None:
        self.scale, self.every, self.smallest = scale, every, smallest
        self.n_good = self.n_skipped = 0

    def scaled(self, loss: Tensor) -> Tensor:
        """Return the loss to call ``backward()`` on."""
        return loss * self.scale

    @torch.no_grad()
    def step(self, optimizer: torch.optim.Optimizer) -> bool:
        """Unscale the gradients and step; return whether the step was taken.

        Raises
        ------
        ConfigError
            If gradients overflow at the smallest scale: then it is not the scale.
        """
        parameters = (p for group in optimizer.param_groups for p in group["params"])
        grads = [p.grad for p in parameters if p.grad is not None]
        if all(bool(g.isfinite().all()) for g in grads):
            for g in grads:
                g.mul_(1 / self.scale)
            optimizer.step()
            self.n_good += 1
            if self.n_good % self.every == 0:
                self.scale *= 2
            return True
        if self.scale / 2 < self.smallest:
            raise ConfigError(
                f"LossScaler: gradients are not finite at the smallest loss scale {self.scale:g} "
                f"after {self.n_skipped} skipped steps; lower the learning rate, or give "
                "gradients a format of wider range (bf16)"
            )
        self.scale /= 2
        self.n_good = 0
        self.n_skipped += 1
        return False

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs to go on as before."""
        return {"scale": self.scale, "n_good": self.n_good, "n_skipped": self.n_skipped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.scale, self.n_good = state["scale"], state["n_good"]
        self.n_skipped = state["n_skipped"]
