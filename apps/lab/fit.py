"""One training loop for every application: schedule, averaging, best epoch, resume bit for bit."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from apps.lab import parallel, tracking
from apps.lab.checkpoint import load_checkpoint, save_checkpoint
from apps.lab.progress import track
from core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from core.precision import LossScaler
    from core.sparse import PatternUpdater

Batch = TypeVar("Batch")

# Writing a checkpoint costs up to some tenths of a second; this keeps it below a few percent.
CHECKPOINT_EVERY_S = 10.0


@dataclass(frozen=True)
class FitResult:
    """What `fit` did.

    Attributes
    ----------
    history : list of dict
        One entry an epoch: ``epoch`` (from 0), ``loss`` (mean over items), ``learning_rate`` (of
        the last step) and what `validate` gave.
    best_epoch : int
        The epoch whose weights are in the model; -1 if none ran.
    train_s : float
        Wall time in training steps, validation and checkpoints left out.
    n_item : int
        Items trained on, each counted once an epoch.
    """

    history: list[dict[str, float]]
    best_epoch: int
    train_s: float
    n_item: int

    @property
    def item_per_s(self) -> float:
        """Items trained on per second of wall time."""
        return self.n_item / self.train_s if self.train_s > 0 else math.nan


@dataclass
class _State:
    """Everything that decides how training goes on after an epoch."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    generator: torch.Generator | None
    base_rate: list[float]
    ema: dict[str, Tensor] | None
    updater: PatternUpdater | None
    scaler: LossScaler | None
    best: dict[str, Tensor] | None = None
    best_epoch: int = -1
    epoch: int = 0
    n_step: int = 0
    n_item: int = 0
    train_s: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


