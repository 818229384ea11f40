"""Training one network on a table: order of molecules, learning rate, choice of the epoch."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from apps.chemistry.config import FitConfig
from apps.chemistry.datasets import Table
from apps.chemistry.molecules import MolGraph
from apps.chemistry.network import BindingNetwork, MolBatch, pack
from apps.lab import parallel
from apps.lab.fit import FitResult, fit
from apps.lab.recipe import make_scaler
from core.sparse import BlockSparseLinear, PatternUpdater, erdos_renyi_densities

# Weight of a teacher's answer beside a measured value, and where no value was measured: there are
# some fifteen of the latter to one of the former in a joint run. An analogue counts as its parent.
HINT_MEASURED, HINT_UNMEASURED = 0.5, 0.1
LAST_RATE = 1e-3  # the learning rate ends at this share of its peak


class Lesson(NamedTuple):
    """Molecules without a measured value that a teacher answers. Shape letters: N, T tasks."""

    graphs: list[MolGraph]
    """[N]"""
    hint: np.ndarray
    """float32 [N, T]; NaN for nothing."""
    is_own: np.ndarray
    """bool [N, T]: the molecule is of the task's own series."""


def fit_network(
    model: BindingNetwork,
    table: Table,
    config: FitConfig,
    seed: int,
    *,
    density: float = 1.0,
    prepare: Callable[[PatternUpdater], None] | None = None,
    hint: np.ndarray | None = None,
    lesson: Lesson | None = None,
    loss: Callable[[BindingNetwork, MolBatch], torch.Tensor] = BindingNetwork.loss,
    checkpoint: Path | None = None,
    resume: bool = False,
    label: str = "train",
) -> FitResult:
    """Train `model` on the train part of `table`, in place; the epoch is picked on valid.

    `density` is that of the variant, where `config.method` lets patterns change; `prepare` may then
    say more to what changes them, such as `share_density`. `hint`, float32 [row, task], is what
    `apps.chemistry.baselines.JointKernel` says of the rows, NaN for nothing; the molecules of
    `lesson` are learned from along with them. `loss` gives the loss of a batch.
    """
    valid = table.select("valid")
    is_picked = len(valid) > 0 and config.pick == "valid"
    train, hint = merge_molecules(table, hint)
    graphs, target, weight = train.graphs, train.target, hint_weight(np.isfinite(train.target))
    if lesson is not None:
        n = len(lesson.graphs)
        blank = np.full((n, target.shape[1]), np.nan, dtype=np.float32)
        hint = np.full_like(target, np.nan) if hint is None else hint
        graphs, target = graphs + lesson.graphs, np.concatenate([target, blank])
        hint, weight = (
            np.concatenate(both)
            for both in ((hint, lesson.hint), (weight, hint_weight(lesson.is_own)))
        )
    bound = train.bound
    if bound is not None and len(graphs) > len(train):
        bound = np.concatenate(
            [bound, np.zeros((len(graphs) - len(train), bound.shape[1]), np.int8)]
        )
    device = model.target_mean.device
    n_step = max(1, len(graphs) // config.batch_size)
    size = np.array([graph.n_atom + graph.n_edge for graph in graphs])
    valid_batches = [
        pack(valid.graphs[i : i + 256], valid.exact[i : i + 256]).to(device)
        for i in range(0, len(valid) if is_picked else 0, 256)
    ]

    def batches(epoch: int) -> Iterator[MolBatch]:
        order = np.random.default_rng([seed, epoch]).permutation(len(graphs))
        for whole in np.array_split(order, n_step):
            rows = parallel.share_evenly(whole, size[whole])
            limits = None if bound is None else bound[rows]
            batch = pack([graphs[i] for i in rows], target[rows], limits)
            if hint is not None:
                batch = with_hint(batch, hint[rows], weight[rows])
            yield batch.to(device)

    def validate(_: torch.nn.Module) -> dict[str, float]:
        square = weight = 0.0
        for batch in valid_batches:
            error = model.predict(batch) - batch.y
            square += float((batch.y_weight * error * error).sum())
            weight += float(batch.y_weight.sum())
        return {"valid_rmse": math.sqrt(square / weight) if weight else math.nan}

    optimizer = make_optimizer(model, config)
    updater = config.make_updater(
        model, optimizer, density=density, n_step=config.n_epoch * n_step, seed=seed
    )
    if updater is not None and prepare is not None:
        prepare(updater)
    return fit(
        model=model,
        optimizer=optimizer,
        batches=batches,
        loss=lambda _, batch: loss(model, batch),
        n_epoch=config.n_epoch,
        item_count=lambda batch: batch.num_graphs,
        schedule=lambda progress: one_cycle(progress, config.warmup),
        steps_per_epoch=n_step,
        ema_decay=config.ema_decay or None,
        validate=validate if is_picked else None,
        monitor="valid_rmse" if is_picked else None,
        checkpoint=checkpoint,
        resume=resume,
        updater=updater,
        scaler=make_scaler(model),
        loss_weight=lambda batch: max(1.0, float(batch.y_weight.sum())),
        label=label,
    )


def share_density(updater: PatternUpdater) -> None:
    """Let pruning leave more of narrow layers than of wide ones, as much of all together.

    At width 128 and 10 %, a layer of the messages keeps 11 of its 64 blocks of 16 and the head,
    twenty times as large, one in twenty; in equal shares the former would keep 6.
    """
    layers = {
        n: m.pattern.shape
        for n, m in updater.model.named_modules()
        if isinstance(m, BlockSparseLinear)
    }
    shares = erdos_renyi_densities(list(layers.values()), updater.rule.density)
    updater.final = dict(zip(layers, shares, strict=True))


def merge_molecules(
    table: Table, hint: np.ndarray | None = None
) -> tuple[Table, np.ndarray | None]:
    """Return the train part with one row per SMILES, and the rows' hints.

    Rows of one SMILES that measure different tasks become one; rows that measure the same task
    stay apart.
    """
    rows = np.nonzero(table.split == "train")[0]
    target, kept = table.target.copy(), []
    place: dict[str, int] = {}
    for i in rows.tolist():
        known = np.isfinite(target[i])
        first = place.setdefault(table.smiles[i], i)
        is_free = table.bound is None and not (known & np.isfinite(target[first])).any()
        if first == i or not is_free:
            kept.append(i)
        else:
            target[first, known] = target[i, known]
    index = np.array(kept, dtype=np.int64)
    merged = replace(table, target=target).take(index)
    return merged, None if hint is None else hint[index]


def hint_weight(is_own: np.ndarray) -> np.ndarray:
    """Return float32 [molecule, task]: weight of a teacher's answer, see `HINT_MEASURED`."""
    return np.where(is_own, HINT_MEASURED, HINT_UNMEASURED).astype(np.float32)


def with_hint(batch: MolBatch, hint: np.ndarray, weight: np.ndarray) -> MolBatch:
    """Return the batch with what a teacher says of it, float32 [molecule, task], NaN: nothing."""
    answer = torch.from_numpy(hint)
    known = torch.isfinite(answer)
    return batch._replace(
        hint=torch.where(known, answer, 0.0), hint_weight=torch.from_numpy(weight) * known
    )


def make_optimizer(model: BindingNetwork, config: FitConfig) -> torch.optim.Optimizer:
    """Return the optimizer; decay acts on matrices and blocks, not on biases and norms."""
    usual = FitConfig.model_fields["batch_size"].default
    rate = config.rate(config.learning_rate, config.batch_size, usual)
    return config.make_optimizer(model, rate, weight_decay=config.weight_decay, decay_vectors=False)


def one_cycle(progress: float, warmup: float) -> float:
    """Return the multiplier of the learning rate: half a cosine up, half a cosine down.

    Source: Smith and Topin, Super-convergence, arXiv:1708.07120.
    """
    if progress < warmup:
        return 0.5 - 0.5 * math.cos(math.pi * progress / warmup)
    fall = 0.5 + 0.5 * math.cos(math.pi * (progress - warmup) / (1.0 - warmup))
    return max(fall, LAST_RATE)
