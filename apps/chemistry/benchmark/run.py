"""The benchmark: every target of a suite, members and hybrid beside the baselines."""

import json
import tomllib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from pydantic import Field

from apps.chemistry.benchmark.stages import Group, Models
from apps.chemistry.config import DataConfig, FitConfig, ModelConfig, TrainConfig
from apps.chemistry.datasets import BACE_SPLITS, SPLITS, Table
from apps.chemistry.evaluate import PREDICTIONS_FILE, Scores, score_rows
from apps.chemistry.hybrid import MEMBERS, mixture_weights
from apps.chemistry.train import APPLICATION
from apps.lab.config import Config, config_sha256, near_miss
from apps.lab.datastore import list_datasets
from apps.lab.files import write_atomic
from apps.lab.launch import start_run
from apps.lab.pool import map_tasks
from apps.lab.progress import say
from apps.lab.record import RECORD_FILE, Record, new_record, read_record, write_record
from apps.lab.variant import VARIANTS, Variant
from core.errors import DataError

PUBLISHED = Path(__file__).with_name("published.toml")
CPU_FILE = "cpu_s.json"  # CPU seconds by kind of stage, in the folder of a group's stages
SUITES = ("moleculeace", "bace", "pocket")


class BenchmarkConfig(Config):
    """One recipe for all targets.

    Parameters
    ----------
    n_fold : int
        Folds of the train and valid parts, and networks of the graph member.
    joint : bool
        One network for all targets, with a head for each, instead of one network per target.
    teacher : bool
        A joint network also learns what the kernel mix, fitted without the fold, says of the
        molecules of all targets (`apps.chemistry.baselines.JointKernel`). It predicts from the
        graph alone.
    analogues : float
        See `TrainConfig`.

    Notes
    -----
    What is not given of `model` and `train` is what is usual in `TrainConfig` for one set, or for
    several.
    """

    variant: Variant = VARIANTS["dense-bf16"]
    model: ModelConfig = ModelConfig()
    train: FitConfig = FitConfig()
    n_fold: int = Field(default=5, ge=2)
    joint: bool = True
    teacher: bool = True
    analogues: float = Field(default=0.0, ge=0)


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
    elif suite == "bace":
        known = [f"{suite}/{rule}" for rule in BACE_SPLITS]
    chosen = [target if target in known else f"{suite}/{target}" for target in targets]
    for target in chosen:
        if target not in known:
            raise DataError(f"benchmark: {suite} has no set {target!r}{near_miss(target, known)}")
    return chosen or known


def run_benchmark(
    config: BenchmarkConfig,
    sources: Sequence[str],
    *,
    out: Path,
    seeds: Sequence[int],
    n_job: int = 1,
) -> list[Record]:
    """Run every set with every seed; a finished one in `out` with the same settings is kept.

    Returns
    -------
    list of Record
        Accuracy is that of the mixture; members are those of `hybrid.MEMBERS` and
        "kernel_graph", kernel and graph weighed without the others, and, where processes on the
        counts of the networks are the graph member, "network": their last layers (see
        `apps.chemistry.process`). The baselines are fitted to
        the same rows (train and valid parts) and stand beside the published errors.
        Whatever ended of a run that was killed is taken up again.
    """
    records = []
    for seed in seeds:
        # splits of one set are never joined: the test part of one trains the others
        is_joint = config.joint and not any(source.startswith("bace/") for source in sources)
        groups = [list(sources)] if is_joint else [[source] for source in sources]
        for group in groups:
            settings = [_settings(config, source, group) for source in group]
            folders = [run_folder(out, source, seed) for source in group]
            kept = [_finished(f, s) for f, s in zip(folders, settings, strict=True)]
            if all(kept):
                records += [record for record in kept if record is not None]
            else:
                records += _run_group(settings, folders, out, seed, n_job)
    return records


def run_folder(out: Path, source: str, seed: int) -> Path:
    """Return the folder of one set and seed."""
    return out / source.strip("/").replace("/", "-") / f"seed-{seed}"


def parts_folder(out: Path, settings: TargetConfig, seed: int) -> Path:
    """Return where the stages of a group leave their results.

    `settings` are those of any set of the group.
    """
    data = settings.data.model_copy(update={"source": settings.together[0]})
    first = settings.model_copy(update={"data": data})
    return out / "parts" / config_sha256(first)[:12] / f"seed-{seed}"


