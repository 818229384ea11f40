"""What the optimizers share: moments at rest in a chosen format, and weights in bf16.

Moments are expanded to float32 for an update and rounded back at random, so that changes far
below the spacing of the format still arrive in the mean: with rounding to nearest, a second moment
in bf16 would stop moving as soon as one step changes it by less than 2**-9 of itself, which at a
decay of 0.999 is always. Measured under normal gradients, 4000 steps at that decay: second moments
scatter about their float32 value by 4 % in bf16, 33 % in fp8_e4m3 and 48 % in fp8_e5m2, and lie in
the mean 0, 5 and 9 % above it, so that steps become shorter, never longer. Draws depend on
(seed, step, parameter) alone: a resumed run repeats them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from core.errors import ConfigError, FormatError
from core.precision.formats import FORMATS, Format
from core.precision.quantize import scale_of

#: Formats in which moments can rest.
STATE_FORMATS = ("fp32", "fp64", "bf16", "fp8_e4m3", "fp8_e5m2")
_MASK = (1 << 64) - 1


class StatefulOptimizer(torch.optim.Optimizer):
    """Base of the optimizers: a subclass names its moments and updates one parameter.

    Parameters
    ----------
    params : iterable of Tensor or of dict
        As in torch. Parameters in bf16 are updated in float32 and rounded back at random.
    defaults : dict
        Settings of a group; `lr` and `weight_decay` are checked.
    state_format : str
        One of `STATE_FORMATS`. Formats of 8 bits hold one scale for each tensor besides, and the
        square roots of second moments, which halves the powers of two they have to span.
    seed : int
        Of the random rounding.

    Raises
    ------
    ConfigError
        If a setting lies outside its bounds.
    FormatError
        If the state format is not one of `STATE_FORMATS`.
    """

    #: Name of each moment, and whether it is a mean of squares.
    moments: ClassVar[dict[str, bool]]

    def __init__(
        self, params: ParamsT, defaults: dict[str, Any], *, state_format: str, seed: int
    ) -> None:
        who = type(self).__name__
        for name in ("lr", "weight_decay", "eps"):
            if not defaults.get(name, 0.0) >= 0:
                raise ConfigError(f"{who}: {name} must be 0 or more, got {defaults[name]}")
        for name in ("beta1", "beta2", "momentum"):
            if not 0 <= defaults.get(name, 0.0) < 1:
                raise ConfigError(f"{who}: {name} must lie in [0, 1), got {defaults[name]}")
        if state_format not in STATE_FORMATS:
            raise FormatError(
                f"{who}: state_format must be one of {', '.join(STATE_FORMATS)}, "
                f"got {state_format!r}"
            )
        self.state_format, self.seed = state_format, seed
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; return what `closure` gives."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        format = FORMATS[self.state_format]
        index = -1
        for group in self.param_groups:
            for p in group["params"]:
                index += 1
                if p.grad is None:
                    continue
                state = self.state[p]
                n_step = state["n_step"] = state.get("n_step", 0) + 1
                wide = _work_dtype(p, format)
                read = [
                    _unpacked(state, name, p, wide, is_square)
                    for name, is_square in self.moments.items()
                ]
                weight = p.to(wide)
                self.update(weight, p.grad.to(wide), read, group, n_step)
                for i, (name, is_square) in enumerate(self.moments.items(), start=1):
                    seed = _mix(self.seed, n_step, index, i)
                    _pack(state, name, read[i - 1], format, is_square, seed)
                if weight is not p:
                    p.copy_(_rounded(weight, p.dtype, _mix(self.seed, n_step, index, 0)))
        return loss

    def update(
        self,
        weight: Tensor,
        grad: Tensor,
        moments: list[Tensor],
        group: dict[str, Any],
        n_step: int,
    ) -> None:
        """Update `weight` and `moments` in place, all in one float dtype; n_step counts from 1."""
        raise NotImplementedError

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from `state_dict` bit for bit."""
        super().load_state_dict(state_dict)
        # torch has cast the state to the dtype of the parameters: put back what was stored.
        parameters: Iterable[Tensor] = (p for g in self.param_groups for p in g["params"])
        names = (i for g in state_dict["param_groups"] for i in g["params"])
        for i, p in zip(names, parameters, strict=True):
            for key, value in state_dict["state"].get(i, {}).items():
                if isinstance(value, Tensor):
                    self.state[p][key] = value.to(p.device, copy=True)


def _work_dtype(p: Tensor, format: Format) -> torch.dtype:
    return torch.float64 if torch.float64 in (p.dtype, format.dtype) else torch.float32


def _unpacked(
    state: dict[str, Any], name: str, p: Tensor, wide: torch.dtype, is_square: bool
) -> Tensor:
    if name not in state:
        return torch.zeros_like(p, dtype=wide)
    held: Tensor = state[name].to(wide)
    if name + "_scale" not in state:
        return held
    held.mul_(state[name + "_scale"])
    return held.square_() if is_square else held


def _pack(
    state: dict[str, Any], name: str, x: Tensor, format: Format, is_square: bool, seed: int
) -> None:
    if format.needs_scale:
        x = x.sqrt() if is_square else x
        scale = scale_of(x, format)
        state[name + "_scale"] = scale
        x = x / scale
        if is_square:
            # A mean of squares that became zero would divide its first moment by eps alone.
            least = 2.0 ** (format.min_exponent - format.n_mantissa)
            x = torch.where(x > 0, x.clamp(min=least), x)
    is_wide = format.dtype in (torch.float32, torch.float64)
    state[name] = x if is_wide else _rounded(x, format.dtype, seed)


def _rounded(x: Tensor, dtype: torch.dtype, seed: int) -> Tensor:
    if dtype in (torch.float32, torch.float64):
        return x.to(dtype)
    name = next(f.name for f in FORMATS.values() if f.dtype == dtype)
    return torch.ops.core.round_to_format(x, name, seed).to(dtype)


def _mix(*parts: int) -> int:
    """Hash integers into 0..2**63-1 by splitmix64 (Steele et al. 2014, 10.1145/2714064.2660195)."""
    h = 0
    for part in parts:
        h = (h + part + 0x9E3779B97F4A7C15) & _MASK
        h = ((h ^ (h >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        h = ((h ^ (h >> 27)) * 0x94D049BB133111EB) & _MASK
        h ^= h >> 31
    return h >> 1
