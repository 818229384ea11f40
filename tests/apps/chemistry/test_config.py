"""Settings of a chemistry run: what is usual, and mistakes in sections that others depend on."""

import pytest

from apps.chemistry.config import TrainConfig
from apps.lab.config import load_config
from core.errors import ConfigError


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("data=pocket", r"--set: data: .*got 'pocket'"),
        ("data.source=32", r"--set \[data\]: source: .*valid string"),
        ("data.standardise=often", r"--set \[data\]: standardise: .*got 'often'"),
    ],
)
def test_a_mistake_in_the_data_section_keeps_its_place(override, sentence, tmp_path):
    if override == "data.source=32":  # --set types by the model, a file does not
        file = tmp_path / "a.toml"
        file.write_text("[data]\nsource = 32\n")
        with pytest.raises(ConfigError, match=sentence.replace("--set", r".*a\.toml")):
            load_config(TrainConfig, file=file)
        return
    with pytest.raises(ConfigError, match=sentence):
        load_config(TrainConfig, overrides=[override])


def test_a_text_too_long_for_a_file_is_no_file():
    assert not load_config(TrainConfig, overrides=["data.source=" + "x" * 5000]).data.is_file
