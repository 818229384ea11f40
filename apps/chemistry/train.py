"""One run: table, baselines, training, evaluation, cost, record."""

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from apps.chemistry.answers.picture import draw_molecules
from apps.chemistry.baselines import JointKernel
from apps.chemistry.config import TrainConfig
from apps.chemistry.cost import cost_entries, cost_reports
from apps.chemistry.datasets import SPLITS, Table, join_tables, load_table
from apps.chemistry.evaluate import Evaluation, evaluate
from apps.chemistry.fitting import Lesson, fit_network, make_optimizer
from apps.chemistry.lessons import teach
from apps.chemistry.network import MolBatch, pack
from apps.chemistry.predictor import MODEL_FILE, Predictor, build_network
from apps.chemistry.reference import Reference
from apps.chemistry.whole import add_processes, run_folds, weigh, without_fold
from apps.lab import parallel
from apps.lab.fit import FitResult
from apps.lab.launch import Run, set_seed, start_run
from apps.lab.pool import map_tasks
from apps.lab.progress import say
from apps.lab.record import CostEntry, Record, new_record, read_record, write_record
from apps.lab.step_figure import draw_step
from core.errors import DataError
from hw import CostReport

APPLICATION = "chemistry"
# Seeds of the members of an ensemble lie this far apart, so that runs with neighbouring seeds
# share no member.
MEMBER_STRIDE = 1_000_003


def run(
    config: TrainConfig, *, out: Path, seed: int, device: str = "auto", resume: bool = False
) -> Record:
    """Train and judge one network (or ensemble) and leave the run in the folder `out`.

    Parameters
    ----------
    config : TrainConfig
    out : Path
        New or empty, or the run to resume. Receives `record.json`, `model.safetensors`,
        `predictions.csv` (test rows), the figures and the resolved configuration.
    seed : int
        Seeds weights, patterns, the order of molecules and the random splits.
    device : str
        "auto", "cpu" or "cuda".
    resume : bool
        Go on where an interrupted run of the same configuration and seed stopped.

    Returns
    -------
    Record
        As written; accuracy is that of the whole answer as it is deployed, in the unit of the
        data, and `members` has the networks and, where they answer too, the kernels.

    Raises
    ------
    DataError
        If the data cannot be read or have too few training rows.
    ConfigError
        If the settings do not fit together.
    """
    with start_run(
        out,
        config,
        seed=seed,
        device=device,
        resume=resume,
        command="chemistry train",
        application=APPLICATION,
    ) as place:
        table = read_table(config, seed)
        _tell(table)
        fold = run_folds(config, table, seed)
        is_taught = config.teacher and table.target.shape[1] > 1
        joint = JointKernel.of(table) if is_taught or fold is not None else None
        predictor, fits = train_members(
            config, table, place, fold=fold, teacher=joint if is_taught else None, seed=seed,
            resume=resume,
        )  # fmt: skip
        parallel.leave_unless_first()
        networks, held_out, answers = None, None, None
        if config.model.process:
            predictor, networks, held_out = add_processes(predictor, table, fold)
        each = predictor.predict_members(table.graphs)
        if fold is not None and joint is not None:
            kernel, answers = weigh(table, fold, joint, each, seed=seed, held_out=held_out)
            predictor = replace(predictor, kernel=kernel, kernel_share=answers.kernel_share)
        whole = each.mean(axis=0) if answers is None else answers.whole
        predictor = replace(predictor, reference=Reference.of(table, whole[table.split == "valid"]))
        predictor.save(place.dir / MODEL_FILE)
        result = evaluate(
            predictor, table, each, answers, networks, seed=seed, history=fits[0].history,
            folder=place.dir,
        )  # fmt: skip
        result.figures.extend(draw_molecules(predictor, table, whole, place.dir))
        record = _record(config, table, place, predictor, fits, result, seed)
        write_record(place.dir, record)
    return record


def run_seeds(
    config: TrainConfig,
    seeds: Sequence[int],
    *,
    out: Path,
    device: str = "auto",
    resume: bool = False,
    n_job: int = 1,
    scheduler: str | None = None,
) -> list[Record]:
    """Run one configuration with every seed, each in ``out/seed-N``, `n_job` at a time."""
    one = partial(_run_seed, config, out, device, resume)
    return map_tasks(one, list(seeds), n_job=n_job, scheduler=scheduler)


def _run_seed(config: TrainConfig, out: Path, device: str, resume: bool, seed: int) -> Record:
    return run(config, out=out / f"seed-{seed}", seed=seed, device=device, resume=resume)


