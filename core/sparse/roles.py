"""Number formats of a layer's operands: which of them run, which are imitated."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from core.errors import FormatError
from core.precision.formats import Format, format_named
from core.precision.quantize import fake_quantize
from core.precision.rounding import round_to_format
from core.precision.running import RunningRange


class Roles:
    """Which format each operand of a layer has.

    A native format (bf16, fp16, fp64) is the dtype in which the product really runs; a narrow one
    (8 bits and fewer, tf32) is imitated: operands are rounded to it and the product runs in the
    other operand's native format or, without one, in the dtype of the master weights. ``"fp32"``
    leaves operands as they are, so a layer in double precision stays in double precision. The
    gradient that enters a layer is rounded likewise, with one scale for 8 bits and fewer.
    """

    def __init__(
        self, weight_format: str, activation_format: str, gradient_format: str = "fp32"
    ) -> None:
        self.weight, self.activation = format_named(weight_format), format_named(activation_format)
        self.gradient = format_named(gradient_format)
        native = {
            f.dtype for f in (self.weight, self.activation) if f.is_native and f.name != "fp32"
        }
        if len(native) > 1:
            raise FormatError(
                f"linear layer: weight_format {weight_format!r} and activation_format "
                f"{activation_format!r} ask for products in two dtypes; give both the same"
            )
        self.compute_dtype = native.pop() if native else None
        #: Whether operands and gradients are left as they are.
        self.is_plain = {weight_format, activation_format, gradient_format} == {"fp32"}

    def cast(self, x: Tensor) -> Tensor:
        """Return `x` in the dtype of the product."""
        return x if self.compute_dtype is None else x.to(self.compute_dtype)

    def running_range(self) -> RunningRange | None:
        """Return the new running range of a layer's activations, where their format has one."""
        return RunningRange(self.activation) if self.activation.needs_scale else None

    def activate(self, x: Tensor, running: RunningRange | None) -> Tensor:
        """Return the activation operand of the product."""
        return self.cast(imitate(x, self.activation) if running is None else running(x))

    def receive(self, y: Tensor) -> Tensor:
        """Return `y`, whose gradient will come in the gradient format."""
        is_held = self.gradient.name == "fp32" or self.gradient.dtype == self.compute_dtype
        return y if is_held else _RoundBack.apply(y, self.gradient)


class _RoundThrough(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, name: str) -> Tensor:
        return round_to_format(x, name)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, str], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        return g, None


class _RoundBack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, format: Format) -> Tensor:
        ctx.format = format
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        format = ctx.format
        if format.needs_scale:
            return fake_quantize(g, format), None
        return round_to_format(g, format), None


def imitate(x: Tensor, format: Format, axis: int | None = None) -> Tensor:
    """Return `x` rounded to a format that is not native, with a scale for each index of `axis`."""
    if format.is_native:
        return x
    return (
        fake_quantize(x, format, axis=axis)
        if format.needs_scale
        else _RoundThrough.apply(x, format.name)
    )