def fit(
    *,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Callable[[int], Iterable[Batch]],
    loss: Callable[[nn.Module, Batch], Tensor],
    n_epoch: int,
    item_count: Callable[[Batch], int],
    steps_per_epoch: int,
    schedule: Callable[[float], float] | None = None,
    ema_decay: float | None = None,
    clip_norm: float | None = None,
    validate: Callable[[nn.Module], dict[str, float]] | None = None,
    monitor: str | None = None,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    checkpoint_every_s: float = CHECKPOINT_EVERY_S,
    generator: torch.Generator | None = None,
    updater: PatternUpdater | None = None,
    scaler: LossScaler | None = None,
    loss_weight: Callable[[Batch], float] | None = None,
    label: str = "train",
) -> FitResult:
    """Train `model` in place and leave its best weights in it.

    Parameters
    ----------
    batches : callable, epoch -> iterable of batches
        A pure function of the epoch (seed the order by it), so that a resumed run sees the same.
        A batch is asked for before the step of the one before it, while others are waited for.
    loss : callable, (model, batch) -> Tensor []
        Mean over the items of the batch.
    schedule : callable, progress -> multiplier, optional
        Called before each step with progress from 0 (first step) to 1 (last); multiplies the
        learning rate that the optimizer came with.
    steps_per_epoch : int
        Batches an epoch; checked.
    ema_decay : float, optional
        Keep an exponential moving average of all floating-point state, with the decay
        min(ema_decay, (1 + t) / (10 + t)) at step t; validation and the result use the average.
    clip_norm : float, optional
        Bound on the norm of the whole gradient.
    validate : callable, model -> dict, optional
        Called after each epoch, the model in evaluation mode and without gradients.
    monitor : str, optional
        Key of `validate`'s result to minimise; the best epoch's weights are kept. Without it the
        last epoch's are.
    checkpoint : path, optional
        Written at the end of an epoch, at most every `checkpoint_every_s` seconds, and at the end.
    resume : bool
        Go on from `checkpoint` if it exists. The result equals an uninterrupted run bit for bit:
        weights, averages, optimizer state, the state of torch's global generator and of
        `generator`, of `updater` and `scaler`, and history are restored.
    updater : PatternUpdater, optional
        Its `step` follows each step of the optimizer. While it prunes, no epoch counts as best.
    scaler : LossScaler, optional
        Scales the loss, and leaves steps out whose gradients overflow.
    loss_weight : callable, batch -> float, optional
        What `loss` divides by, where that is not the number of items; under torchrun, where each
        process sees its share of a batch, gradients count by it.

    Notes
    -----
    Under torchrun (`apps.lab.parallel`) `batches` gives each process its share of the same global
    batches; gradients and the statistics of batch norms are those of the whole batch, and the
    first process alone writes checkpoints.

    Raises
    ------
    ConfigError
        If the loss is not finite, or an epoch has another number of batches than stated.
    DataError
        If the checkpoint is damaged, or of a run with other settings.
    """
    state = _State(
        model=model,
        optimizer=optimizer,
        generator=generator,
        base_rate=[float(group["lr"]) for group in optimizer.param_groups],
        ema=_copy_state(model) if ema_decay is not None else None,
        updater=updater,
        scaler=scaler,
    )
    settings = {
        "n_epoch": n_epoch,
        "steps_per_epoch": steps_per_epoch,
        "ema_decay": ema_decay,
        "base_rate": state.base_rate,
        "updates": None if updater is None else dataclasses.asdict(updater.rule),
        "scaled": scaler is not None,
    }
    checkpoint = Path(checkpoint) if checkpoint is not None else None
    if resume and checkpoint is not None and checkpoint.exists():
        _restore(state, checkpoint, settings)
    if updater is not None and state.ema is not None:
        updater.followers.append(state.ema)
    saved_at, saved_epoch = time.monotonic(), state.epoch
    last_step = max(n_epoch * steps_per_epoch - 1, 1)

    def note() -> str:
        return " ".join(f"{k} {v:.4g}" for k, v in state.history[-1].items() if k != "epoch")

    weigh = loss_weight or item_count
    parallel.check_alike(model, state.n_step)
    parallel.share_norms(model)
    gradients = parallel.Gradients(model, optimizer)
    for epoch in track(range(state.epoch, n_epoch), label, note=note):
        model.train()
        start = time.perf_counter()
        total = torch.zeros((), dtype=torch.float64)
        n_item = n_batch = 0
        source = iter(batches(epoch))
        upcoming = next(source, None)
        while (batch := upcoming) is not None:
            rate = schedule(state.n_step / last_step) if schedule else 1.0
            for group, base in zip(optimizer.param_groups, state.base_rate, strict=True):
                group["lr"] = base * rate
            gradients.clear()
            value = loss(model, batch)
            share = weigh(batch) if parallel.n_rank() > 1 else 1.0
            value = parallel.weighted(value, share)
            (value if scaler is None else scaler.scaled(value)).backward()
            # detached, as a graph that lives on would hold the old patterns
            value, upcoming = gradients.reduce(value, share, partial(next, source, None))
            if clip_norm is not None:
                scale = 1.0 if scaler is None else scaler.scale
                nn.utils.clip_grad_norm_(model.parameters(), clip_norm * scale)
            _step(state)
            state.n_step += 1
            if state.ema is not None and ema_decay is not None:
                _average(state.ema, model, min(ema_decay, state.n_step / (9 + state.n_step)))
            count = item_count(batch)
            total = total + value.double() * count
            n_item += count
            n_batch += 1
        total, n_item = parallel.summed(total, n_item)
        if n_batch != steps_per_epoch:
            raise ConfigError(
                f"fit: epoch {epoch} gave {n_batch} batches, steps_per_epoch is {steps_per_epoch}"
            )
        mean = float(total) / max(n_item, 1)
        if not math.isfinite(mean):
            raise ConfigError(f"fit: the loss is {mean} in epoch {epoch}; lower the learning rate")
        state.train_s += time.perf_counter() - start
        state.n_item += n_item
        row = {
            "epoch": epoch,
            "loss": mean,
            "learning_rate": float(optimizer.param_groups[0]["lr"]),
        }
        row |= _validated(state, validate)
        state.history.append(row)
        tracking.log(label, row)
        _keep_best(state, monitor)
        state.epoch = epoch + 1
        is_due = time.monotonic() - saved_at >= checkpoint_every_s or state.epoch == n_epoch
        is_due = is_due and parallel.is_first()
        if checkpoint is not None and is_due and state.epoch > saved_epoch:
            _save(state, checkpoint, settings)
            saved_at, saved_epoch = time.monotonic(), state.epoch
    parallel.unshare_norms(model)
    final = state.best if state.best is not None else state.ema
    if final is not None:
        model.load_state_dict(final)
    model.eval()
    return FitResult(state.history, state.best_epoch, state.train_s, state.n_item)


def _step(state: _State) -> None:
    """Move the weights by their gradients, and then perhaps the patterns."""
    if state.scaler is None:
        state.optimizer.step()
    elif not state.scaler.step(state.optimizer):
        if state.updater is not None:  # forget what it saw of gradients that overflowed
            state.updater.load_state_dict(state.updater.state_dict())
        return
    if state.updater is not None:
        state.updater.step()


def _copy_state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


@torch.no_grad()
def _average(ema: dict[str, Tensor], model: nn.Module, decay: float) -> None:
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            ema[name].lerp_(tensor, 1 - decay)
        else:
            ema[name].copy_(tensor)


