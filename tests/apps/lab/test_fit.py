"""The training loop: what it minimises, what it keeps, and that a resumed run is the same run."""

import math

import pytest
import torch
from torch import nn

from apps.lab.fit import fit
from core.errors import ConfigError, DataError

N_ITEM, N_FEATURE, SIZE = 48, 5, 8
STEPS = N_ITEM // SIZE
X = torch.randn(N_ITEM, N_FEATURE, generator=torch.Generator().manual_seed(1))
Y = X @ torch.arange(1.0, N_FEATURE + 1)[:, None]


def batches(epoch):
    order = torch.randperm(N_ITEM, generator=torch.Generator().manual_seed(epoch))
    return [(X[i], Y[i]) for i in order.split(SIZE)]


def loss(model, batch):
    return (model(batch[0]) - batch[1]).square().mean()


def network(seed=0, dropout=0.25):
    torch.manual_seed(seed)
    hidden = nn.Sequential(nn.Linear(N_FEATURE, 16), nn.BatchNorm1d(16), nn.Dropout(dropout))
    return nn.Sequential(hidden, nn.Tanh(), nn.Linear(16, 1))


class Killed(Exception):
    pass


def train(model, *, n_epoch=6, die_at=None, optimizer=torch.optim.AdamW, **given):
    """Train; at epoch `die_at` the process goes away in the middle of the epoch."""

    def feed(epoch):
        for i_batch, batch in enumerate(batches(epoch)):
            if epoch == die_at and i_batch == 3:
                raise Killed
            yield batch

    return fit(
        model=model,
        optimizer=optimizer(model.parameters(), lr=0.02),
        batches=feed,
        loss=given.pop("loss", loss),
        n_epoch=n_epoch,
        item_count=given.pop("item_count", lambda batch: len(batch[0])),
        steps_per_epoch=given.pop("steps_per_epoch", STEPS),
        checkpoint_every_s=0.0,
        **given,
    )


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path, optimizer):
    noise = torch.Generator()

    def noisy(model, batch):  # draws from the global generator (dropout) and an explicit one
        return loss(model, batch) + torch.rand((), generator=noise) * model[2].bias.sum()

    given = {
        "loss": noisy,
        "optimizer": optimizer,
        "generator": noise,
        "schedule": lambda progress: 1 - 0.9 * progress,
        "ema_decay": 0.9,
        "clip_norm": 1.0,
        "validate": lambda model: {"rmse": loss(model, (X, Y)).sqrt()},
        "monitor": "rmse",
    }
    noise.manual_seed(5)
    whole = network()
    wanted = train(whole, **given)

    noise.manual_seed(5)
    file = tmp_path / "checkpoint.safetensors"
    with pytest.raises(Killed):
        train(network(), die_at=3, checkpoint=file, **given)
    torch.manual_seed(99)  # another process: nothing of the first one's generators is left
    noise.manual_seed(98)
    resumed = network(seed=7)
    result = train(resumed, checkpoint=file, resume=True, **given)

    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    assert result.history == wanted.history
    assert (result.best_epoch, result.n_item) == (wanted.best_epoch, wanted.n_item)


def test_resume_of_a_finished_run_trains_no_more(tmp_path):
    file = tmp_path / "checkpoint.safetensors"
    first, again = network(), network(seed=3)
    wanted = train(first, checkpoint=file)
    result = train(again, checkpoint=file, resume=True, die_at=0)
    assert result == wanted
    assert torch.equal(first[2].weight, again[2].weight)


def test_the_schedule_runs_from_zero_to_one_over_all_steps():
    seen = []
    train(network(), n_epoch=2, schedule=lambda progress: seen.append(progress) or 1.0)
    assert len(seen) == 2 * STEPS
    assert (seen[0], seen[-1]) == (0.0, 1.0)
    assert seen == sorted(seen)


def test_the_best_epoch_is_kept_not_the_last():
    kept = []

    def validate(model):
        kept.append(model[2].bias.detach().clone())
        return {"score": abs(len(kept) - 3)}  # least at the third epoch

    model = network()
    result = train(model, validate=validate, monitor="score")
    assert result.best_epoch == 2
    assert torch.equal(model[2].bias, kept[2])
    assert not torch.equal(model[2].bias, kept[-1])


def test_a_score_that_is_not_a_number_is_never_the_best():
    scores = iter([math.nan, 2.0, math.nan, 1.0, math.nan, 3.0])
    result = train(network(), validate=lambda model: {"score": next(scores)}, monitor="score")
    assert result.best_epoch == 3


def test_the_average_is_the_recurrence_it_claims_to_be():
    model = nn.Linear(N_FEATURE, 1)
    shadow, n_step = model.bias.detach().double().clone(), 0

    def after_step(batch):
        nonlocal shadow, n_step
        n_step += 1
        decay = min(0.5, n_step / (9 + n_step))
        shadow = decay * shadow + (1 - decay) * model.bias.detach().double()
        return len(batch[0])

    train(model, n_epoch=2, ema_decay=0.5, item_count=after_step)
    # One rounding to float32 a step, halved by each step after it: below 2 units in the last place.
    torch.testing.assert_close(model.bias.double(), shadow, rtol=2 * 2**-23, atol=0)
    assert n_step == 2 * STEPS


def test_averaging_and_validating_leave_the_training_itself_alone():
    plain = train(network(dropout=0.0))
    averaged = train(network(dropout=0.0), ema_decay=0.9, validate=lambda model: {"score": 1.0})
    assert [row["loss"] for row in averaged.history] == [row["loss"] for row in plain.history]


def test_history_reports_the_mean_loss_over_items_and_the_rate():
    model = nn.Linear(N_FEATURE, 1)
    frozen = {"optimizer": lambda p, lr: torch.optim.SGD(p, lr=0.0)}
    result = train(model, n_epoch=1, **frozen)
    by_hand = (X.double() @ model.weight.double().T + model.bias.double() - Y).square().mean()
    # float32 products of 5 terms: relative error below 16 units in the last place.
    assert result.history[0]["loss"] == pytest.approx(by_hand.item(), rel=16 * 2**-24)
    assert result.n_item == N_ITEM
    assert result.item_per_s > 0


def test_it_learns():
    result = train(nn.Linear(N_FEATURE, 1), n_epoch=60)
    assert result.history[-1]["loss"] < 0.1 * result.history[0]["loss"]


def test_what_is_refused_says_why(tmp_path):
    file = tmp_path / "checkpoint.safetensors"
    with pytest.raises(ConfigError, match="epoch 0 gave 6 batches, steps_per_epoch is 7"):
        train(network(), steps_per_epoch=7)
    with pytest.raises(ConfigError, match="loss is nan in epoch 0; lower the learning rate"):
        train(network(), loss=lambda m, b: loss(m, b) * math.nan)
    with pytest.raises(ConfigError, match=r"monitor 'rmsd' is not among.*loss.*rmse"):
        train(network(), validate=lambda m: {"rmse": 1.0}, monitor="rmsd")
    train(network(), checkpoint=file)
    with pytest.raises(DataError, match=r"'n_epoch': 6.*'n_epoch': 7.*start anew"):
        train(network(), n_epoch=7, checkpoint=file, resume=True)
    with pytest.raises(DataError, match="is of another model"):
        train(nn.Linear(N_FEATURE, 1), checkpoint=file, resume=True)
