"""Training an emulator on labelled columns."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from apps.lab.config import Config
from apps.lab.fit import FitResult, fit
from apps.weather.learned.columns import LabelledColumns
from apps.weather.learned.emulator import Emulator, features, targets
from apps.weather.physics import Clouds
from core import LayerSpec


class NetworkConfig(Config):
    """Size of the network and how it is trained.

    Attributes
    ----------
    width, n_hidden : int
        Neurons of a hidden layer, and hidden layers.
    n_epoch, batch : int
    learning_rate : float
        Peak of a one-cycle schedule with a short linear rise and a cosine fall.
    weight_decay : float
    ema_decay : float
        Of the averaged weights that are kept.
    """

    width: int = 96
    n_hidden: int = 2
    n_epoch: int = 50
    batch: int = 256
    learning_rate: float = 1.5e-2
    weight_decay: float = 1e-5
    ema_decay: float = 0.999


Batch = tuple[Tensor, Tensor, Tensor]


def make_emulator(
    n_level: int, config: NetworkConfig, spec: LayerSpec, generator: torch.Generator
) -> Emulator:
    """Give a fresh network."""
    return Emulator(
        n_level, width=config.width, n_hidden=config.n_hidden, spec=spec, generator=generator
    )


def make_optimizer(model: torch.nn.Module, config: NetworkConfig) -> torch.optim.Optimizer:
    """Give the optimizer of a training run."""
    return torch.optim.AdamW(
        model.parameters(),
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        betas=(0.9, 0.99),
    )


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
    """Normalised features and targets, and weights, of labelled columns."""
    sun = part.columns.cos_zenith.clamp(min=0)
    x = model.scaled(features(part.columns, clouds))
    y = (targets(part.label, part.columns.cos_zenith) - model.output_mean) / model.output_scale
    n = y.shape[1] // 2
    weight = torch.ones_like(y)
    weight[:, n:] = (sun.square() / sun.square().mean())[:, None]
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
    """Train in place; the averaged weights of the epoch best on `valid` stay in the model."""
    sun = train.columns.cos_zenith
    model.normalise(
        features(train.columns, clouds),
        targets(train.label, sun),
        sun.clamp(min=0).square(),
    )
    data = tensors_of(model, train, clouds)
    unseen = tensors_of(model, valid, clouds)
    n_step = len(train) // config.batch

    def batches(epoch: int) -> Iterator[Batch]:
        order = torch.randperm(
            len(train), generator=torch.Generator().manual_seed(1_000_003 * seed + epoch)
        )
        for i in range(n_step):
            pick = order[i * config.batch : (i + 1) * config.batch]
            yield tuple(tensor[pick] for tensor in data)  # type: ignore[misc]

    return fit(
        model=model,
        optimizer=make_optimizer(model, config),
        batches=batches,
        loss=training_loss,
        n_epoch=config.n_epoch,
        item_count=lambda batch: len(batch[0]),
        steps_per_epoch=n_step,
        schedule=one_cycle,
        ema_decay=config.ema_decay,
        validate=lambda net: {"valid_loss": float(training_loss(net, unseen))},
        monitor="valid_loss",
        checkpoint=checkpoint,
        resume=resume,
        label=label,
    )
