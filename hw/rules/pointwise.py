"""Element by element: arithmetic, divisions, transcendental functions, casts, random numbers."""

from __future__ import annotations

import math
from typing import Literal

from hw.formats import FORMAT_BYTE
from hw.program import Op, TensorInfo
from hw.rules.registry import rule
from hw.work import Pointwise, Work

Kind = Literal["arithmetic", "divide", "transcendental"]

# Operations per result. Backward formulas are counted from their definition; a random number is
# taken as eight integer operations (a counter-based generator's rounds, shared over four outputs).
_ARITHMETIC = {
    1: "abs add sub rsub mul neg relu clamp clamp_min clamp_max maximum minimum fmax fmin eq ne lt "
    "le gt ge logical_and logical_or logical_xor logical_not bitwise_and bitwise_or bitwise_xor "
    "bitwise_not where masked_fill sign sgn floor ceil round trunc frac threshold hardtanh conj "
    "_conj_physical isnan isinf isfinite square tril triu bitwise_left_shift bitwise_right_shift "
    "__lshift__ __rshift__ __and__ __or__ __xor__ copysign signbit heaviside _to_copy leaky_relu "
    "threshold_backward hardtanh_backward nan_to_num hardshrink softshrink",
    2: "addcmul lerp native_dropout_backward leaky_relu_backward hardsigmoid hardswish "
    "tanh_backward sigmoid_backward smooth_l1_loss _prelu_kernel _prelu_kernel_backward fmod "
    "remainder floor_divide mse_loss_backward cumsum cumprod cummax cummin huber_loss_backward "
    "smooth_l1_loss_backward hardswish_backward hardsigmoid_backward",
    8: "bernoulli uniform normal random native_dropout rand_like randn_like rand randn randint "
    "randperm exponential multinomial",
}
#: Results of these depend on more than the entry in their own place.
_NOT_BY_ENTRY = {
    *("cumsum", "cumprod", "cummax", "cummin", "logcumsumexp", "randperm", "multinomial"),
    *("native_dropout", "glu", "glu_backward"),
}
#: Ops whose every result stems from the entries in its own place, so that passes may be joined.
BY_ENTRY: set[str] = {"aten.pow", "aten.float_power", "core.dequantize", "core.round_to_format"}
_DIVIDE = {
    1: "div reciprocal sqrt rsqrt true_divide",
    3: "addcdiv",
}
_TRANSCENDENTAL = {
    1: "exp exp2 expm1 log log2 log10 log1p tanh sigmoid sin cos tan erf erfc erfinv sinh cosh "
    "asin acos atan atan2 asinh acosh atanh hypot lgamma digamma xlogy logaddexp softplus elu "
    "log_sigmoid_forward special_erfcx",
    2: "silu gelu mish glu softplus_backward elu_backward log_sigmoid_backward special_xlog1py "
    "logcumsumexp",
    3: "silu_backward gelu_backward glu_backward mish_backward",
}


def pointwise(
    op: Op, kind: Kind, flop: float, out: TensorInfo | None = None, n_input: int | None = None
) -> Pointwise:
    """Return the item for results like `out` (the op's first one unless given)."""
    out = op.out if out is None else out
    operands = [t for t in op.inputs if t.n_element > 1]
    widest = max(operands, key=lambda t: (t.n_element, FORMAT_BYTE[t.format]), default=out)
    return Pointwise(
        n_element=out.n_element,
        kind=kind,
        in_format=widest.format,
        out_format=out.format,
        n_input=max(1, len(operands)) if n_input is None else n_input,
        flop_per_element=flop,
    )


def _register(table: dict[int, str], kind: Kind) -> None:
    for flop, names in table.items():

        def element_wise(op: Op, flop: int = flop) -> list[Work]:
            if not op.outputs or op.out.n_element == 0:
                return []
            is_complex_product = op.out.is_complex and op.name.startswith(("aten.mul", "aten.div"))
            return [pointwise(op, kind, flop * 3 if is_complex_product else flop)]

        rule(*(f"aten.{name}" for name in names.split()))(element_wise)
        BY_ENTRY.update(f"aten.{name}" for name in set(names.split()) - _NOT_BY_ENTRY)


_register(_ARITHMETIC, "arithmetic")
_register(_DIVIDE, "divide")
_register(_TRANSCENDENTAL, "transcendental")


@rule("aten.pow", "aten.float_power")
def _power(op: Op) -> list[Work]:
    exponent = op.args["exponent"]
    if isinstance(exponent, int | float) and float(exponent).is_integer() and abs(exponent) <= 8:
        n_multiply = max(1, math.ceil(math.log2(max(abs(exponent), 2))))
        kind: Kind = "arithmetic" if exponent >= 0 else "divide"
        return [pointwise(op, kind, n_multiply)]
    if exponent in (0.5, -0.5):
        return [pointwise(op, "divide", 1)]
    return [pointwise(op, "transcendental", 2)]


@rule("aten.bucketize", "aten.searchsorted")
def _bisect(op: Op) -> list[Work]:
    boundaries = op.tensor("boundaries" if "boundaries" in op.args else "sorted_sequence")
    return [pointwise(op, "arithmetic", 2 * math.ceil(math.log2(max(boundaries.shape[-1], 2))))]


@rule("aten.complex", "aten.polar", "aten.angle")
def _complex(op: Op) -> list[Work]:
    if op.name == "aten.complex":
        return [pointwise(op, "arithmetic", 1)]
    return [pointwise(op, "transcendental", 2)]


# Operations an entry: scale, round, clamp; back again a product. A scale's own reduction is
# traced apart; rounding to a format adds half of the last kept bit, clears the tail and clamps.
ROUNDING_OPERATIONS = {"core.quantize": 3, "core.dequantize": 1, "core.round_to_format": 3}


@rule(*ROUNDING_OPERATIONS)
def _round(op: Op) -> list[Work]:
    return [pointwise(op, "arithmetic", ROUNDING_OPERATIONS[op.name])]
