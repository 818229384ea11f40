"""The benchmark: every target of a suite, members and hybrid beside the baselines."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from pydantic import Field

from apps.chemistry.baselines import nearest_training_row, predict_baselines
from apps.chemistry.benchmark.hybrid import (
    Member,
    draw_folds,
    graph_members,
    kernel_member,
    mixture_weight,
)
from apps.chemistry.config import DataConfig, FitConfig, ModelConfig, TrainConfig
from apps.chemistry.datasets import SPLITS, Table, join_tables
from apps.chemistry.evaluate import PREDICTIONS_FILE, Scores, score_rows
from apps.chemistry.fitting import fit_network
from apps.chemistry.predictor import Predictor, build_network
from apps.chemistry.train import APPLICATION, MEMBER_STRIDE, read_table
from apps.lab.config import Config, config_sha256, near_miss
from apps.lab.datastore import list_datasets
from apps.lab.files import write_atomic
from apps.lab.launch import start_run
from apps.lab.progress import say
from apps.lab.record import RECORD_FILE, Record, new_record, read_record, write_record
from apps.lab.variant import VARIANTS, Variant
from core.errors import DataError

PUBLISHED = Path(__file__).with_name("published.toml")
SUITES = ("moleculeace", "bace", "pocket")


class BenchmarkConfig(Config):
    """One recipe for all targets.

    Parameters
    ----------
    n_fold : int
        Folds of the train and valid parts, and networks of the graph member.
    joint : bool
        One network for all targets, with a head for each, instead of one network per target.
    """

    variant: Variant = VARIANTS["dense-fp32"]
    model: ModelConfig = ModelConfig()
    train: FitConfig = FitConfig(n_epoch=20, pick="last")
    n_fold: int = Field(default=5, ge=2)
    joint: bool = False


class TargetConfig(BenchmarkConfig):
    """The settings of one target's record; `together` are the sets its network was trained on."""

    data: DataConfig
    together: tuple[str, ...]


def suite_sources(suite: str, targets: Sequence[str] = ()) -> list[str]:
    """Return the names of a suite's sets, all or the given ones.

    Raises
    ------
    DataError
        If the suite or a target is unknown; the near miss is named.
    """
    if suite not in SUITES:
        raise DataError(f"benchmark: no suite is named {suite!r}{near_miss(suite, SUITES)}")
    known = [suite]
    if suite == "moleculeace":
        prefix = f"{suite}/"
        known = [e.name for e in list_datasets() if e.name.startswith(prefix)]
    chosen = [target if target in known else f"{suite}/{target}" for target in targets]
    for target in chosen:
        if target not in known:
            raise DataError(f"benchmark: {suite} has no set {target!r}{near_miss(target, known)}")
    return chosen or known


def run_benchmark(
    config: BenchmarkConfig, sources: Sequence[str], *, out: Path, seeds: Sequence[int]
) -> list[Record]:
    """Run every set with every seed; a finished one in `out` with the same settings is kept.

    Returns
    -------
    list of Record
        Accuracy is that of the hybrid; members "graph" and "kernel"; the baselines are fitted to
        the same rows (train and valid parts) and stand beside the published errors.
    """
    records = []
    for seed in seeds:
        groups = [list(sources)] if config.joint else [[source] for source in sources]
        for group in groups:
            settings = [_settings(config, source, group) for source in group]
            folders = [run_folder(out, source, seed) for source in group]
            kept = [_finished(f, s) for f, s in zip(folders, settings, strict=True)]
            if all(kept):
                records += [record for record in kept if record is not None]
            else:
                records += _run_group(settings, folders, seed)
    return records


@dataclass(frozen=True)
class _Job:
    """One set of a group: its table, its folds and its settings."""

    config: TargetConfig
    table: Table
    fold: np.ndarray


def run_folder(out: Path, source: str, seed: int) -> Path:
    """Return the folder of one set and seed."""
    return out / source.strip("/").replace("/", "-") / f"seed-{seed}"


def _settings(config: BenchmarkConfig, source: str, group: list[str]) -> TargetConfig:
    data = DataConfig(source=source)
    return TargetConfig(**config.model_dump(), data=data, together=tuple(group))


def _finished(folder: Path, settings: TargetConfig) -> Record | None:
    if not (folder / RECORD_FILE).exists():
        return None
    record = read_record(folder)
    return record if record.config_sha256 == config_sha256(settings) else None


