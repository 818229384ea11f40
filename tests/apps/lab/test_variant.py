"""The four variants of a study, and names that say what the layers are."""

import pytest

from apps.lab.variant import VARIANTS, Variant


def test_the_four_variants_say_what_they_are():
    assert {
        name: (v.density, v.block, v.weight_format, v.activation_format)
        for name, v in VARIANTS.items()
    } == {
        "dense-fp32": (1.0, 16, "fp32", "fp32"),
        "dense-bf16": (1.0, 16, "bf16", "bf16"),
        "sparse-16x16-75": (0.25, 16, "fp32", "fp32"),
        "sparse-16x16-75-int8": (0.25, 16, "int8", "fp32"),
    }
    assert [v.name for v in VARIANTS.values()] == list(VARIANTS)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_presets_settings_make_its_name(name):
    assert Variant(**VARIANTS[name].model_dump(exclude={"name"})).name == name
    assert Variant.model_validate(name) == VARIANTS[name]


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"name": "dense-fp32", "density": 0.5}, "sparse-16x16-50"),
        ({"density": 0.1, "block": 4, "weight_format": "fp8_e4m3"}, "sparse-4x4-90-fp8_e4m3"),
        ({"weight_format": "int8", "activation_format": "bf16"}, "dense-int8-bf16"),
        ({"name": "mine", "density": 0.5}, "mine"),
    ],
)
def test_a_name_never_says_what_the_layers_are_not(given, name):
    assert Variant(**given).name == name


def test_the_layer_spec_carries_the_settings():
    core = pytest.importorskip("core")
    if not hasattr(core, "LayerSpec"):
        pytest.skip("core has no LayerSpec")
    spec = VARIANTS["sparse-16x16-75-int8"].layer_spec()
    assert (spec.density, spec.block) == (0.25, 16)
    assert (spec.weight_format, spec.activation_format) == ("int8", "fp32")


def test_no_two_settings_share_a_name():
    formats = ("fp64", "fp32", "tf32", "bf16", "fp16", "fp8_e4m3", "int8", "int4")
    names = {
        (density, weight, activation): Variant(
            density=density, weight_format=weight, activation_format=activation
        ).name
        for density in (1.0, 0.25)
        for weight in formats
        for activation in formats
    }
    assert len(set(names.values())) == len(names)
    assert names[0.25, "int8", "fp32"] == "sparse-16x16-75-int8"
    assert names[0.25, "int8", "int8"] == "sparse-16x16-75-int8-int8"
    assert names[1.0, "bf16", "bf16"] == "dense-bf16"
