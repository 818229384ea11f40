"""The long work of a benchmark in stages, each kept in a file once it has ended.

A stage reads only its group's settings and the files of the stages before it, so that stages run
in processes of their own and a run that was killed goes on from what it left.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from io import BytesIO
from pathlib import Path

import numpy as np

from apps.chemistry.baselines import JointKernel, nearest_training_row, predict_baselines
from apps.chemistry.config import DataConfig, TrainConfig
from apps.chemistry.datasets import Table, join_tables
from apps.chemistry.fitting import fit_network
from apps.chemistry.hybrid import (
    Member,
    draw_folds,
    graph_members,
    kernel_member,
    trees_member,
)
from apps.chemistry.lessons import lesson_molecules, lesson_of
from apps.chemistry.molecules.analogues import Analogues
from apps.chemistry.predictor import Predictor, build_network
from apps.chemistry.process import fit_process
from apps.chemistry.train import MEMBER_STRIDE, read_table
from apps.lab.files import write_atomic
from apps.lab.progress import say
from core.errors import DataError


@dataclass(frozen=True)
class Models:
    """What all models say of one set."""

    table: Table
    members: dict[str, Member]
    """By the names of `hybrid.MEMBERS`; "joint" where sets are run together."""
    each: np.ndarray
    """float [fold, row]: what each part of the graph member says."""
    network: np.ndarray | None
    """float [row]: mean of the last layers of the networks, where the graph member is that of
    processes on their counts."""
    baselines: dict[str, np.ndarray]
    """float [row] by name."""
    similarity: np.ndarray
    """float64 [row]: Tanimoto similarity to the nearest training row."""
    seen: np.ndarray
    """bool [row]: another set of the group has the molecule among its training rows."""

    def held_out(self, names: Sequence[str]) -> np.ndarray:
        """Return float64 [member, row]: the out-of-fold predictions of some members."""
        return np.array([self.members[name].held_out for name in names])


@dataclass(frozen=True)
class Group:
    """Sets that share their networks, and where the results of their stages lie."""

    train: TrainConfig
    sources: tuple[DataConfig, ...]
    seed: int
    n_fold: int
    is_taught: bool
    place: Path

    @property
    def fold_stages(self) -> list[str]:
        """Names of the stages that train a network without a fold."""
        return [f"fold-{i}" for i in range(self.n_fold)]

    @property
    def process_stages(self) -> list[str]:
        """Names of the stages that fit processes to what a network counts, if any are asked for."""
        return [f"process-{i}" for i in range(self.n_fold if self.train.model.process else 0)]

    @property
    def joint_stages(self) -> list[str]:
        """Name of the stage that fits the kernel mix to several sets, each heeding the others."""
        return ["joint"] if len(self.sources) > 1 else []

    @property
    def set_stages(self) -> list[str]:
        """Names of the stages that fit kernel, trees and baselines to a set."""
        return [f"set-{i}" for i in range(len(self.sources))]

    def tables(self) -> tuple[Table, ...]:
        """Return the tables of the sets."""
        return _tables(self.train, self.sources, self.seed)

    def folds(self) -> list[np.ndarray]:
        """Return int64 [row] for each set, see `hybrid.draw_folds`."""
        return [draw_folds(table, self.n_fold, self.seed) for table in self.tables()]

    def joined(self, i_fold: int) -> Table:
        """Return all sets as one table, fold `i_fold` in its valid part."""
        return _joined(self, i_fold)

    def work(self, stage: str) -> None:
        """Do one of the stages ("teach" before the folds), unless its file is there."""
        kind, _, number = stage.partition("-")
        if kind == "teach":
            self._teach()
        elif kind == "joint":
            if not self._file(stage).exists():
                self._keep(stage, self._joint)
        elif not self._file(stage).exists():
            work = {"fold": self._fold, "process": self._process, "set": self._set}[kind]
            self._keep(stage, partial(work, int(number)))

    def _teach(self) -> None:
        """Write what the teacher says, one file per fold; the kernel is made once for all."""
        stages = [f"hint-{i}" for i in range(self.n_fold)]
        missing = [i for i, stage in enumerate(stages) if not self._file(stage).exists()]
        if not self.is_taught or not missing:
            return
        start = time.process_time()
        kernel = JointKernel.of(self.joined(0))
        teachers = [kernel.teacher(self.joined(i)) for i in missing]
        made = lesson_molecules(self.joined(0), self.train.analogues, seed=self.seed)
        say(f"teacher: {len(made.smiles)} analogues")
        answers = kernel.answers(made.smiles, teachers)
        for i, teacher, answer in zip(missing, teachers, answers, strict=True):
            found = {"hint": kernel.hints(self.joined(i), teacher), "answer": answer}
            if made.smiles:
                found |= made._asdict() | {"smiles": np.array(made.smiles)}
            self._keep(stages[i], partial(dict, found), start)
            start = time.process_time()

    def models(self) -> list[Models]:
        """Return the models of each set, once all stages have ended."""
        tables, folds = self.tables(), self.folds()
        start = np.cumsum([0, *map(len, tables)])
        answers = [self._read(stage)["answer"] for stage in self.fold_stages]
        told = [self._read(stage) for stage in self.process_stages]
        joint = [self._read(stage) for stage in self.joint_stages]
        out = []
        for i, (table, fold) in enumerate(zip(tables, folds, strict=True)):
            rows = slice(start[i], start[i + 1])
            own = [answer[rows, None] for answer in answers]
            graph, network = graph_members(fold, own)[0], None
            if told:
                own = [answer["whole"][rows, None] for answer in told]
                parts = [answer["held_out"][rows, None] for answer in told]
                network = graph.whole
                graph = Member(graph_members(fold, parts)[0].held_out, np.mean(own, axis=0)[:, 0])
            found = self._read(f"set-{i}")
            members = {
                name: Member(found[f"{name}_held_out"], found[f"{name}_whole"])
                for name in ("kernel", "trees")
            } | {"graph": graph}
            if joint:
                members["joint"] = Member(joint[0]["held_out"][rows], joint[0]["whole"][rows])
            others = {
                smiles
                for k, other in enumerate(tables)
                if k != i
                for smiles, part in zip(other.smiles, other.split, strict=True)
                if part != "test"
            }
            lines = {
                name.removeprefix("baseline_"): values
                for name, values in found.items()
                if name.startswith("baseline_")
            }
            seen = np.array([smiles in others for smiles in table.smiles])
            each = np.array(own)[:, :, 0]
            out.append(Models(table, members, each, network, lines, found["similarity"], seen))
        return out

    def _fold(self, i_fold: int) -> dict[str, np.ndarray]:
        """Train without a fold; give what the network says of every row's own task."""
        table, seed = self.joined(i_fold), self.seed + i_fold * MEMBER_STRIDE
        names = list(table.target_names)
        model = build_network(self.train, n_task=len(names), seed=seed)
        model.set_scale(table.select("train").target)
        found = self._read(f"hint-{i_fold}") if self.is_taught else {}
        lesson = None
        if "smiles" in found:
            made = Analogues(found["smiles"].tolist(), found["parent"], found["donor"])
            lesson = lesson_of(table, made, found["answer"])
        label = table.name if len(names) == 1 else f"{len(names)} targets"
        fit_network(
            model,
            table,
            self.train.train,
            seed,
            density=self.train.variant.density,
            hint=found.get("hint"),
            lesson=lesson,
            checkpoint=self.place / f"checkpoint-{i_fold}.safetensors",
            resume=True,
            label=f"{label} {i_fold + 1}/{self.n_fold}",
        )
        predictor = Predictor(self.train, names, table.unit, [seed], [model])
        predictor.save(self.network(i_fold))
        return {"answer": predictor.predict(table.graphs)[np.arange(len(table)), self._task()]}

    def _process(self, i_fold: int) -> dict[str, np.ndarray]:
        """Fit processes of all sets to the counts of a network; give what they say of every row.

        "held_out" is by one that has not seen the fold either, NaN outside of it.
        """
        networks = Predictor.load(self.network(i_fold))
        table, fold = self.joined(i_fold), np.concatenate(self.folds())
        (count,) = networks.run_networks(table.graphs)[1]
        fit = fit_process(
            count, table.exact, table.smiles, n_state=networks.config.model.n_layer + 1,
            learns=fold >= 0, held=fold == i_fold,
        )  # fmt: skip
        own = np.arange(len(table)), self._task()
        return {"whole": fit.process.predict(count)[own], "held_out": fit.held_out[own]}

    def _joint(self) -> dict[str, np.ndarray]:
        """Fit processes on the kernel mix of all sets; give what they say of every row."""
        table, fold = self.joined(0), np.concatenate(self.folds())
        told = JointKernel.of(table).heeding(table, fold, n_fold=self.n_fold)
        own = np.arange(len(table)), self._task()
        return {"whole": told.whole[own], "held_out": told.held_out[own]}

    def _task(self) -> np.ndarray:
        """Return int64 [row of the joined table]: which set each row is of."""
        return np.repeat(np.arange(len(self.sources)), [len(table) for table in self.tables()])

    def _set(self, i: int) -> dict[str, np.ndarray]:
        table, fold = self.tables()[i], self.folds()[i]
        out = {"similarity": nearest_training_row(table)[1]}
        parts = ("train", "valid")
        for name, values in predict_baselines(table, parts=parts, seed=self.seed).items():
            out[f"baseline_{name}"] = values[:, 0]
        for name, fit in (("kernel", kernel_member), ("trees", trees_member)):
            member = fit(table, fold, seed=self.seed)
            out |= {f"{name}_held_out": member.held_out, f"{name}_whole": member.whole}
        return out

    def network(self, i_fold: int) -> Path:
        """Return the model file of the network trained without a fold, as `predict` takes it."""
        return self.place / f"network-{i_fold}.safetensors"

    def _file(self, stage: str) -> Path:
        return self.place / f"{stage}.npz"

    def cpu_s(self) -> dict[str, float]:
        """Return the CPU seconds of the stages by kind, once all have ended.

        Those of a stage that was killed and taken up again are of its last part alone.
        """
        kinds = {"networks": self.fold_stages, "kernel, trees, baselines": self.set_stages}
        if self.process_stages:
            kinds["processes"] = self.process_stages
        if self.joint_stages:
            kinds["joint kernel"] = self.joint_stages
        if self.is_taught:
            kinds["teacher"] = [f"hint-{i}" for i in range(self.n_fold)]
        return {
            kind: sum(float(self._read(stage)["cpu_s"]) for stage in stages)
            for kind, stages in kinds.items()
        }

    def _keep(
        self, stage: str, work: Callable[[], dict[str, np.ndarray]], start: float | None = None
    ) -> None:
        """Write what `work` gives, and the CPU seconds since `start` (now, where it is None)."""
        start = time.process_time() if start is None else start
        arrays = work() | {"cpu_s": np.array(time.process_time() - start)}
        packed = BytesIO()
        np.savez(packed, **arrays)  # type: ignore[arg-type]  # names of arrays, not options
        self.place.mkdir(parents=True, exist_ok=True)
        write_atomic(self._file(stage), packed.getvalue())

    def _read(self, stage: str) -> dict[str, np.ndarray]:
        try:
            with np.load(BytesIO(self._file(stage).read_bytes()), allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except Exception as error:  # whatever the reader of a torn file raises
            raise DataError(
                f"benchmark: {self._file(stage)} is damaged ({error}); delete it and run the "
                "command again: this stage alone is made anew"
            ) from error


@lru_cache(maxsize=1)
def _tables(config: TrainConfig, sources: tuple[DataConfig, ...], seed: int) -> tuple[Table, ...]:
    tables = []
    for data in sources:
        table = read_table(config.model_copy(update={"data": data}), seed)
        if table.target.shape[1] != 1:
            raise DataError(
                f"benchmark: {data.source} must have one target, has {table.target_names}"
            )
        tables.append(table)
    return tuple(tables)


@lru_cache(maxsize=1)
def _joined(group: Group, i_fold: int) -> Table:
    fold = np.concatenate(group.folds())
    split = np.where(fold < 0, "test", np.where(fold == i_fold, "valid", "train"))
    return replace(join_tables(group.tables()), split=split)
