"""What formats do to the tensors of a run: range, saturation, underflow, signal to noise."""

from __future__ import annotations

import math
import warnings
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from core.precision.formats import Format, format_named
from core.precision.policy import PrecisionPolicy
from core.precision.quantize import scale_of
from core.precision.rounding import round_to_format


class PrecisionWarning(UserWarning):
    """A tensor is about to leave the range of its format, or drowns in its rounding."""


@dataclass(frozen=True)
class Fit:
    """How a tensor fits a format.

    Attributes
    ----------
    max_abs : float
        Largest finite magnitude.
    headroom_bit : float
        Powers of two between it and the largest value of the (scaled) format; negative beyond.
    saturation : float
        Share of finite entries beyond the largest value.
    underflow : float
        Share of entries other than zero that become zero.
    sqnr_db : float
        Power of the signal over that of the rounding error; inf where nothing is lost.
    n_not_finite : int
        Entries that came as NaN or Inf; they count in nothing else.
    """

    max_abs: float
    headroom_bit: float
    saturation: float
    underflow: float
    sqnr_db: float
    n_not_finite: int


@dataclass(frozen=True)
class Reading(Fit):
    """A `Fit` and where it was taken: `role` is weight, activation or gradient."""

    step: int
    layer: str
    role: str
    format: str


@dataclass(frozen=True)
class Limits:
    """Beyond which a reading warns."""

    headroom_bit: float = 1.0
    saturation: float = 1e-3
    underflow: float = 0.5
    sqnr_db: float = 6.0


@torch.no_grad()
def fit_of(
    x: Tensor, format: Format | str, *, scale: Tensor | None = None, axis: int | None = None
) -> Fit:
    """Measure how `x` fits `format`.

    Parameters
    ----------
    x : Tensor, float [...]
    format : Format or str
        Formats of 8 bits and fewer are scaled.
    scale : Tensor, optional
        A scale in use, broadcastable to `x`; else that of the largest magnitude, by `axis` as in
        `core.precision.quantize`.

    Notes
    -----
    SQNR of rounding to m fraction bits, for a signal spread evenly over an octave: each doubling
    of the step costs 6.02 dB (Widrow & Kollar 2008, chapter 12).

    Examples
    --------
    >>> import torch
    >>> from core.precision import fit_of
    >>> fit = fit_of(torch.tensor([1.0, 1e6]), "fp16")
    >>> fit.saturation, fit.max_abs
    (0.5, 1000000.0)
    """
    if isinstance(format, str):
        format = format_named(format)
    x = x.detach()
    is_finite = x.isfinite()
    x = torch.where(is_finite, x, 0.0).double()
    if not format.needs_scale:
        scale = x.new_ones(())
    elif scale is None:
        scale = scale_of(x, format, axis=axis)
    y = x / scale.double()
    held = round_to_format(y, format).nan_to_num(posinf=format.max_value, neginf=-format.max_value)
    n = max(int(is_finite.sum()), 1)
    n_signal = max(int((x != 0).sum()), 1)
    over = float(y.abs().amax()) if y.numel() else 0.0
    # The largest entry over its own scale may exceed the top by the rounding of that scale.
    is_over = y.abs() > (math.inf if format.kind == "binary" else format.max_value * (1 + 2**-20))
    noise = float(((held - y) * scale).square().sum())
    signal = float(x.square().sum())
    ratio = signal / noise if noise else math.inf
    return Fit(
        max_abs=float(x.abs().amax()) if x.numel() else 0.0,
        headroom_bit=math.log2(format.max_value / over) if over else math.inf,
        saturation=int(is_over.sum()) / n,
        underflow=int(((held == 0) & (x != 0)).sum()) / n_signal,
        sqnr_db=10 * math.log10(ratio) if ratio else -math.inf,
        n_not_finite=int((~is_finite).sum()),
    )


