"""Training an emulator on labelled columns."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from apps.lab import parallel
from apps.lab.fit import FitResult, fit
from apps.lab.recipe import Recipe, make_scaler
from apps.weather.learned.columns import LabelledColumns
from apps.weather.learned.emulator import Emulator, emulator_class, features, targets
from apps.weather.learned.muon import Muon
from apps.weather.learned.narrow import even_out, round_layer
from apps.weather.physics import Clouds
from core import LayerSpec, freeze
from core.errors import ConfigError
from core.precision import format_named


class NetworkConfig(Recipe):
    """Size of the network and how it is trained; `Recipe` says what `method` and the rest mean.

    Attributes
    ----------
    method : str
        How the pattern of a sparse network comes about; a dense one has none.
    optimizer : str
        "muon" (`apps.weather.learned.muon`), or one of `Recipe`'s.
    kind : str
        "mlp", or "gru" (`apps.weather.learned.recurrent`): fewer weights, far slower.
    width, n_hidden : int
        Neurons of a hidden layer or of a unit, and hidden layers ("mlp" alone).
    n_epoch, batch : int
    sparse_stretch : float
        Times as many epochs for a network of density below 1, which has fewer weights to move in
        each step and goes on gaining for longer: on validation days a quarter of the blocks in
        int8 has an error of 1.28 times that of dense fp32 with 4, of 1.23 with 6.
    learning_rate : float
        Peak of a one-cycle schedule with a short linear rise and a cosine fall, of Muon's
        matrices; the other optimizers take `ADAMW_RATE` of it for the rate of AdamW.
    narrow_share : float
        Of the epochs, the last ones, in which a network of 8 bits or fewer learns around its own
        rounding (`apps.weather.learned.narrow`); before that it learns in fp32.
    narrow_rate : float
        Peak of the learning rate then.
    weight_decay : float
        Of the optimizers that have one.
    ema_decay : float
        Of the averaged weights that are kept.
    """

    method: Literal["static", "set", "rigl", "prune", "dense-to-sparse"] = "prune"
    optimizer: Literal["muon", "adamw", "lamb", "sgd"] = "muon"  # type: ignore[assignment]
    kind: Literal["mlp", "gru"] = "mlp"
    width: int = Field(default=96, ge=1, le=4096)
    n_hidden: int = Field(default=2, ge=1, le=16)
    n_epoch: int = Field(default=24, ge=1)
    sparse_stretch: float = Field(default=6.0, ge=1.0)
    batch: int = Field(default=256, ge=1)
    learning_rate: float = Field(default=2e-2, gt=0.0)
    narrow_share: float = Field(default=0.17, gt=0.0, lt=1.0)
    narrow_rate: float = Field(default=4e-3, gt=0.0)
    weight_decay: float = Field(default=1e-5, ge=0.0)
    ema_decay: float = Field(default=0.999, ge=0.0, lt=1.0)

    def span(self) -> tuple[float, float]:
        """Give the shares of all steps at which patterns begin and cease to change.

        Pruning is over sooner than elsewhere: on validation days a quarter of the blocks in int8
        then has an error of 1.32 rather than 1.37 times that of dense fp32.
        """
        return (0.05, 0.4) if self.method == "prune" else super().span()


Batch = tuple[Tensor, Tensor, Tensor]

ADAMW_RATE = 0.75
# Columns whose layer inputs decide how weights are rounded.
N_ROUNDING = 16384


def make_emulator(
    n_level: int, config: NetworkConfig, spec: LayerSpec, generator: torch.Generator
) -> Emulator:
    """Give a fresh network."""
    return emulator_class(config.kind)(
        n_level, width=config.width, n_hidden=config.n_hidden, spec=spec, generator=generator
    )


def make_optimizer(
    model: torch.nn.Module, config: NetworkConfig, rate: float | None = None
) -> torch.optim.Optimizer:
    """Give the optimizer of a training run; `rate` in place of the configured one."""
    rate = rate or config.learning_rate
    usual = NetworkConfig.model_fields["batch"].default
    if config.optimizer == "muon":
        return Muon(model, config.rate(rate, config.batch, usual))
    peak = config.rate(ADAMW_RATE * rate, config.batch, usual)
    return config.make_optimizer(model, peak, weight_decay=config.weight_decay, betas=(0.9, 0.99))


def one_cycle(progress: float, rise: float = 0.1) -> float:
    """Give the multiplier of the learning rate: linear to 1 at `rise`, then a cosine to 0."""
    if progress < rise:
        return 0.05 + 0.95 * progress / rise
    return 0.5 * (1.0 + math.cos(math.pi * (progress - rise) / (1.0 - rise)))


def training_loss(model: torch.nn.Module, batch: Batch) -> Tensor:
    """Mean squared error of normalised targets, each weighted (the shortwave by the sun)."""
    x, y, weight = batch
    return ((model(x) - y).square() * weight).mean()


def tensors_of(model: Emulator, part: LabelledColumns, clouds: Clouds) -> Batch:
    """Normalised features and targets, and weights, of labelled columns.

    Levels count by the spread of their heating: between the error of the whole column in K/day,
    which would count its square, and the R2 of the worst level, which would count all alike.
    """
    sun = part.columns.cos_zenith.clamp(min=0)
    x = model.scaled(features(part.columns, clouds))
    y = (targets(part.label, part.columns.cos_zenith) - model.output_mean) / model.output_scale
    n = y.shape[1] // 2
    weight = torch.ones_like(y)
    weight[:, n:] = (sun.square() / sun.square().mean())[:, None]
    for heating in (slice(0, n - 1), slice(n, 2 * n - 1)):
        spread = model.output_scale[heating]
        weight[:, heating] *= spread / spread.square().mean().sqrt()
    return x, y, weight


def fit_emulator(
    model: Emulator,
    train: LabelledColumns,
    valid: LabelledColumns,
    config: NetworkConfig,
    *,
    seed: int,
    clouds: Clouds,
    checkpoint: Path | None = None,
    resume: bool = False,
    label: str = "train",
) -> FitResult:
    """Train in place; the averaged weights of the epoch best on `valid` stay in the model.

    Where `config.method` says so, patterns change while it learns in fp32. Networks of 8 bits and
    fewer then learn around their own rounding; at the end the bias is corrected (`correct_bias`).
    ConfigError if there are fewer training columns than a batch has.
    """
    n_step = len(train) // config.batch
    if n_step == 0:
        raise ConfigError(
            f"fit_emulator: batch = {config.batch} is more than the {len(train)} training columns; "
            "take smaller batches, or more columns"
        )
    sun = train.columns.cos_zenith
    model.normalise(
        features(train.columns, clouds),
        targets(train.label, sun),
        sun.clamp(min=0).square(),
    )
    data = tensors_of(model, train, clouds)
    unseen = tensors_of(model, valid, clouds)

    def stage(net: Emulator, first: int, n_epoch: int, rate: float, suffix: str) -> FitResult:
        def batches(epoch: int) -> Iterator[Batch]:
            source = torch.Generator().manual_seed(1_000_003 * seed + first + epoch)
            order = torch.randperm(len(train), generator=source)
            for i in range(n_step):
                pick = parallel.share(order[i * config.batch : (i + 1) * config.batch])
                yield tuple(tensor[pick] for tensor in data)  # type: ignore[misc]

        optimizer = make_optimizer(net, config, rate)
        updater = None
        if not done and model.spec.density < 1:  # settled when rounding begins
            updater = config.make_updater(
                net, optimizer, density=model.spec.density, n_step=n_epoch * n_step, seed=seed
            )
        return fit(
            model=net,
            optimizer=optimizer,
            updater=updater,
            scaler=make_scaler(net),
            batches=batches,
            loss=training_loss,
            n_epoch=n_epoch,
            item_count=lambda batch: len(batch[0]),
            steps_per_epoch=n_step,
            schedule=one_cycle,
            ema_decay=config.ema_decay,
            validate=lambda net: {"valid_loss": float(training_loss(net, unseen))},
            monitor="valid_loss",
            checkpoint=checkpoint and checkpoint.with_stem(checkpoint.stem + suffix),
            resume=resume,
            label=label,
        )

    weight, activation = (format_named(name) for name in formats_of(model.spec))
    n_narrow = 0
    n_all = round(config.n_epoch * (config.sparse_stretch if model.spec.density < 1 else 1.0))
    if weight.needs_scale or activation.needs_scale:
        n_narrow = max(1, round(config.narrow_share * n_all))
    n_wide = n_all - n_narrow
    wide = model.with_formats("fp32", "fp32") if n_narrow else model
    first_spec = config.first_spec(wide.spec)
    if first_spec != wide.spec:  # all blocks live at first
        wide = make_emulator(model.n_level, config, first_spec, torch.Generator().manual_seed(seed))
        wide.take_normalisation(model)
    done: list[FitResult] = []
    done.append(stage(wide, 0, n_wide, config.learning_rate, ""))
    if n_narrow:
        draft = narrowed(wide, model, data[0])
        done.append(stage(draft, len(done[0].history), n_narrow, config.narrow_rate, "-narrow"))
        model.adopt(draft)
    elif wide is not model:
        model.adopt(wide)
    correct_bias(model, data)
    model.eval()
    return FitResult(
        history=[
            {**row, "epoch": i}
            for i, row in enumerate(row for part in done for row in part.history)
        ],
        best_epoch=sum(len(part.history) for part in done[:-1]) + done[-1].best_epoch,
        train_s=sum(part.train_s for part in done),
        n_item=sum(part.n_item for part in done),
    )


def formats_of(spec: LayerSpec) -> tuple[str, str]:
    """Names of the formats of a layer's weights and activations."""
    return spec.weight_format, spec.activation_format


def narrowed(wide: Emulator, model: Emulator, x: Tensor) -> Emulator:
    """Give `wide` ready to learn around the rounding of `model`'s formats; features `x` are seen.

    Layers of a perceptron are rounded for good, those of a recurrent network by every step anew.
    """
    layers = [i for i in model.layers() if model.format_of(i).needs_scale]
    if not model.layers():
        return wide.with_formats(*formats_of(model.spec))
    draft = wide.with_formats("fp32", model.spec.activation_format).eval()
    even_out(draft, x)
    some = x[:: max(1, len(x) // N_ROUNDING)]
    for i in layers:
        round_layer(draft, i, some, model.format_of(i))
    return draft


@torch.no_grad()
def correct_bias(model: Emulator, data: Batch) -> None:
    """Take the mean error on `data` out of the last layer's bias, which is fp32 in every format.

    The error is that of the frozen network, as it will be used; the mean counts the weights.
    """
    x, y, weight = data
    net = freeze(model)
    error = y - torch.cat([net(part) for part in x.split(4096)])
    model.shift_output((weight * error).sum(0) / weight.sum(0))
