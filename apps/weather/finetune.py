"""One run: a trained scheme learns in the model, and is judged before and after on unseen dates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from apps.lab.config import Config
from apps.lab.fit import FitResult, fit
from apps.lab.launch import start_run
from apps.lab.record import Record, new_record, write_record
from apps.weather.atmosphere.constants import DAY_S
from apps.weather.atmosphere.grid import parse_resolution
from apps.weather.forecast.forecast import KEPT_FILE, at_home, check_moist, with_radiation
from apps.weather.forecast.simulate import ModelConfig, first_state
from apps.weather.forecast.verify import (
    NOISE_FLOOR,
    NOISE_K,
    PERSISTENCE,
    Verification,
    make_truth,
    score_forecasts,
)
from apps.weather.learned.columns import (
    ColumnsConfig,
    LabelledColumns,
    cached_columns,
    split_index,
)
from apps.weather.learned.emulator import EMULATOR_FILE, Emulator, load_emulator, save_emulator
from apps.weather.learned.fitting import Batch, correct_bias, one_cycle, tensors_of
from apps.weather.learned.online import (
    LearningRadiation,
    OnlineLoss,
    Window,
    epoch_order,
    learner,
    window_rmse,
    windows,
)
from apps.weather.learned.scheme import LearnedRadiation
from apps.weather.learned.scores import score_scheme
from apps.weather.model import Model
from apps.weather.physics import Clouds, Physics
from core.errors import ConfigError, DataError

CHECKPOINT_FILE = "checkpoint.safetensors"
BEFORE, AFTER = "before", "finetuned"
NO_GAIN = "no epoch did better on held windows and columns: the network is left as it was"
# Columns beside each step's windows, as many as the error of the held columns is taken of.
N_COLUMN = 4096
# Of the averaged weights that are kept: over some twenty steps, an epoch or two.
EMA_DECAY = 0.95


class FinetuneConfig(Config):
    """How a trained network goes on learning in the model.

    Attributes
    ----------
    model : ModelConfig
        Its exact radiation is the truth; its resolution is the network's own unless it is set.
    start : str
        As for `tessera weather simulate`.
    skip_day : int
        Days from `start` that training never sees: forecasts are judged there.
    n_window : int
        Windows, in time order: `train_share` of them to learn from, the rest to validate.
    spacing_h, window_h : float
        Hours between starts of windows, and the length of one (6 to 24), whole radiation
        intervals. After 6 hours most of a good network's error is still its own, after 24 what
        convection makes of any disturbance.
    n_epoch, batch : int
        `batch` windows a step.
    learning_rate : float
        Peak of a one-cycle schedule, of Adam.
    anchor : float
        Weight of the error on training columns beside that of the forecasts, each over what it was
        before.
    n_date, spacing_day, lead_day : int
        Forecasts that judge the network before and after.
    """

    model: ModelConfig = ModelConfig()
    start: str = "sample"
    skip_day: int = Field(default=25, ge=1)
    n_window: int = Field(default=40, ge=2, le=5000)
    train_share: float = Field(default=0.8, gt=0.0, lt=1.0)
    spacing_h: float = Field(default=12.0, gt=0.0)
    window_h: float = Field(default=6.0, ge=6.0, le=24.0)
    n_epoch: int = Field(default=4, ge=1)
    batch: int = Field(default=4, ge=1)
    learning_rate: float = Field(default=1e-4, gt=0.0)
    anchor: float = Field(default=1.0, ge=0.0)
    n_date: int = Field(default=4, ge=1, le=1000)
    spacing_day: int = Field(default=5, ge=1, le=360)
    lead_day: int = Field(default=3, ge=1, le=360)


def run(
    config: FinetuneConfig,
    *,
    emulator: Path,
    out: Path,
    seed: int = 0,
    device: str = "auto",
    resume: bool = False,
) -> tuple[Record, str]:
    """Fine-tune the network of the folder `emulator` into the folder `out`, and judge both.

    Columns are those that the network learned from, found beside its folder or made again. With
    `resume` a run that was stopped goes on to the same bits.

    Returns
    -------
    Record
        ``accuracy`` holds the fine-tuned network on unseen columns and dates, ``baselines`` the
        network before, persistence and the noise floor.
    str
        The table for a reader.

    Raises
    ------
    ConfigError
        If windows, dates and days do not fit together.
    DataError
        If the network cannot be read or was not trained by `tessera weather train`.
    """
    before, meta = load_emulator(emulator)
    if not {"columns", "seed"} <= meta.keys():
        raise DataError(
            f"finetune: {emulator} does not say which columns it learned from; give the folder of "
            "a `tessera weather train` run"
        )
    config = at_home(config, meta)
    check_moist(config.model)
    LearnedRadiation(before).check_levels(parse_resolution(config.model.resolution)[1])
    model = config.model.build()
    span = _span(config, model)
    with start_run(
        out, config, seed=seed, device="cpu" if device == "auto" else device, resume=resume,
        command="weather finetune", application="weather",
    ) as place:  # fmt: skip
        settings, beside = ColumnsConfig(**meta["columns"]), _folder(emulator).resolve().parent
        found, sha256 = cached_columns(settings, seed=meta["seed"], folder=beside)
        index = split_index(found.time_s, settings)
        parts = {name: found.take(rows) for name, rows in index.items()}
        after, fitted, window_k = tuned(
            config, model, before, parts["train"], parts["valid"], span,
            seed=seed, checkpoint=place.dir / CHECKPOINT_FILE, resume=resume,
        )  # fmt: skip
        save_emulator(place.dir / EMULATOR_FILE, after, meta)
        kept = place.dir / KEPT_FILE
        verified = _verified(config, before, after, seed, kept)
        test = parts["test"]
        accuracy, earlier = (
            {**score_scheme(LearnedRadiation(net), test), **verified.scores(name), **window_k[name]}
            for name, net in ((AFTER, after), (BEFORE, before))
        )
        record = new_record(
            application="weather",
            command="weather finetune",
            config=config,
            seed=seed,
            device=place.device,
            data={
                "name": f"{config.n_window} windows of {config.window_h:g} h from {config.start}",
                "source": "embedded",
                "sha256": sha256,
                "n_train": _n_train(config),
                "n_valid": config.n_window - _n_train(config),
                "n_test": config.n_date,
                "unit": "K",
            },
            accuracy={"test": accuracy},
            baselines={
                BEFORE: {"test": earlier},
                PERSISTENCE: {"test": verified.scores(PERSISTENCE)},
                NOISE_FLOOR: {"test": verified.scores(NOISE_FLOOR) | window_k[NOISE_FLOOR]},
            },
            history=fitted.history,
        )
        write_record(place.dir, record)
        kept.unlink()
    return record, table(record, verified, has_gained=_has_gained(config, fitted.history))


def tuned(
    config: FinetuneConfig,
    model: Model,
    before: Emulator,
    train: LabelledColumns,
    valid: LabelledColumns,
    span: tuple[int, int],
    *,
    seed: int,
    checkpoint: Path | None = None,
    resume: bool = False,
) -> tuple[Emulator, FitResult, dict[str, dict[str, float]]]:
    """Give the network after fine-tuning, `before` left as it is.

    Also the error at the end of held windows, K, of the network before and after and of the exact
    scheme from a start disturbed by `NOISE_K`: what lies near the latter no training can lower.

    `span` is the steps between starts and those of a window. The best epoch on held windows and
    columns counts, or the network as it was if none does better; the mean error on training columns
    is then taken out of the bias, as after any training (`fitting.correct_bias`).
    """
    state = first_state(model, config.start, seed)
    state = model.run(state, config.skip_day * DAY_S)
    spacing_step, n_step = span
    found = windows(
        model, state, n_window=config.n_window, spacing_step=spacing_step, n_step=n_step
    )
    n_train = _n_train(config)
    net = learner(before)
    columns = tensors_of(before, train, Clouds())
    some = tensors_of(before, valid.take(torch.arange(min(N_COLUMN, len(valid)))), Clouds())
    held = found[n_train:]
    noise = torch.Generator().manual_seed(seed)
    disturbed = [w._replace(start=model.perturbed(w.start, NOISE_K, noise)) for w in held]
    rmse_k = {NOISE_FLOOR: window_rmse(model, disturbed, n_step)}
    model.physics = Physics(LearningRadiation(before))
    rmse_k[BEFORE] = window_rmse(model, held, n_step)
    loss = OnlineLoss(model, net, n_step=n_step, held=held, columns=some, anchor=config.anchor)
    order = epoch_order(n_train, seed)

    def batches(epoch: int) -> Iterator[tuple[list[Window], Batch]]:
        source = torch.Generator().manual_seed(1_000_003 * seed + epoch)
        for first in range(0, n_train, config.batch):
            pick = torch.randint(len(train), (min(N_COLUMN, len(train)),), generator=source)
            picked = [found[i] for i in order(epoch)[first : first + config.batch]]
            yield picked, (columns[0][pick], columns[1][pick], columns[2][pick])

    fitted = fit(
        model=net,
        optimizer=torch.optim.Adam(
            (weight for weight in net.parameters() if weight.requires_grad),
            lr=config.learning_rate,
        ),
        batches=batches,
        loss=loss,
        n_epoch=config.n_epoch,
        item_count=lambda batch: len(batch[0]),
        steps_per_epoch=-(-n_train // config.batch),
        schedule=one_cycle,
        ema_decay=EMA_DECAY,
        validate=loss.validate,
        monitor="valid_loss",
        checkpoint=checkpoint,
        resume=resume,
        label="in the model",
    )
    after = before.with_formats(before.spec.weight_format, before.spec.activation_format)
    after.adopt(before)
    if _has_gained(config, fitted.history):
        after.adopt(net)
        correct_bias(after, columns)
    model.physics = Physics(LearningRadiation(after.eval()))
    rmse_k[AFTER] = window_rmse(model, held, n_step)
    return after, fitted, {name: {"window_rmse_k": value} for name, value in rmse_k.items()}


def _has_gained(config: FinetuneConfig, history: Sequence[Mapping[str, float]]) -> bool:
    """Whether an epoch did better on held windows and columns than the network before."""
    return any(row["valid_loss"] < 1.0 + config.anchor for row in history)


def _n_train(config: FinetuneConfig) -> int:
    return min(max(1, round(config.train_share * config.n_window)), config.n_window - 1)


def _span(config: FinetuneConfig, model: Model) -> tuple[int, int]:
    """Give the steps between windows and of one; ConfigError unless all fits together."""
    interval = model.n_step_radiation
    steps = []
    for name in ("spacing_h", "window_h"):
        n = model.n_step(3600.0 * getattr(config, name), name)
        if n % interval:
            raise ConfigError(
                f"finetune: {name} = {getattr(config, name):g} is not a whole number of radiation "
                f"intervals of {config.model.radiation_interval_h:g} h; choose a multiple"
            )
        steps.append(n)
    last = (config.n_date - 1) * config.spacing_day + config.lead_day
    if last > config.skip_day:
        raise ConfigError(
            f"finetune: forecasts reach day {last}, windows begin on day {config.skip_day}, so "
            "that training would see what judges it; fewer dates, or a larger skip_day"
        )
    return steps[0], steps[1]


def _folder(emulator: Path) -> Path:
    return emulator if emulator.is_dir() else emulator.parent


def _verified(
    config: FinetuneConfig, before: Emulator, after: Emulator, seed: int, kept: Path
) -> Verification:
    model = config.model.build()
    truth = make_truth(
        model,
        first_state(model, config.start, seed),
        n_date=config.n_date,
        spacing_day=config.spacing_day,
        lead_day=config.lead_day,
        seed=seed,
        kept=kept,
    )
    schemes = {
        name: with_radiation(config.model, LearnedRadiation(net))
        for name, net in ((BEFORE, before), (AFTER, after))
    }
    return score_forecasts(truth, schemes, kept)


def table(record: Record, verified: Verification, *, has_gained: bool) -> str:
    """Spell what the fine-tuning changed on unseen columns, and in forecasts from unseen dates."""
    metrics = ("lw_rmse_k_per_day", "sw_rmse_k_per_day", "olr_rmse_w_m2", "olr_bias_w_m2")
    lines: dict[str, Any] = {BEFORE: record.baselines[BEFORE], AFTER: record.accuracy}
    rows = [
        f"{name:18s}" + "".join(f"{scores['test'][metric]:>20.4f}" for metric in metrics)
        for name, scores in lines.items()
    ]
    head = f"{'unseen columns':18s}" + "".join(f"{metric:>20s}" for metric in metrics)
    ends = {**lines, NOISE_FLOOR: record.baselines[NOISE_FLOOR]}
    ends_k = "  ".join(f"{name} {x['test']['window_rmse_k']:.4f}" for name, x in ends.items())
    kept = "" if has_gained else NO_GAIN
    return "\n".join([head, *rows, kept, f"end of held windows, K: {ends_k}", "", str(verified)])