def _settings(config: BenchmarkConfig, source: str, group: list[str]) -> TargetConfig:
    given = {
        name: getattr(config, name).model_dump(exclude_unset=True)
        for name in ("model", "train")
        if name in config.model_fields_set
    }
    together = DataConfig(source=group[0]).model_copy(update={"more": tuple(group[1:])})
    usual = TrainConfig(data=together, kernel="on", **given)
    settings = config.model_dump() | {"model": usual.model, "train": usual.train}
    return TargetConfig(**settings, data=DataConfig(source=source), together=tuple(group))


def _finished(folder: Path, settings: TargetConfig) -> Record | None:
    if not (folder / RECORD_FILE).exists():
        return None
    record = read_record(folder)
    return record if record.config_sha256 == config_sha256(settings) else None


def _run_group(
    settings: list[TargetConfig], folders: list[Path], out: Path, seed: int, n_job: int
) -> list[Record]:
    one = settings[0]
    place = parts_folder(out, one, seed)
    sources = tuple(setting.data for setting in settings)
    whole = one.data.model_copy(update={"more": tuple(data.source for data in sources[1:])})
    train = TrainConfig(**one.model_dump(exclude={"n_fold", "joint", "together", "data"}),
                        data=whole)  # fmt: skip
    is_taught = one.teacher and len(sources) > 1
    group = Group(train, sources, seed, one.n_fold, is_taught, place)
    for stages in (
        ["teach", *group.set_stages, *group.joint_stages],
        group.fold_stages,
        group.process_stages,
    ):
        map_tasks(partial(Group.work, group), stages, n_job=n_job)
    write_atomic(place / CPU_FILE, json.dumps(group.cpu_s(), indent=1) + "\n")
    models = group.models()
    true = [m.table.exact[:, 0] for m in models]
    weights = {
        name: dict(
            zip(
                members,
                mixture_weights([m.held_out(members) for m in models], true),
                strict=True,
            )
        )
        for name, members in (
            ("", [name for name in MEMBERS if name in models[0].members]),
            ("kernel_graph", ["kernel", "graph"]),
        )
    }
    return [
        _judge(setting, model, weights, folder, seed)
        for setting, model, folder in zip(settings, models, folders, strict=True)
    ]


def _judge(
    config: TargetConfig,
    models: Models,
    weights: dict[str, dict[str, float]],
    folder: Path,
    seed: int,
) -> Record:
    """Mix the members, score everything on the test part, and write the record."""
    table = models.table
    mixed = {
        name: np.sum([w * models.members[k].whole for k, w in parts.items()], axis=0)
        for name, parts in weights.items()
    }
    test = np.nonzero(table.split == "test")[0]
    judged = table.take(test)
    parts = {"": np.ones(test.size, dtype=bool)}
    if len(config.together) > 1:
        parts |= {"_seen": models.seen[test], "_unseen": ~models.seen[test]}

    def scores(prediction: np.ndarray) -> Scores:
        values = prediction.reshape(len(table), 1)[test]
        found = score_rows(values, judged)
        for half, rows in parts.items():
            if half and rows.any():
                found[f"rmse{half}"] = score_rows(values[rows], judged.take(rows.nonzero()[0]))[
                    "rmse"
                ]
        return {"test": found}

    whole = {name: member.whole for name, member in models.members.items()}
    whole["kernel_graph"] = mixed["kernel_graph"]
    if models.network is not None:
        whole["network"] = models.network
    parts_of_graph = {f"graph-{i}": values for i, values in enumerate(models.each)}
    baselines = {name: scores(values) for name, values in models.baselines.items()}
    baselines |= {k: {"test": dict(v)} for k, v in _published(config.data.source).items()}
    columns = {
        "measured": table.target[:, 0],
        "hybrid": mixed[""],
        **whole,
        "svm_ecfp4": models.baselines["svm_ecfp4"],
        "seen": models.seen.astype(float),
        "nearest_train_tanimoto": models.similarity,
    }
    taken = {f"weight_{name}": weight for name, weight in weights[""].items()}
    with start_run(
        folder,
        config,
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
            accuracy={"test": scores(mixed[""])["test"] | taken},
            members={name: scores(values) for name, values in (whole | parts_of_graph).items()},
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