def _validated(
    state: _State, validate: Callable[[nn.Module], dict[str, float]] | None
) -> dict[str, float]:
    """Validate with the averaged weights, then put the trained ones back."""
    if validate is None:
        return {}
    trained = _copy_state(state.model) if state.ema is not None else None
    if state.ema is not None:
        state.model.load_state_dict(state.ema)
    state.model.eval()
    with torch.no_grad():
        scores = {name: float(value) for name, value in validate(state.model).items()}
    if trained is not None:
        state.model.load_state_dict(trained)
    return scores


def _keep_best(state: _State, monitor: str | None) -> None:
    epoch = int(state.history[-1]["epoch"])
    if monitor is None:
        state.best_epoch = epoch
        return
    if monitor not in state.history[-1]:
        known = ", ".join(state.history[-1])
        raise ConfigError(f"fit: monitor {monitor!r} is not among what validate gave: {known}")
    updater = state.updater
    if updater and updater.rule.method == "prune" and updater.n_step < updater.rule.last:
        return  # there are more weights than the result may have
    values = [row[monitor] for row in state.history]
    # A value that is not a number is never the best, unless there is no other.
    if (
        state.best_epoch < 0
        or values[-1] < values[state.best_epoch]
        or (math.isnan(values[state.best_epoch]) and not math.isnan(values[-1]))
    ):
        state.best_epoch = epoch
        source = state.ema if state.ema is not None else state.model.state_dict()
        state.best = {name: tensor.detach().clone() for name, tensor in source.items()}


def _save(state: _State, path: Path, settings: dict[str, Any]) -> None:
    tensors = {"rng": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["rng_cuda"] = torch.cuda.get_rng_state()
    if state.generator is not None:
        tensors["generator"] = state.generator.get_state()
    parts = {"model": state.model.state_dict(), "ema": state.ema, "best": state.best}
    for part, entries in parts.items():
        tensors |= {f"{part}.{name}": tensor for name, tensor in (entries or {}).items()}
    packed = state.optimizer.state_dict()
    plain: dict[str, dict[str, Any]] = {}
    for index, entries in packed["state"].items():
        for key, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{key}"] = value
            else:
                plain.setdefault(str(index), {})[key] = value
    meta = {
        "settings": settings,
        "history": state.history,
        "best_epoch": state.best_epoch,
        "epoch": state.epoch,
        "n_step": state.n_step,
        "n_item": state.n_item,
        "train_s": state.train_s,
        "groups": packed["param_groups"],
        "plain": plain,
    }
    if state.scaler is not None:
        meta["scaler"] = state.scaler.state_dict()
    if state.updater is not None:
        moved = state.updater.state_dict()
        kept = moved.pop("kept_weights") or {}
        tensors |= {f"kept.{name}": tensor for name, tensor in kept.items()}
        meta["updater"] = moved
    save_checkpoint(path, tensors, meta)


def _restore(state: _State, path: Path, settings: dict[str, Any]) -> None:
    tensors, meta = load_checkpoint(path)
    if meta.get("settings") != settings:
        raise DataError(
            f"checkpoint {path} is of a run with {meta.get('settings')}, this one has {settings}; "
            "resume with those settings, or start anew"
        )

    def part(name: str) -> dict[str, Tensor]:
        prefix = f"{name}."
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    try:
        state.model.load_state_dict(part("model"))
    except RuntimeError as error:
        raise DataError(f"checkpoint {path} is of another model: {error}") from error
    device = next(iter(state.model.state_dict().values())).device
    if state.ema is not None:
        state.ema = {name: tensor.to(device) for name, tensor in part("ema").items()}
    state.best = {name: tensor.to(device) for name, tensor in part("best").items()} or None
    entries: dict[int, dict[str, Any]] = {int(i): dict(v) for i, v in meta["plain"].items()}
    for name, tensor in part("optimizer").items():
        index, key = name.split(".", 1)
        entries.setdefault(int(index), {})[key] = tensor
    groups = [
        {k: tuple(v) if isinstance(v, list) and k != "params" else v for k, v in group.items()}
        for group in meta["groups"]
    ]
    state.optimizer.load_state_dict({"state": entries, "param_groups": groups})
    if state.scaler is not None:
        state.scaler.load_state_dict(meta["scaler"])
    if state.updater is not None:
        state.updater.load_state_dict({**meta["updater"], "kept_weights": part("kept") or None})
    torch.set_rng_state(tensors["rng"])
    if "rng_cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["rng_cuda"])
    if state.generator is not None and "generator" in tensors:
        state.generator.set_state(tensors["generator"])
    for name in ("history", "best_epoch", "epoch", "n_step", "n_item", "train_s"):
        setattr(state, name, meta[name])
