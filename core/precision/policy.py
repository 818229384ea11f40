"""Which number format each tensor role has, and named recipes of such choices."""

from __future__ import annotations

from dataclasses import dataclass, fields

from core.errors import FormatError
from core.precision.formats import FORMATS, format_named


@dataclass(frozen=True)
class PrecisionPolicy:
    """One format for each role that a tensor can have in training.

    Parameters
    ----------
    weight, activation : str
        Operands of the forward product. 8 bits and fewer are scaled: weights by output row,
        activations as a whole.
    gradient : str
        What flows back into a layer; 8 bits and fewer are scaled as a whole.
    accumulator : str
        In which products add up. The kernels add in fp32, in fp64 only for operands in fp64.
    master : str
        The parameters that the optimizer updates: fp32, fp64, or bf16 with stochastic rounding.
    optimizer_state : str
        Momentum and second moments at rest: fp32, or bf16 or fp8_e4m3 with stochastic rounding.

    Raises
    ------
    FormatError
        If a format is unknown or unfit for its role.

    Examples
    --------
    >>> from core.precision import PrecisionPolicy
    >>> PrecisionPolicy(weight="int8", activation="bf16").activation
    'bf16'
    """

    weight: str = "fp32"
    activation: str = "fp32"
    gradient: str = "fp32"
    accumulator: str = "fp32"
    master: str = "fp32"
    optimizer_state: str = "fp32"

    def __post_init__(self) -> None:
        for field in fields(self):
            format_named(getattr(self, field.name))
        adds_in = "fp64" if self.weight == self.activation == "fp64" else "fp32"
        allowed = {
            "accumulator": (adds_in,),
            "gradient": tuple(n for n, f in FORMATS.items() if f.kind == "float"),
            "master": ("fp32", "fp64", "bf16"),
            "optimizer_state": ("fp32", "fp64", "bf16", "fp8_e4m3"),
        }
        for role, names in allowed.items():
            if getattr(self, role) not in names:
                raise FormatError(
                    f"PrecisionPolicy: {role} must be {' or '.join(names)}, "
                    f"got {getattr(self, role)!r}"
                )

    @property
    def needs_loss_scaling(self) -> bool:
        """Whether gradients have the short exponent of fp16 and no scale of their own."""
        gradient = FORMATS[self.gradient]
        return gradient.n_exponent <= 5 and not gradient.needs_scale

    def layer_formats(self) -> dict[str, str]:
        """Return the keywords of `core.LayerSpec`: ``LayerSpec(density, **it)``."""
        return {
            "weight_format": self.weight,
            "activation_format": self.activation,
            "gradient_format": self.gradient,
        }


#: Named choices. fp16: Micikevicius et al. 2018, arXiv 1710.03740 (fp32 master, scaled loss).
#: bf16: Kalamkar et al. 2019, arXiv 1905.12322. fp8: Micikevicius et al. 2022, arXiv 2209.05433,
#: section 3 (e4m3 forward, e5m2 backward). bf16-lean keeps nothing wider than bf16 between steps.
RECIPES: dict[str, PrecisionPolicy] = {
    "fp32": PrecisionPolicy(),
    "fp64": PrecisionPolicy("fp64", "fp64", "fp64", "fp64", "fp64", "fp64"),
    "tf32": PrecisionPolicy("tf32", "tf32", "tf32"),
    "bf16": PrecisionPolicy("bf16", "bf16", "bf16"),
    "bf16-lean": PrecisionPolicy("bf16", "bf16", "bf16", master="bf16", optimizer_state="bf16"),
    "fp16": PrecisionPolicy("fp16", "fp16", "fp16"),
    "fp8": PrecisionPolicy("fp8_e4m3", "fp8_e4m3", "fp8_e5m2"),
    "fp8-lean": PrecisionPolicy("fp8_e4m3", "fp8_e4m3", "fp8_e5m2", optimizer_state="fp8_e4m3"),
    "int8": PrecisionPolicy("int8", "int8"),
    "int4-weight": PrecisionPolicy("int4", "bf16"),
}