class PrecisionMonitor:
    """Takes readings of every linear layer of a model in every n-th step, and warns.

    A layer is any module that owns a parameter ``weight`` of two or more axes, or ``values``: so
    a plain fp32 model can be asked what a narrower policy would do to it. Warns once for each
    layer, role and cause, while the tensor still fits: a format that overflows to infinity warns
    at `Limits.headroom_bit` powers of two before its end.

    Parameters
    ----------
    model : nn.Module
    policy : PrecisionPolicy
        Formats to measure against.
    every : int
        Steps between readings; other steps cost nothing but a check.
    limits : Limits

    Attributes
    ----------
    readings : list of Reading
    """

    def __init__(
        self,
        model: nn.Module,
        policy: PrecisionPolicy,
        *,
        every: int = 100,
        limits: Limits | None = None,
    ) -> None:
        self.policy, self.every, self.limits = policy, every, limits or Limits()
        self.n_step = 0
        self.readings: list[Reading] = []
        self._warned: set[tuple[str, str, str]] = set()
        self._handles = [
            module.register_forward_hook(self._watch(name))
            for name, module in model.named_modules()
            if _weight_of(module) is not None
        ]

    def step(self) -> None:
        """Count one optimizer step."""
        self.n_step += 1

    def summary(self) -> str:
        """Return the latest reading of each layer and role as a table."""
        latest = {(r.layer, r.role): r for r in self.readings}
        head = (
            "layer",
            "role",
            "format",
            "max_abs",
            "headroom_bit",
            "saturated",
            "underflow",
            "sqnr_db",
        )
        rows = [
            (
                r.layer or "model",
                r.role,
                r.format,
                f"{r.max_abs:.3g}",
                f"{r.headroom_bit:.1f}",
                f"{r.saturation:.2%}",
                f"{r.underflow:.2%}",
                f"{r.sqnr_db:.1f}",
            )
            for r in latest.values()
        ]
        width = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
        return "\n".join(
            "  ".join(cell.ljust(w) for cell, w in zip(row, width, strict=True)).rstrip()
            for row in (head, *rows)
        )

    def close(self) -> None:
        """Take the hooks off the model."""
        for handle in self._handles:
            handle.remove()

    def _watch(self, layer: str) -> Any:
        def after_forward(module: nn.Module, args: tuple[Any, ...], y: Any) -> None:
            if not module.training or self.n_step % self.every:
                return
            weight = _weight_of(module)
            assert weight is not None
            self._read(layer, "weight", weight, axis=0)
            if args and isinstance(args[0], Tensor):
                known = getattr(module, "activation_range", None)
                self._read(
                    layer, "activation", args[0], scale=None if known is None else known.scale
                )
            if isinstance(y, Tensor) and y.requires_grad:
                y.register_hook(lambda g: self._read(layer, "gradient", g))

        return after_forward

    def _read(self, layer: str, role: str, x: Tensor, **scaling: Any) -> None:
        format = format_named(getattr(self.policy, role))
        fit = fit_of(x, format, **scaling)
        self.readings.append(
            Reading(**asdict(fit), step=self.n_step, layer=layer, role=role, format=format.name)
        )
        low, limits = format.overflow == "infinity" and not format.needs_scale, self.limits
        causes = {
            "not finite": (fit.n_not_finite > 0, f"{fit.n_not_finite} entries"),
            "headroom": (
                low and fit.headroom_bit < limits.headroom_bit,
                f"{fit.headroom_bit:.2g} bit left below overflow",
            ),
            "saturation": (fit.saturation > limits.saturation, f"{fit.saturation:.2%} clipped"),
            "underflow": (fit.underflow > limits.underflow, f"{fit.underflow:.0%} become zero"),
            "noise": (fit.sqnr_db < limits.sqnr_db, f"signal to noise {fit.sqnr_db:.1f} dB"),
        }
        for cause, (is_bad, text) in causes.items():
            if is_bad and (layer, role, cause) not in self._warned:
                self._warned.add((layer, role, cause))
                warnings.warn(
                    f"step {self.n_step}, layer {layer or 'model'!r}: {role} in {format.name}: "
                    f"{cause}, {text}; scale it, or give it a wider format",
                    PrecisionWarning,
                    stacklevel=2,
                )


def _weight_of(module: nn.Module) -> Tensor | None:
    own = module._parameters
    weight = own.get("values") if own.get("values") is not None else own.get("weight")
    return weight if weight is not None and weight.dim() >= 2 else None
