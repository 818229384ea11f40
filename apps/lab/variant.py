"""The variants of a model that a study compares: how sparse, and in which number formats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from apps.lab.config import Config, near_miss

if TYPE_CHECKING:
    from core import LayerSpec


class Variant(Config):
    """How the large layers of a model are built.

    In a configuration the name alone stands for a preset: ``variant = "dense-bf16"``. A name that
    is left out, or is a preset's while the settings are not, is made from the settings, so that a
    name never says what the layers are not.

    Parameters
    ----------
    density : float, 0 < density <= 1
        Fraction of weight blocks that are live; 1 is a dense layer.
    block : int
        Side of a square block of weights.
    weight_format, activation_format, gradient_format : str
        Names of `core.precision.FORMATS`; of the gradient that flows back into a layer.
    """

    name: str = ""
    density: float = Field(default=1.0, gt=0.0, le=1.0)
    block: int = Field(default=16, ge=1)
    weight_format: str = "fp32"
    activation_format: str = "fp32"
    gradient_format: str = "fp32"

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if value not in VARIANTS:
            raise ValueError(f"no variant is named {value!r}{near_miss(value, list(VARIANTS))}")
        return VARIANTS[value].model_dump()

    @model_validator(mode="after")
    def _name_what_it_is(self) -> Variant:
        preset = PRESETS.get(self.name)
        settings = self.model_dump(exclude={"name"})
        if not self.name or (preset is not None and settings != {**_DENSE, **preset}):
            object.__setattr__(self, "name", self._derived_name())
        return self

    def _derived_name(self) -> str:
        if self.density == 1.0:
            name = f"dense-{self.weight_format}"
        else:
            name = f"sparse-{self.block}x{self.block}-{100 * (1 - self.density):.4g}"
            plain = self.weight_format == self.activation_format == "fp32"
            name += "" if plain else f"-{self.weight_format}"
        # Unsaid: products wholly in a format that processors multiply in, weights alone in others.
        unsaid = self.weight_format if self.weight_format in ("fp64", "bf16", "fp16") else "fp32"
        if self.activation_format != unsaid:
            name += f"-{self.activation_format}"
        return name if self.gradient_format == "fp32" else f"{name}-gradient-{self.gradient_format}"

    def layer_spec(self) -> LayerSpec:
        """Give what `core.build_linear` needs to build a layer of this variant."""
        from core import LayerSpec

        return LayerSpec(
            density=self.density,
            block=self.block,
            weight_format=self.weight_format,
            activation_format=self.activation_format,
            gradient_format=self.gradient_format,
        )


_DENSE: dict[str, Any] = {
    "density": 1.0,
    "block": 16,
    **dict.fromkeys(("weight_format", "activation_format", "gradient_format"), "fp32"),
}

PRESETS: dict[str, dict[str, Any]] = {
    "dense-fp32": {},
    "dense-bf16": {"weight_format": "bf16", "activation_format": "bf16"},
    "sparse-16x16-75": {"density": 0.25},
    "sparse-16x16-75-int8": {"density": 0.25, "weight_format": "int8"},
}

VARIANTS: dict[str, Variant] = {name: Variant(name=name, **PRESETS[name]) for name in PRESETS}

# What a run is costed on unless it names its machines: the tile machine in two generations, and the
# two that it is compared with.
REFERENCE_MACHINES = ("ipu_gc200", "ipu_bow", "a100", "tpu_v3")
