"""The record: its schema as the file shows it, and clear errors when a file is not one."""

import json
import math

import pytest

from apps.lab.config import Config, config_sha256
from apps.lab.record import RECORD_FILE, new_record, read_record, write_record
from apps.lab.variant import VARIANTS, Variant
from core.errors import DataError


class Settings(Config):
    variant: Variant = VARIANTS["sparse-16x16-75"]
    n_epoch: int = 3


COST = {
    "machine": "ipu_gc200",
    "phase": "inference",
    "variant": "sparse-16x16-75",
    "time_s": 1e-5,
    "energy_j": 1e-3,
    "peak_tile_memory_byte": 1000,
    "fits": True,
    "time_interval_s": (8e-6, 2e-5),
    "energy_by": {
        "compute": 4e-4,
        "local_memory": 2e-4,
        "exchange": 1e-4,
        "off_chip": 0.0,
        "static": 3e-4,
    },
    "utilisation": 0.3,
}


def make(**changes):
    given = {
        "application": "toy",
        "command": "tessera toy train",
        "config": Settings(),
        "seed": 3,
        "device": "cpu",
        "data": {
            "name": "toy",
            "source": "embedded",
            "sha256": "0" * 64,
            "n_train": 80,
            "n_valid": 10,
            "n_test": 10,
            "unit": "pK",
        },
        "accuracy": {"test": {"rmse": 0.1 + 0.2, "r2": math.nan}},
        "baselines": {"train mean": {"test": {"rmse": 1.0}}},
        "throughput": {"item": "row", "train_item_per_s": 10.0},
        "cost": [COST],
        "figures": [{"file": "a.svg", "title": "A", "caption": "b", "wrong_if": "c"}],
        "history": [{"epoch": 0, "loss": 1.0}],
    }
    return new_record(**{**given, **changes})


def test_the_file_has_the_documented_fields(tmp_path):
    content = json.loads(write_record(tmp_path, make()).read_text())
    assert content["schema"] == "tessera.record/1"
    assert {
        *("schema", "application", "command", "config", "config_sha256", "seed", "device"),
        *("versions", "git", "data", "accuracy", "members", "baselines", "throughput", "cost"),
        *("figures", "history", "tracking", "sha256"),
    } == set(content)
    assert set(content["cost"][0]) == {*COST, "energy_interval_j"}
    assert content["config"]["variant"]["density"] == 0.25
    assert content["config_sha256"] == config_sha256(Settings())
    assert content["versions"].keys() >= {"python", "tessera", "torch"}
    assert content["accuracy"]["test"] == {"rmse": 0.1 + 0.2, "r2": None}


def test_it_reads_back_equal_from_folder_and_file(tmp_path):
    record = make()
    file = write_record(tmp_path, record)
    assert file.name == RECORD_FILE
    assert read_record(tmp_path) == record
    assert read_record(file) == record
    assert record.variant == "sparse-16x16-75"


def test_a_record_that_is_not_one_says_why(tmp_path):
    file = write_record(tmp_path, make())
    text = file.read_text()
    file.write_text(text[: len(text) // 2])
    with pytest.raises(DataError, match=r"record\.json is not valid JSON .*cut short"):
        read_record(tmp_path)
    file.write_text(text.replace("tessera.record/1", "tessera.record/2"))
    with pytest.raises(DataError, match=r"schema 'tessera.record/2', this version reads"):
        read_record(tmp_path)
    file.write_text("[]")
    with pytest.raises(DataError, match="has schema None"):
        read_record(tmp_path)
    content = json.loads(text) | {"seed": "many"}
    content.pop("sha256")  # changed on purpose
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"record\.json: seed: .*integer.*'many'"):
        read_record(file)
    with pytest.raises(DataError, match=r"cannot read the record .*is the run finished"):
        read_record(tmp_path / "no")


def test_a_part_that_does_not_follow_the_schema_is_named():
    with pytest.raises(DataError, match=r"new record: cost\.0\.energy_j: Field required"):
        make(cost=[{key: value for key, value in COST.items() if key != "energy_j"}])
    with pytest.raises(DataError, match=r"data\.source: .*'somewhere'"):
        make(data={**make().data.model_dump(), "source": "somewhere"})
