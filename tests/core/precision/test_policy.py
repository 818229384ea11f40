"""Recipes and what a policy refuses."""

import pytest

from core.errors import FormatError
from core.precision import RECIPES, PrecisionPolicy
from core.sparse import LayerSpec


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_makes_a_layer(name):
    policy = RECIPES[name]
    spec = LayerSpec(0.5, 4, **policy.layer_formats())
    assert (spec.weight_format, spec.activation_format) == (policy.weight, policy.activation)
    assert spec.gradient_format == policy.gradient


def test_only_fp16_gradients_need_a_scaled_loss():
    assert [n for n, p in RECIPES.items() if p.needs_loss_scaling] == ["fp16"]


def test_clear_errors():
    with pytest.raises(FormatError, match=r"unknown format 'fp9'"):
        PrecisionPolicy(weight="fp9")
    with pytest.raises(FormatError, match=r"accumulator must be fp32, got 'bf16'"):
        PrecisionPolicy("bf16", "bf16", accumulator="bf16")
    with pytest.raises(FormatError, match=r"accumulator must be fp64, got 'fp32'"):
        PrecisionPolicy("fp64", "fp64")
    with pytest.raises(FormatError, match=r"gradient must be fp64 or .* got 'int8'"):
        PrecisionPolicy(gradient="int8")
    with pytest.raises(FormatError, match=r"master must be fp32 or fp64 or bf16, got 'int8'"):
        PrecisionPolicy(master="int8")
    with pytest.raises(FormatError, match=r"optimizer_state must be .* got 'int4'"):
        PrecisionPolicy(optimizer_state="int4")
