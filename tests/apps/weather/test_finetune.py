import pytest
import torch

from apps.lab.checkpoint import load_checkpoint
from apps.lab.record import read_record
from apps.weather import finetune as module
from apps.weather.finetune import FinetuneConfig, run
from apps.weather.learned import Emulator, load_emulator, save_emulator
from apps.weather.train import TrainConfig
from apps.weather.train import run as train
from core.errors import ConfigError, DataError

COLUMNS = {
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
}
TINY = {
    "model": {"n_longwave": 16, "n_shortwave": 8},
    "start": "rest",
    "skip_day": 2,
    "n_window": 4,
    "window_h": 6,
    "spacing_h": 6,
    "n_epoch": 2,
    "batch": 2,
    "learning_rate": 1e-3,
    "n_date": 1,
    "lead_day": 1,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "trained"
    config = {
        "variant": "sparse-16x16-75-int8",
        "columns": COLUMNS,
        "network": {"width": 32, "n_epoch": 2, "batch": 128},
        "forecast": None,
        "cost": False,
    }
    train(TrainConfig.model_validate(config), out=folder, seed=1)
    return folder


def config(**changes):
    return FinetuneConfig.model_validate(TINY | changes)


def test_a_run_is_recorded_and_a_killed_one_goes_on_to_the_same_bits(
    trained, tmp_path, monkeypatch
):
    record, text = run(config(), emulator=trained, out=tmp_path / "whole", device="cpu")
    assert read_record(tmp_path / "whole") == record
    assert record.config["model"]["resolution"] == "T5L4"  # the network's own
    assert set(record.baselines) == {"before", "persistence", "noise_floor"}
    for scores in (record.accuracy["test"], record.baselines["before"]["test"]):
        assert {"lw_rmse_k_per_day", "olr_bias_w_m2", "t_upper_rmse_k_day1"} <= scores.keys()
    assert [row["epoch"] for row in record.history] == [0, 1]
    window_k = record.accuracy["test"]["window_rmse_k"]
    assert window_k < record.baselines["before"]["test"]["window_rmse_k"]
    assert 0.0 < record.baselines["noise_floor"]["test"]["window_rmse_k"] < window_k
    assert "finetuned" in text
    # what comes out is a network as `train` leaves one, of the same layers
    one, meta = load_emulator(tmp_path / "whole")
    assert meta["columns"]["resolution"] == "T5L4"
    assert one.spec == load_emulator(trained)[0].spec

    with monkeypatch.context() as patch:
        patch.setattr(module.OnlineLoss, "validate", _stopping(module.OnlineLoss.validate, 3))
        patch.setitem(module.fit.__kwdefaults__, "checkpoint_every_s", 0.0)
        with pytest.raises(KeyboardInterrupt):
            run(config(), emulator=trained, out=tmp_path / "killed", device="cpu")
    kept = load_checkpoint(tmp_path / "killed" / module.CHECKPOINT_FILE)[1]
    assert kept["epoch"] == 1
    again, _ = run(config(), emulator=trained, out=tmp_path / "killed", device="cpu", resume=True)
    two, _ = load_emulator(tmp_path / "killed")
    for name, tensor in one.state_dict().items():
        assert tensor.equal(two.state_dict()[name]), name
    assert again.accuracy == record.accuracy


def _stopping(validate, at):
    """Give a `validate` that stops like a kill at its call number `at`."""
    n_call = 0

    def stopped(self, net):
        nonlocal n_call
        n_call += 1
        if n_call == at:
            raise KeyboardInterrupt
        return validate(self, net)

    return stopped


def test_a_network_that_only_gets_worse_is_left_as_it_was(trained, tmp_path):
    wild = config(learning_rate=20.0, n_epoch=1, n_window=3)
    record, text = run(wild, emulator=trained, out=tmp_path / "run", device="cpu")
    lost = record.history[0]["valid_loss"]
    assert lost is None or lost > 2.0  # nothing finite comes of such weights
    before, after = (load_emulator(path)[0].state_dict() for path in (trained, tmp_path / "run"))
    assert all(tensor.equal(after[name]) for name, tensor in before.items())
    assert record.accuracy["test"] == record.baselines["before"]["test"]
    assert module.NO_GAIN in text


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"window_h": 7}, "window_h = 7 is not a whole number of radiation intervals of 3 h"),
        ({"spacing_h": 4}, "spacing_h = 4 is not a whole number of radiation intervals"),
        ({"lead_day": 3}, "forecasts reach day 3, windows begin on day 2"),
        ({"model": {"physics": "held-suarez"}}, "model.physics must be 'moist' to have radiation"),
        (
            {"model": {"resolution": "T5L8"}},
            "trained on columns of 4 levels, the model has 8",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_the_folder_is_made(
    trained, tmp_path, changes, sentence
):
    with pytest.raises(ConfigError, match=sentence):
        run(config(**changes), emulator=trained, out=tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_a_network_that_does_not_say_what_it_learned_from_is_refused(tmp_path):
    net = Emulator(4, width=16, generator=torch.Generator().manual_seed(0))
    path = save_emulator(tmp_path / "emulator.safetensors", net, {})
    with pytest.raises(DataError, match="does not say which columns it learned from"):
        run(config(), emulator=path, out=tmp_path / "run", device="cpu")
