"""Configuration: defaults, file, overrides, and the sentence for each mistake."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import field_validator

from apps.lab.config import Config, config_sha256, config_toml, load_config
from apps.lab.variant import VARIANTS, Variant
from core.errors import ConfigError


class Train(Config):
    learning_rate: float = 1e-3
    n_epoch: int = 10
    widths: tuple[int, ...] = (64, 64)
    clip: float | None = 1.0
    label: str = "a"


class Study(Config):
    train: Train = Train(n_epoch=7)
    variant: Variant = VARIANTS["dense-fp32"]
    data: str = "pocket"


def test_defaults_then_file_then_overrides(tmp_path):
    file = tmp_path / "base.toml"
    file.write_text('data = "bace"\n[train]\nlearning_rate = 0.5\nclip = "none"\n')
    config = load_config(Study, file=file, overrides=["train.learning_rate=3e-4"])
    assert config.data == "bace"
    # n_epoch comes from the section's default as the study states it, not from the section's class.
    assert config.train == Train(learning_rate=3e-4, n_epoch=7, clip=None)


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("train.n_epoch=3", ("train", "n_epoch"), 3),
        ("train.widths=[1, 2, 3]", ("train", "widths"), (1, 2, 3)),
        ("train.clip=none", ("train", "clip"), None),
        ("train.clip=2", ("train", "clip"), 2.0),
        ("train.label=3", ("train", "label"), "3"),
        ('train.label="a b"', ("train", "label"), "a b"),
        ("data=some/file.csv", ("data",), "some/file.csv"),
        ("variant=dense-bf16", ("variant", "activation_format"), "bf16"),
        ("variant.density=0.1", ("variant", "density"), 0.1),
    ],
)
def test_an_override_is_typed_from_the_model(override, path, value):
    found = load_config(Study, overrides=[override])
    for name in path:
        found = getattr(found, name)
    assert found == value
    assert type(found) is type(value)


def test_an_override_goes_into_a_section_given_by_name(tmp_path):
    file = tmp_path / "base.toml"
    file.write_text('variant = "sparse-16x16-75-int8"\n')
    variant = load_config(Study, file=file, overrides=["variant.block=8"]).variant
    assert (variant.density, variant.block, variant.weight_format) == (0.25, 8, "int8")
    assert variant.name == "sparse-8x8-75-int8"


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        (
            "[train]\nlearning_rat = 1",
            [],
            r"unknown key 'learning_rat' in .*base\.toml \[train\]; did you mean 'learning_rate'\?",
        ),
        ("dat = 1", [], r"unknown key 'dat' in .*base\.toml; did you mean 'data'\?"),
        ("zzz = 1", [], r"unknown key 'zzz' in .*; it knows data, train, variant"),
        (
            "",
            ["train.n_epochs=1"],
            r"unknown key 'n_epochs' in --set \[train\]; did you mean 'n_ep",
        ),
        ("", ["train.n_epoch=x"], r"--set \[train\]: n_epoch: .*valid integer.*, got 'x'"),
        ("[train]\nn_epoch = 1.5", [], r"base\.toml \[train\]: n_epoch: .*integer.*, got 1\.5"),
        ("train = 3", [], r"base\.toml: train: "),
        ("", ["train.n_epoch"], r"--set train\.n_epoch: expected key=value, such as"),
        ("", ["data.x=1"], r"--set data\.x=1: data is a single value, it has no key 'x'"),
        ("a = ", [], r"base\.toml is not valid TOML: "),
        ("a = " + "[" * 3000, [], r"base\.toml is not valid TOML: "),
        ("", ["train.n_epoch=" + "[" * 3000], r"--set \[train\]: n_epoch: .*valid integer"),
        (
            'variant = "dense-bf61"',
            [],
            r"no variant is named 'dense-bf61'; did you mean 'dense-bf16",
        ),
        ("", ["variant.density=0"], r"--set \[variant\]: density: .*greater than 0.*, got 0"),
        ("", ["train.learning_rate=inf"], r"\[train\]: learning_rate: .*finite number, got inf"),
        ("", ["train.clip=nan"], r"--set \[train\]: clip: .*finite number, got nan"),
    ],
)
def test_a_mistake_is_named(tmp_path, text, overrides, message):
    file = tmp_path / "base.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(Study, file=file, overrides=overrides)


class Targets(Config):
    names: tuple[str, ...] = ()

    @field_validator("names", mode="before")
    @classmethod
    def _one_name(cls, value):
        return (value,) if isinstance(value, str) else value


@pytest.mark.parametrize("spelt", ["y", '"y"', "'y'", '["y"]'])
def test_a_short_form_may_stand_in_quotes(spelt):
    assert load_config(Targets, overrides=[f"names={spelt}"]).names == ("y",)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(
        ConfigError, match=r"cannot read the configuration .*no\.toml: No such file"
    ):
        load_config(Study, file=tmp_path / "no.toml")


@given(
    rate=st.floats(allow_nan=False, allow_infinity=False),
    widths=st.lists(st.integers()).map(tuple),
    clip=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    label=st.text(st.characters(codec="utf-8")).filter(lambda s: s != "none"),
)
def test_toml_reads_back_equal_with_the_same_hash(rate, widths, clip, label):
    config = Study(train=Train(learning_rate=rate, widths=widths, clip=clip, label=label))
    again = Study.model_validate(_none(tomllib.loads(config_toml(config))))
    assert again == config
    assert config_sha256(again) == config_sha256(config)


def _none(value):
    if isinstance(value, dict):
        return {k: _none(v) for k, v in value.items()}
    return None if value == "none" else value


def test_the_saved_configuration_loads_to_the_same_run(tmp_path):
    config = load_config(Study, overrides=["train.clip=none", "variant=sparse-16x16-75"])
    file = tmp_path / "config.toml"
    file.write_text(config_toml(config))
    assert load_config(Study, file=file) == config


def test_the_hash_sees_each_value():
    base = config_sha256(Study())
    assert config_sha256(Study(train=Train(n_epoch=8))) != base
    assert len(base) == 64


def test_a_configuration_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Study().data = "x"
