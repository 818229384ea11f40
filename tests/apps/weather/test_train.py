import json
import shutil

import pytest

from apps.lab.config import load_config
from apps.lab.record import read_record
from apps.weather.learned import load_emulator
from apps.weather.train import TrainConfig, run, table
from core.errors import ConfigError, DataError, TesseraError

TINY = TrainConfig.model_validate(
    {
        "variant": "sparse-16x16-75-int8",
        "columns": {
            "resolution": "T5L4",
            "start": "rest",
            "skip_day": 0,
            "other_climates": (),
            "n_day": 10,
            "train_share": 0.5,
            "gap_day": 0.5,
            "n_column_per_call": 32,
            "run_longwave": 8,
            "run_shortwave": 8,
            "label_longwave": 16,
            "label_shortwave": 8,
        },
        "network": {"width": 32, "n_epoch": 3, "batch": 128},
        "forecast": {
            "model": {"resolution": "T5L4", "n_longwave": 16, "n_shortwave": 8},
            "start": "rest",
            "n_date": 1,
            "lead_day": 1,
        },
    }
)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "a"
    return run(TINY, out=folder, seed=1), folder


def test_run_leaves_a_record_that_reads_back(done):
    record, folder = done
    assert read_record(folder) == record
    assert record.application == "weather"
    assert record.variant == "sparse-16x16-75-int8"
    assert record.data.n_train > 2 * record.data.n_test > 0
    named = {"lw_rmse_k_per_day", "sw_rmse_k_per_day", "lw_bias_k_per_day", "sw_bias_k_per_day"}
    for split in ("train", "valid", "test"):
        assert named | {"r2_min", "olr_bias_w_m2"} <= record.accuracy[split].keys()
    assert record.accuracy["test"]["t_upper_rmse_k_day1"] > 0.0
    assert record.accuracy["test"]["radiation_cpu_ratio"] > 0.0
    assert {"train_mean", "linear", "exact_16", "exact_41"} <= record.baselines.keys()
    assert {"persistence", "noise_floor", "coarse_radiation"} <= record.baselines.keys()
    assert [row["epoch"] for row in record.history] == list(range(18))  # sparse: six times 3
    assert "exact radiation takes" in table(record)


def test_figures_are_there_and_explain_themselves(done):
    record, folder = done
    assert len(record.figures) == 6
    for figure in record.figures:
        assert (folder / figure.file).read_text().startswith("<?xml")
        assert figure.caption.endswith(".")
        assert len(figure.wrong_if) > 20


def test_cost_names_exact_and_learned_on_every_machine(done):
    record, _ = done
    machines = {entry.machine for entry in record.cost}
    assert {"ipu_gc200", "ipu_bow", "a100", "tpu_v3"} <= machines
    for machine in machines:
        time = {(e.variant, e.phase): e.time_s for e in record.cost if e.machine == machine}
        assert ("sparse-16x16-75-int8", "train_step") in time
        exact, coarse = time["exact-128+32", "inference"], time["exact-41+16", "inference"]
        assert exact > coarse > time["sparse-16x16-75-int8", "inference"] > 0.0


def test_same_seed_same_scores_and_resume_of_a_finished_run(done, tmp_path):
    record, folder = done
    (tmp_path / "b").mkdir()
    for columns in folder.parent.glob("columns-*"):
        (tmp_path / columns.name).write_bytes(columns.read_bytes())
    again = run(
        TINY.model_copy(update={"cost": False, "forecast": None}), out=tmp_path / "b", seed=1
    )
    for split in ("valid", "train"):
        assert again.accuracy[split] == record.accuracy[split]
    resumed = run(TINY, out=folder, seed=1, resume=True)
    assert resumed.accuracy["valid"] == record.accuracy["valid"]
    with pytest.raises(DataError, match="already holds a run"):
        run(TINY, out=folder, seed=1)


def test_the_trained_network_is_saved_with_its_origin(done):
    _, folder = done
    network, meta = load_emulator(folder)
    assert network.width == 32
    assert meta["seed"] == 1
    assert json.loads(json.dumps(meta["columns"]))["resolution"] == "T5L4"


def test_a_misspelt_setting_names_its_neighbour():
    with pytest.raises(ConfigError, match=r"unknown key 'n_epochs'.*did you mean 'n_epoch'"):
        load_config(TrainConfig, overrides=["network.n_epochs=3"])
    assert load_config(TrainConfig, overrides=["variant=dense-bf16"]).variant.name == "dense-bf16"


@pytest.mark.parametrize(
    ("setting", "asked"),
    [
        ("width=0", "width: Input should be greater than or equal to 1, got 0"),
        ("n_hidden=0", "n_hidden: Input should be greater than or equal to 1, got 0"),
        ("n_epoch=0", "n_epoch: Input should be greater than or equal to 1, got 0"),
        ("batch=0", "batch: Input should be greater than or equal to 1, got 0"),
        ("learning_rate=-1", "learning_rate: Input should be greater than 0, got -1"),
        ("ema_decay=1", "ema_decay: Input should be less than 1, got 1"),
        ("kind=lstm", "kind: Input should be 'mlp' or 'gru', got 'lstm'"),
    ],
)
def test_a_setting_out_of_bounds_is_refused_before_anything_is_made(setting, asked):
    with pytest.raises(ConfigError, match=asked):
        load_config(TrainConfig, overrides=[f"network.{setting}"])


@pytest.mark.parametrize(
    ("setting", "asked"),
    [
        ("variant.weight_format=fp3", "fp3"),
        ("columns.n_day=2", "n_day = 2 leaves no days to validate and test"),
        ("columns.n_column_per_call=999999", "999999 is more than the 2048 columns of T21L8"),
        ("columns.resolution=T22L8", "truncation must be one of .* got T22"),
    ],
)
def test_what_cannot_be_built_leaves_no_folder(tmp_path, setting, asked):
    config = load_config(TrainConfig, overrides=["forecast=none", setting])
    with pytest.raises(TesseraError, match=asked):
        run(config, out=tmp_path / "run", seed=0)
    assert not (tmp_path / "run").exists()


def test_a_batch_that_no_training_can_fill_is_refused(done, tmp_path):
    _, folder = done
    for path in folder.parent.glob("columns-*.safetensors"):
        shutil.copy(path, tmp_path)
    many = TINY.model_copy(update={"network": TINY.network.model_copy(update={"batch": 9999})})
    with pytest.raises(ConfigError, match="batch = 9999 is more than the 1280 training columns"):
        run(many, out=tmp_path / "run", seed=1)


def test_the_verification_runs_where_the_network_lives():
    config = load_config(TrainConfig, overrides=["columns.resolution=T31L10"])
    assert config.forecast.model.resolution == "T31L10"
    assert TrainConfig.model_validate(config.model_dump(mode="json")) == config
    both = ["columns.resolution=T31L10", "forecast.model.resolution=T21L10"]
    assert load_config(TrainConfig, overrides=both).forecast.model.resolution == "T21L10"
    with pytest.raises(ConfigError, match=r"T21L8 has other levels than columns.resolution = T31"):
        load_config(TrainConfig, overrides=[both[0], "forecast.model.resolution=T21L8"])
