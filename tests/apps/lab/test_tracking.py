"""Trackers see every epoch, stay in the run folder, and are never needed."""

import builtins

import pytest
import torch
from torch import nn

from apps.lab import tracking
from apps.lab.config import Config
from apps.lab.fit import fit
from apps.lab.launch import start_run
from core.errors import ConfigError


class Settings(Config):
    width: int = 3


@pytest.fixture(autouse=True)
def untracked():
    yield
    tracking.end()
    tracking.choose("none")


def train(folder):
    with start_run(folder, Settings(), seed=0, command="toy train", application="toy"):
        model = nn.Linear(2, 1)
        x = torch.ones(4, 2)
        return fit(
            model=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            batches=lambda epoch: [x],
            loss=lambda net, batch: net(batch).square().mean(),
            n_epoch=3,
            item_count=len,
            steps_per_epoch=1,
            label="toy",
        )


def test_tensorboard_holds_what_the_history_holds(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracking.choose("tensorboard")
    result = train(tmp_path / "run")
    assert tracking.link() == "tracking/"
    events = EventAccumulator(str(tmp_path / "run" / "tracking"))
    events.Reload()
    found = [(e.step, e.value) for e in events.Scalars("toy/loss")]
    # event files hold float32
    assert found == [(r["epoch"], pytest.approx(r["loss"], rel=2**-24)) for r in result.history]


def test_wandb_stays_offline_and_in_the_run_folder(tmp_path):
    pytest.importorskip("wandb", reason="needs the extra: pip install tessera-ml[track]")
    tracking.choose("wandb")
    train(tmp_path / "run")
    assert list((tmp_path / "run" / "tracking" / "wandb").glob("offline-run-*/*.wandb"))


def test_without_a_tracker_nothing_is_written(tmp_path):
    train(tmp_path / "run")
    assert tracking.link() is None
    assert not (tmp_path / "run" / "tracking").exists()


@pytest.mark.parametrize("kind", ["tensorboard", "wandb"])
def test_a_tracker_that_is_not_installed_says_which_extra_to_install(tmp_path, kind, monkeypatch):
    whole = builtins.__import__

    def without(name, *rest, **more):
        if name.partition(".")[0] == kind or name == f"torch.utils.{kind}":
            raise ImportError(name)
        return whole(name, *rest, **more)

    tracking.choose(kind)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=rf"--track {kind} needs {kind}; .*tessera-ml\[track\]"):
        train(tmp_path / "run")


def test_an_unknown_tracker_is_refused():
    with pytest.raises(ConfigError, match="--track mlflow: expected none, tensorboard, wandb"):
        tracking.choose("mlflow")
