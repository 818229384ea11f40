"""How a model is trained, in words both applications share: pattern method, optimizer, rate."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from apps.lab.config import Config
from core import BlockSparseLinear, DenseLinear, LayerSpec
from core.errors import ConfigError
from core.optim import Adam, Lamb, Sgd

if TYPE_CHECKING:
    from core.precision import LossScaler
    from core.sparse import PatternUpdater

# A density that rounds to every block of any layer, so that a layer which will be pruned starts
# whole and is block-sparse all the same.
WHOLE = 1 - 1e-12
# Peak rate of each optimizer over that of AdamW, for which `learning_rate` is stated: LAMB moves a
# tensor by rate x its norm, SGD by rate x gradient. Chosen on the valid parts of the embedded sets.
RATE_OVER_ADAMW = {"adamw": 1.0, "lamb": 2.0, "sgd": 5.0}
MOMENTUM = 0.9
# Share of all steps over which patterns change. RigL and SET stop at three quarters (Evci et al.
# 2020, arXiv 1911.11134, section 4); pruning leaves the last four tenths to recover.
_CHANGES = {"rigl": (0.0, 0.75), "set": (0.0, 0.75), "prune": (0.1, 0.6)}
N_CHANGE = 20


class Recipe(Config):
    """What both applications let a training run choose; an application's own settings follow.

    Parameters
    ----------
    method : str
        How the pattern of a variant with density below 1 comes about. "static": drawn once;
        "set": weak blocks make place for random ones; "rigl": for those of large gradient;
        "prune": all blocks live at first and the weakest go little by little; "dense-to-sparse":
        they go at once, half-way.
    optimizer : str
        "adamw", "lamb" or "sgd" (momentum 0.9). The learning rate is stated for AdamW; LAMB takes
        twice that and SGD five times.
    state_format : str
        In which the optimizer's moments rest: fp32, bf16 or fp8_e4m3.
    rate_rule : str
        "none": the learning rate is taken as it is. "sqrt" and "linear": it is stated for the
        default batch size, and grows with the root of the batch size (Malladi et al. 2022, arXiv
        2205.10287) or in proportion to it (Goyal et al. 2017, arXiv 1706.02677).
    """

    method: Literal["static", "set", "rigl", "prune", "dense-to-sparse"] = "static"
    optimizer: Literal["adamw", "lamb", "sgd"] = "adamw"
    state_format: Literal["fp32", "bf16", "fp8_e4m3"] = "fp32"
    rate_rule: Literal["none", "sqrt", "linear"] = "none"

    def rate(self, learning_rate: float, batch: int, usual_batch: int) -> float:
        """Give the peak learning rate of this optimizer at a batch size.

        An optimizer that an application adds has the learning rate stated for itself.
        """
        power = {"none": 0.0, "sqrt": 0.5, "linear": 1.0}[self.rate_rule]
        factor = RATE_OVER_ADAMW.get(self.optimizer, 1.0)
        return learning_rate * factor * (batch / usual_batch) ** power

    def span(self) -> tuple[float, float]:
        """Give the shares of all steps at which patterns begin and cease to change."""
        return _CHANGES[self.method]

    def first_spec(self, spec: LayerSpec) -> LayerSpec:
        """Give the specification that a layer begins with: whole where it will be pruned."""
        if spec.density == 1 or self.method not in ("prune", "dense-to-sparse"):
            return spec
        return dataclasses.replace(spec, density=WHOLE)

    def make_optimizer(
        self,
        model: nn.Module,
        rate: float,
        *,
        weight_decay: float,
        betas: tuple[float, float] = (0.9, 0.999),
        decay_vectors: bool = True,
        seed: int = 0,
    ) -> torch.optim.Optimizer:
        """Give the optimizer of a model.

        Parameters
        ----------
        rate : float
            Peak learning rate, as `rate` gives it.
        weight_decay : float
            On matrices and blocks; on biases and norms too where `decay_vectors` is set.
        seed : int
            Of the random rounding of narrow moments.
        """
        groups: list[dict[str, Any]] = [
            {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": weight_decay},
            {
                "params": [p for p in model.parameters() if p.ndim <= 1],
                "weight_decay": weight_decay if decay_vectors else 0.0,
            },
        ]
        narrow: dict[str, Any] = {"state_format": self.state_format, "seed": seed}
        if self.optimizer == "sgd":
            # Decay is part of the gradient here, and momentum adds it up: the same share of the
            # weights goes in a step as with AdamW.
            for group in groups:
                group["weight_decay"] *= (1 - MOMENTUM) / RATE_OVER_ADAMW["sgd"]
            return Sgd(groups, rate, momentum=MOMENTUM, **narrow)
        if self.optimizer == "lamb":
            groups[1]["adapt"] = False
            return Lamb(groups, rate, beta1=betas[0], beta2=betas[1], **narrow)
        if self.state_format == "fp32":
            return torch.optim.AdamW(groups, lr=rate, betas=betas, fused=True)
        return Adam(groups, rate, beta1=betas[0], beta2=betas[1], **narrow)

    def make_updater(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        density: float,
        n_step: int,
        seed: int,
    ) -> PatternUpdater | None:
        """Give what changes the patterns while `model` trains for `n_step` steps, if they change.

        Parameters
        ----------
        density : float
            Of the variant; "prune" and "dense-to-sparse" end there.

        Raises
        ------
        ConfigError
            If the method changes patterns and the variant is dense.
        """
        from core.sparse import PatternUpdater, TopologyRule

        if self.method == "static":
            return None
        if density == 1:
            raise ConfigError(
                f"method {self.method!r} changes the pattern of sparse layers, but the variant is "
                "dense; set variant.density below 1, or leave the method out"
            )
        if self.method == "dense-to-sparse":
            half = max(1, n_step // 2)
            rule = TopologyRule("prune", first=half, last=half, every=1, density=density)
        else:
            begin, end = self.span()
            last = max(1, math.floor(end * n_step))
            every = max(1, math.ceil((end - begin) * n_step / N_CHANGE))
            first = min(last, max(every, math.floor(begin * n_step)))
            rule = TopologyRule(self.method, first=first, last=last, every=every, density=density)
        generator = torch.Generator().manual_seed(seed)
        return PatternUpdater(model, optimizer, rule, generator=generator)


def make_scaler(model: nn.Module) -> LossScaler | None:
    """Give a loss scaler where gradients of a layer are fp16, whose range is short."""
    from core.precision import LossScaler

    layers = (m for m in model.modules() if isinstance(m, DenseLinear | BlockSparseLinear))
    is_short = any(layer.roles.gradient.name == "fp16" for layer in layers)
    return LossScaler() if is_short else None