def read_table(config: TrainConfig, seed: int) -> Table:
    """Load the table of a run."""
    data = config.data
    table = join_tables(
        [
            load_table(
                source,
                smiles=data.smiles,
                target=data.target,
                split_column=data.split_column,
                split=data.split,
                seed=seed,
                relation_column=data.relation_column,
                unit=data.unit,
                unit_column=data.unit_column,
                standard=data.standardise,
            )
            for source in (data.source, *data.more)
        ]
    )
    n_train = int((table.split == "train").sum())
    if n_train < 2:
        raise DataError(
            f"{table.name}: training needs at least 2 rows, the train part has {n_train}"
        )
    return table


def _tell(table: Table) -> None:
    for report in table.rejected:
        say(f"{table.name}: left out: {report}")
    for report in table.changed:
        say(f"{table.name}: {report}", verbosity=2)
    if table.changed:
        say(f"{table.name}: {len(table.changed)} rows standardised or merged (-v lists them)")


def train_members(
    config: TrainConfig,
    table: Table,
    place: Run,
    *,
    fold: np.ndarray | None,
    teacher: JointKernel | None,
    seed: int,
    resume: bool,
) -> tuple[Predictor, list[FitResult]]:
    """Train the networks one after the other; each has its own checkpoint in the run folder.

    With folds (`whole.run_folds`) each is trained without its own, and so is what the teacher
    says to it.
    """
    seeds = [seed + i * MEMBER_STRIDE for i in range(config.model.n_member)]
    n_task = table.target.shape[1]
    members, fits = [], []
    views = [without_fold(table, fold, i) for i in range(len(seeds))]
    lessons: list[tuple[np.ndarray | None, Lesson | None]] = [(None, None)] * len(seeds)
    if teacher is not None:
        lessons = teach(teacher, table, views, config.analogues, seed=seed)
    for i, member_seed in enumerate(seeds):
        set_seed(member_seed)
        seen, (hint, lesson) = views[i], lessons[i]
        model = build_network(config, n_task=n_task, seed=member_seed)
        model.set_scale(seen.select("train").target)
        model = model.to(place.device)
        label = "train" if len(seeds) == 1 else f"train {i + 1}/{len(seeds)}"
        checkpoint = place.dir / f"checkpoint-{i}.safetensors"
        fits.append(
            fit_network(
                model,
                seen,
                config.train,
                member_seed,
                density=config.variant.density,
                hint=hint,
                lesson=lesson,
                checkpoint=checkpoint,
                resume=resume,
                label=label,
            )
        )
        members.append(model)
    predictor = Predictor(config, list(table.target_names), table.unit, seeds, members)
    return predictor, fits


def _record(
    config: TrainConfig,
    table: Table,
    place: Run,
    predictor: Predictor,
    fits: list[FitResult],
    result: Evaluation,
    seed: int,
) -> Record:
    start = time.perf_counter()
    predictor.predict(table.graphs)
    infer_s = time.perf_counter() - start
    reports = _reports(predictor, table, machines=())
    return new_record(
        application=APPLICATION,
        command="chemistry train",
        config=config,
        seed=seed,
        device=place.device,
        data={
            "name": table.name,
            "source": table.source,
            "sha256": table.sha256,
            "unit": table.unit,
            **{f"n_{part}": int((table.split == part).sum()) for part in SPLITS},
        },
        accuracy=result.accuracy,
        members=result.members,
        baselines=result.baselines,
        throughput={
            "item": "molecule",
            "train_item_per_s": float(np.mean([f.item_per_s for f in fits])),
            "infer_item_per_s": len(table) / infer_s,
        },
        cost=cost_entries(reports, config.variant.name),
        figures=[*result.figures, *draw_step(reports, place.dir)],
        history=fits[0].history,
    )


def cost_run(folder: Path, *, machines: Sequence[str] = ()) -> list[CostEntry]:
    """Return the cost entries of a finished run's network, on a batch of its training data."""
    predictor = Predictor.load(folder)
    table = read_table(predictor.config, read_record(folder).seed)
    reports = _reports(predictor, table, machines=machines)
    return cost_entries(reports, predictor.config.variant.name)


def _reports(predictor: Predictor, table: Table, *, machines: Sequence[str]) -> list[CostReport]:
    """Cost one member, as members run one after the other."""
    config = predictor.config
    return cost_reports(
        predictor.members[0],
        first_batch(table, config).to(predictor.members[0].target_mean.device),
        make_optimizer=lambda model: make_optimizer(model, config.train),
        machines=machines,
    )


def first_batch(table: Table, config: TrainConfig) -> MolBatch:
    """Return the first training molecules, as many as a training step takes."""
    rows = table.select("train")
    n = config.train.batch_size
    return pack(rows.graphs[:n], rows.target[:n])
