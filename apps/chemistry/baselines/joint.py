"""One kernel mix for all molecules of a table: models of every task, and hints for a network.

A network that learns from a few hundred measured values also learns from the answers of a
stronger model at molecules that were measured for another task. Only training uses such hints;
the network that comes of it reads graphs alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from apps.chemistry.baselines.fellows import Task, TaskFit, fit_tasks
from apps.chemistry.baselines.kernel import fit_gaussian_process, fit_svr
from apps.chemistry.baselines.mix import MixKernel
from apps.chemistry.datasets import Table
from apps.chemistry.molecules import mol_from_smiles
from apps.chemistry.molecules.tables import Molecules
from core.errors import DataError

_ANSWER_ROW = 2000  # molecules whose kernel is held at a time


@dataclass(frozen=True)
class KernelMember:
    """The kernels' half of an answer as it is deployed: models on one kernel mix, all tasks.

    Shape letters: M molecules that it was fitted to, T tasks.
    """

    smiles: list[str]
    """[M]"""
    parts: Mapping[str, TaskFit]
    """By name: "kernel", the mean of Gaussian process and support vectors of each task alone, and
    of several tasks "joint", Gaussian processes that heed each other."""

    @cached_property
    def kernel(self) -> MixKernel:
        """The kernel to the molecules."""
        return MixKernel.of([mol_from_smiles(text) for text in self.smiles])

    def predict(self, mols: Molecules) -> dict[str, np.ndarray]:
        """Return what each part says, float64 [molecule, T]; the kernel is made once for all."""
        like = self.kernel.against(mols)
        return {name: fit.answer(like) for name, fit in self.parts.items()}

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return what a model file keeps."""
        text = "\n".join(self.smiles).encode()
        kept = {"smiles": torch.frombuffer(bytearray(text), dtype=torch.uint8)}
        for part, fit in self.parts.items():
            prefix = "" if part == "kernel" else f"{part}."
            kept |= {prefix + k: v for k, v in fit.tensors().items()}
        return kept

    @classmethod
    def from_tensors(cls, kept: Mapping[str, torch.Tensor]) -> "KernelMember":
        """Read what `tensors` gave.

        Raises
        ------
        DataError
            If the shapes do not belong together.
        """
        by_part: dict[str, dict[str, torch.Tensor]] = {}
        for key, tensor in kept.items():
            part, _, name = key.rpartition(".")
            by_part.setdefault(part or "kernel", {})[name] = tensor
        smiles = by_part["kernel"].pop("smiles").numpy().tobytes().decode().split("\n")
        parts = {part: TaskFit.from_tensors(own) for part, own in by_part.items()}
        sizes = {fit.weight.shape for fit in parts.values()}
        if len(sizes) > 1 or {len(smiles)} != {n for n, _ in sizes}:
            raise DataError(
                f"kernels of {len(smiles)} molecules with weights {sorted(sizes)}: the file was "
                "changed or is damaged; train the model again"
            )
        return cls(smiles, parts)


@dataclass(frozen=True)
class KernelAnswers:
    """Models on the kernel of a table, and what they say of its rows."""

    fit: TaskFit
    """To the molecules of the kernel's columns."""
    whole: np.ndarray
    """float64 [row, task]: by `fit`; NaN for tasks with fewer than two values."""
    held_out: np.ndarray
    """float64 [row, task]: by a fit without the row's fold; NaN for rows in no fold."""


