"""Levers of a training run: what each method, optimizer and rate rule comes to, and resuming."""

import math

import pytest
import torch
from torch import nn

from apps.lab.fit import fit
from apps.lab.recipe import N_CHANGE, Recipe, make_scaler
from core import BlockSparseLinear, LayerSpec, build_linear
from core.errors import ConfigError

N_ITEM, WIDTH, SIZE, DENSITY = 64, 32, 16, 0.25
STEPS = N_ITEM // SIZE
X = torch.randn(N_ITEM, WIDTH, generator=torch.Generator().manual_seed(1))
Y = X.roll(1, dims=1).sin()


def network(recipe, gradient_format="fp32", seed=0):
    spec = recipe.first_spec(LayerSpec(DENSITY, 4, gradient_format=gradient_format))
    generator = torch.Generator().manual_seed(seed)
    first = build_linear(WIDTH, WIDTH, spec, generator=generator)
    return nn.Sequential(first, nn.Tanh(), build_linear(WIDTH, WIDTH, spec, generator=generator))


class Killed(Exception):
    pass


def train(recipe, model, *, die_at=None, n_epoch=10, **given):
    def batches(epoch):
        order = torch.randperm(N_ITEM, generator=torch.Generator().manual_seed(epoch))
        for i, rows in enumerate(order.split(SIZE)):
            if (epoch, i) == (die_at, 2):
                raise Killed
            yield X[rows], Y[rows]

    def loss(net, batch):
        return (net(batch[0]) - batch[1]).square().mean()

    optimizer = recipe.make_optimizer(model, recipe.rate(0.01, SIZE, SIZE), weight_decay=0.01)
    updater = recipe.make_updater(model, optimizer, density=DENSITY, n_step=n_epoch * STEPS, seed=3)
    return fit(
        model=model,
        optimizer=optimizer,
        batches=batches,
        loss=loss,
        n_epoch=n_epoch,
        item_count=lambda batch: len(batch[0]),
        steps_per_epoch=STEPS,
        ema_decay=0.9,
        validate=lambda net: {"valid": float(loss(net, (X, Y)))},
        monitor="valid",
        checkpoint_every_s=0.0,
        updater=updater,
        scaler=make_scaler(model),
        **given,
    )


def layers(model):
    return [m for m in model if isinstance(m, BlockSparseLinear)]


METHODS = ("set", "rigl", "prune", "dense-to-sparse")


@pytest.mark.parametrize("method", METHODS)
def test_a_method_ends_at_the_density_asked_for_with_another_pattern(method):
    recipe = Recipe(method=method)
    model = network(recipe)
    begun = [layer.pattern for layer in layers(model)]
    starts_whole = method in ("prune", "dense-to-sparse")
    assert [p.density for p in begun] == [1.0 if starts_whole else DENSITY] * 2
    result = train(recipe, model)
    for layer, before in zip(layers(model), begun, strict=True):
        assert layer.pattern.density == DENSITY
        assert not torch.equal(layer.pattern.col_index, before.col_index)
    assert result.history[-1]["loss"] < 0.8 * result.history[0]["loss"]
    # before pruning has ended no epoch is the best, though more weights would err less
    half = result.history[-1]["epoch"] // 2
    assert result.best_epoch >= (half if starts_whole else 0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("optimizer", ["adamw", "lamb"])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path, method, optimizer):
    state_format = "fp8_e4m3" if optimizer == "lamb" else "fp32"
    recipe = Recipe(method=method, optimizer=optimizer, state_format=state_format)
    whole, file = network(recipe, "fp16"), tmp_path / "c.safetensors"
    wanted = train(recipe, whole)
    with pytest.raises(Killed):
        train(recipe, network(recipe, "fp16"), die_at=5, checkpoint=file)
    again = network(recipe, "fp16", seed=8)
    assert train(recipe, again, checkpoint=file, resume=True).history == wanted.history
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_a_step_that_overflows_is_left_out_and_moves_no_pattern():
    recipe = Recipe(method="rigl")
    model = network(recipe, "fp16")
    scaler = make_scaler(model)
    assert scaler is not None
    assert make_scaler(network(recipe, "bf16")) is None
    # 2**16 times these gradients is above the 65504 of fp16: steps are skipped until it is not
    result = train(recipe, model)
    assert math.isfinite(result.history[-1]["loss"])
    assert all(bool(p.isfinite().all()) for p in model.parameters())


def test_the_rate_follows_its_rule_and_its_optimizer():
    assert Recipe().rate(0.1, 64, 16) == 0.1
    assert Recipe(rate_rule="sqrt").rate(0.1, 64, 16) == pytest.approx(0.2)
    assert Recipe(rate_rule="linear").rate(0.1, 64, 16) == pytest.approx(0.4)
    assert Recipe(optimizer="lamb", rate_rule="sqrt").rate(0.1, 64, 16) == pytest.approx(0.4)
    assert Recipe(optimizer="sgd").rate(0.1, 16, 16) == pytest.approx(0.5)


@pytest.mark.parametrize("n_step", [1, 2, 7, 1000])
@pytest.mark.parametrize("method", METHODS)
def test_patterns_settle_before_the_end_whatever_the_length(method, n_step):
    recipe = Recipe(method=method)
    model = network(recipe)
    optimizer = recipe.make_optimizer(model, 0.1, weight_decay=0.0)
    updater = recipe.make_updater(model, optimizer, density=DENSITY, n_step=n_step, seed=0)
    at = [step for step in range(1, n_step + 1) if updater.rule.changes_at(step)]
    assert 1 <= len(at) <= N_CHANGE + 1
    assert at[-1] <= max(1, 0.75 * n_step)
    n_left = updater.rule.density_at(at[-1], 1.0)
    assert n_left == DENSITY or method in ("set", "rigl")


def test_a_dense_variant_has_no_pattern_to_change():
    recipe = Recipe(method="rigl")
    model = nn.Linear(2, 2)
    optimizer = recipe.make_optimizer(model, 0.1, weight_decay=0.0)
    with pytest.raises(
        ConfigError, match=r"method 'rigl' .* variant is dense; set variant.density"
    ):
        recipe.make_updater(model, optimizer, density=1, n_step=10, seed=0)
    assert recipe.first_spec(LayerSpec()) == LayerSpec()