def _run_group(settings: list[TargetConfig], folders: list[Path], seed: int) -> list[Record]:
    jobs = []
    for one in settings:
        table = read_table(_train_config(one), seed)
        source = one.data.source
        if table.target.shape[1] != 1:
            raise DataError(f"benchmark: {source} must have one target, has {table.target_names}")
        jobs.append(_Job(one, table, draw_folds(table, one.n_fold, seed)))
    joined = join_tables([job.table for job in jobs])
    fold = np.concatenate([job.fold for job in jobs])
    graphs = graph_members(joined, fold, partial(_train_fold, _train_config(settings[0]), seed))
    records, start = [], 0
    for job, folder, graph in zip(jobs, folders, graphs, strict=True):
        rows = slice(start, start + len(job.table))
        start += len(job.table)
        own = Member(graph.held_out[rows], graph.whole[rows])
        records.append(_judge(job, own, folder, seed))
    return records


def _train_config(config: TargetConfig) -> TrainConfig:
    return TrainConfig(**config.model_dump(exclude={"n_fold", "joint", "together"}))


def _train_fold(config: TrainConfig, seed: int, table: Table, i_fold: int) -> np.ndarray:
    member_seed = seed + i_fold * MEMBER_STRIDE
    names = list(table.target_names)
    model = build_network(config, n_task=len(names), seed=member_seed)
    model.set_scale(table.select("train").target)
    label = f"{table.name if len(names) == 1 else f'{len(names)} targets'} {i_fold + 1}"
    fit_network(model, table, config.train, member_seed, label=label)
    return Predictor(config, names, table.unit, [member_seed], [model]).predict(table.graphs)


def _judge(job: _Job, graph: Member, folder: Path, seed: int) -> Record:
    """Weigh the members, score everything on the test part, and write the record."""
    table = job.table
    kernel = kernel_member(table, job.fold, seed=seed)
    weight = mixture_weight(kernel.held_out, graph.held_out, table.exact[:, 0])
    whole = (1 - weight) * kernel.whole + weight * graph.whole
    test = np.nonzero(table.split == "test")[0]
    judged = table.take(test)

    def scores(prediction: np.ndarray) -> Scores:
        return {"test": score_rows(prediction.reshape(len(table), -1)[test], judged)}

    references = predict_baselines(table, parts=("train", "valid"), seed=seed)
    baselines = {name: scores(values) for name, values in references.items()}
    baselines |= {k: {"test": dict(v)} for k, v in _published(job.config.data.source).items()}
    columns = {
        "measured": table.target[:, 0],
        "hybrid": whole,
        "kernel": kernel.whole,
        "graph": graph.whole,
        "svm_ecfp4": references["svm_ecfp4"][:, 0],
        "nearest_train_tanimoto": nearest_training_row(table)[1],
    }
    with start_run(
        folder,
        job.config,
        seed=seed,
        device="cpu",
        resume=True,
        command="chemistry benchmark",
        application=APPLICATION,
    ) as place:
        write_atomic(place.dir / PREDICTIONS_FILE, _predictions_csv(judged, columns, test))
        record = new_record(
            application=APPLICATION,
            command="chemistry benchmark",
            config=job.config,
            seed=seed,
            device=place.device,
            data={
                "name": table.name,
                "source": table.source,
                "sha256": table.sha256,
                "unit": table.unit,
                **{f"n_{part}": int((table.split == part).sum()) for part in SPLITS},
            },
            accuracy={"test": scores(whole)["test"] | {"weight_graph": weight}},
            members={"graph": scores(graph.whole), "kernel": scores(kernel.whole)},
            baselines=baselines,
        )
        write_record(place.dir, record)
    say(f"{table.name} seed {seed}: rmse {record.accuracy['test']['rmse']:.3f}")
    return record


def _published(source: str) -> dict[str, dict[str, float]]:
    """Return published test errors of a set by method, none where none are known."""
    suite, _, target = source.partition("/")
    errors = tomllib.loads(PUBLISHED.read_text(encoding="utf-8")).get(suite, {}).get(target, {})
    return {method: dict(scores) for method, scores in errors.items()}


def _predictions_csv(judged: Table, columns: dict[str, np.ndarray], test: np.ndarray) -> str:
    lines = [",".join(["row", "smiles", *columns])]
    for i, row in enumerate(test):
        cells = [f"{values[row]:.4f}" for values in columns.values()]
        lines.append(",".join([str(judged.row[i]), judged.smiles[i], *cells]))
    return "\n".join(lines) + "\n"