@dataclass(frozen=True)
class JointKernel:
    """The kernel mix between all molecules of a table and those that train any task.

    Parameters
    ----------
    smiles : list of str
        [molecule]: the distinct ones.
    molecule : int64 [row]
        Which molecule each row of the table is; rows of one SMILES share one.
    column : int64 [molecule]
        Column of the molecule in `kernel`, -1 for molecules that only test.
    kernel : float32 [molecule, column]
    mix : MixKernel
        The kernel to the molecules of the columns.
    """

    smiles: list[str]
    molecule: np.ndarray
    column: np.ndarray
    kernel: np.ndarray
    mix: MixKernel

    @classmethod
    def of(cls, table: Table) -> "JointKernel":
        """Make the kernel to the molecules that have a row outside the test part."""
        names, molecule = np.unique(np.array(table.smiles, dtype=object), return_inverse=True)
        learns = np.unique(molecule[table.split != "test"])
        mols = [mol_from_smiles(text) for text in names]
        column = np.full(len(names), -1)
        column[learns] = np.arange(len(learns))
        mix = MixKernel.of([mols[i] for i in learns])
        return cls(names.tolist(), molecule, column, mix.against(mols), mix)

    def member(self, parts: Mapping[str, KernelAnswers]) -> KernelMember:
        """Return what is deployed of models that `fit` and `heeding` gave."""
        learns = np.nonzero(self.column >= 0)[0]
        fits = {name: part.fit for name, part in parts.items()}
        return KernelMember([self.smiles[i] for i in learns], fits)

    def teacher(self, table: Table) -> TaskFit:
        """Fit a Gaussian process per task to the train part.

        Parameters
        ----------
        table : Table
            The table of `of`, where other rows of the train and valid parts may be valid now.
        """
        n_task = table.target.shape[1]
        weight, offset = np.zeros((int(self.column.max()) + 1, n_task)), np.full(n_task, np.nan)
        trains = table.split == "train"
        for task in range(n_task):
            value = table.exact[:, task].astype(np.float64)
            fitted = np.nonzero(trains & np.isfinite(value))[0]
            if fitted.size < 2:
                continue
            fit = fit_gaussian_process(self._square(fitted), value[fitted])
            np.add.at(weight[:, task], self.column[self.molecule[fitted]], fit.weight)
            offset[task] = fit.offset
        return TaskFit(weight, offset)

    def hints(self, table: Table, teacher: TaskFit | None = None) -> np.ndarray:
        """Return float32 [row, task]: what the teacher of the table says of its train part.

        Returns
        -------
        ndarray
            NaN for rows that do not train, and where the molecule is a valid or test row of the
            task: what is to be predicted is not hinted at, not even by another model.
        """
        answer = (teacher or self.teacher(table)).answer(self.kernel).astype(np.float32)
        trains = table.split == "train"
        out = np.full(table.target.shape, np.nan, dtype=np.float32)
        out[trains] = answer[self.molecule[trains]]
        for task in range(table.target.shape[1]):
            judged = np.isfinite(table.target[:, task]) & ~trains
            out[np.isin(self.molecule, self.molecule[judged]), task] = np.nan
        return out

    def answers(self, smiles: Sequence[str], teachers: Sequence[TaskFit]) -> np.ndarray:
        """Return float32 [teacher, molecule, task]: what teachers say of any molecules."""
        out = np.empty((len(teachers), len(smiles), teachers[0].offset.size), dtype=np.float32)
        for start in range(0, len(smiles), _ANSWER_ROW):
            rows = slice(start, start + _ANSWER_ROW)
            kernel = self.mix.against([mol_from_smiles(text) for text in smiles[rows]])
            for i, teacher in enumerate(teachers):
                out[i, rows] = teacher.answer(kernel)
        return out

    def fit(self, table: Table, fold: np.ndarray, *, n_fold: int, seed: int) -> KernelAnswers:
        """Fit every task to the rows that lie in a fold, and again without each fold.

        Parameters
        ----------
        table : Table
            The table of `of`.
        fold : int64 [row]
            Below 0 for test rows, whose values are not read; rows of `n_fold` and above are never
            held out.
        n_fold : int
        seed : int
            Draws the folds by which C is chosen. C and the noise are chosen once, on all rows.
        """
        n_task = table.target.shape[1]
        weight, offset = np.zeros((int(self.column.max()) + 1, n_task)), np.full(n_task, np.nan)
        whole, held_out = np.full((2, len(table), n_task), np.nan)
        for task in range(n_task):
            value = table.exact[:, task].astype(np.float64)
            fitted = np.nonzero((fold >= 0) & np.isfinite(value))[0]
            if fitted.size < 2:
                continue
            among, square = self._to(fitted)
            y = value[fitted]
            support, process = fit_svr(square, y, seed=seed), fit_gaussian_process(square, y)
            both = 0.5 * (support.weight + process.weight)
            offset[task] = 0.5 * (support.offset + process.offset)
            np.add.at(weight[:, task], self.column[self.molecule[fitted]], both)
            whole[:, task] = (offset[task] + among @ both)[self.molecule]
            for i in range(n_fold):
                train, held = np.nonzero(fold[fitted] != i)[0], np.nonzero(fold == i)[0]
                if train.size < 2 or not held.size:
                    continue
                block = np.ascontiguousarray(square[np.ix_(train, train)])
                rows = among[np.ix_(self.molecule[held], train)]
                held_out[held, task] = 0.5 * (
                    fit_svr(block, y[train], seed=seed, grid=(support.setting,)).predict(rows)
                    + fit_gaussian_process(block, y[train], ratio=process.setting).predict(rows)
                )
        return KernelAnswers(TaskFit(weight, offset), whole, held_out)

    def heeding(self, table: Table, fold: np.ndarray, *, n_fold: int) -> KernelAnswers:
        """Fit Gaussian processes that heed what those of the other tasks say.

        Parameters
        ----------
        table, fold, n_fold
            See `fit`. Each fit chooses its noise and scales by the rows that it is fitted to: those
            of a fold have no part in what is said of them.
        """
        learns = np.nonzero(self.column >= 0)[0]
        tasks = []
        for task in range(table.target.shape[1]):
            fitted = np.nonzero((fold >= 0) & np.isfinite(table.exact[:, task]))[0]
            kept = [np.ones(fitted.size, dtype=bool), *(fold[fitted] != i for i in range(n_fold))]
            value = table.exact[fitted, task].astype(np.float64)
            tasks.append(Task(self.column[self.molecule[fitted]], value, kept))

        def weighed(weight: np.ndarray) -> np.ndarray:
            some = weight.astype(np.float32)
            starts = range(0, len(learns), _ANSWER_ROW)
            return np.concatenate([self.kernel[learns[i : i + _ANSWER_ROW]] @ some for i in starts])

        squares = [self.kernel[np.ix_(learns[t.molecule], t.molecule)] for t in tasks]
        whole, *without = fit_tasks(tasks, squares, len(learns), weighed, choose="each")
        held_out = np.full(table.target.shape, np.nan)
        for i, fit in enumerate(without):
            held_out[fold == i] = self._said(fit, self.molecule[fold == i])
        every = self._said(whole, np.arange(len(self.smiles)))[self.molecule]
        return KernelAnswers(whole, every, held_out)

    def _said(self, fit: TaskFit, molecule: np.ndarray) -> np.ndarray:
        """Return float64 [molecule, task]: what models say of some molecules of the table."""
        starts = range(0, len(molecule), _ANSWER_ROW)
        parts = [fit.answer(self.kernel[molecule[i : i + _ANSWER_ROW]]) for i in starts]
        return np.concatenate([np.empty((0, fit.offset.size)), *parts])

    def _square(self, fitted: np.ndarray) -> np.ndarray:
        """Return float64 [fitted row, fitted row]."""
        rows = self.molecule[fitted]
        return self.kernel[np.ix_(rows, self.column[rows])].astype(np.float64)

    def _to(self, fitted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return float64 [molecule, fitted row] and [fitted row, fitted row]."""
        among = self.kernel[:, self.column[self.molecule[fitted]]].astype(np.float64)
        return among, among[self.molecule[fitted]]
