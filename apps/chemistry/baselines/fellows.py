"""Gaussian processes of several tasks on one similarity, each heeding what the others say.

A first process per task answers for all molecules. A second one also looks at what the first ones
say of the *other* tasks: the more these answers differ, the less alike are two molecules. One that
was measured for a related task brings that value along, whether it trains this task or not.

On a held-out fold of 22 MoleculeACE sets the RMSE of processes on what one network counts fell from
.663 to .646: from .631 to .592 on molecules that another set has among its training rows, from .691
to .688 on the others.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch

from apps.chemistry.baselines.kernel import fit_gaussian_process
from core.errors import DataError

# Chosen on a held-out fold of 22 MoleculeACE sets.
HEED = 0.2  # what a median difference in the answers of the other tasks takes off, as an exponent
RELATED = 4  # power of its correlation with the values by which another task's answers count
_MEDIAN_ROW = 2000  # rows, evenly spread, whose distances set the scale
_ANSWER_ROW = 2000  # molecules that are answered at a time: a block of them becomes float64


class Task(NamedTuple):
    """The values of a task, and the fits that are wanted."""

    molecule: np.ndarray
    """int64 [value]"""
    value: np.ndarray
    """float64 [value]"""
    kept: Sequence[np.ndarray]
    """bool [value], one per fit."""


@dataclass(frozen=True)
class Fellows:
    """What first processes say of each other's training molecules, and the second ones' weights.

    Shape letters: M training molecules, T tasks.
    """

    said: np.ndarray
    """float32 [M, T]"""
    heed: np.ndarray
    """float32 [T, T]: row t holds what a squared difference in each task's answers counts in the
    second process of t; its own counts nothing."""
    weight: np.ndarray
    """float64 [M, T]"""

    def weighed(self, like: np.ndarray, said: np.ndarray) -> np.ndarray:
        """Return float64 [molecule, T]: the sums of the second processes.

        Parameters
        ----------
        like : float32 [molecule, M]
            Similarities.
        said : float [molecule, T]
            What the first processes say.
        """
        out = np.zeros(said.shape)
        for task, weight in enumerate(self.weight.T):
            known = np.nonzero(weight)[0]
            apart = square_distance(said, self.said[known], self.heed[task])
            out[:, task] = (like[:, known] * np.exp(-apart)) @ weight[known]
        return out


@dataclass(frozen=True)
class TaskFit:
    """Models of all tasks on one similarity. Shape letters: M training molecules, T tasks."""

    weight: np.ndarray
    """float64 [M, T]: where tasks heed each other, of the first processes."""
    offset: np.ndarray
    """float64 [T]; NaN for tasks with fewer than two values."""
    fellows: Fellows | None = None
    """Of several tasks that heed each other."""

    def answer(self, like: np.ndarray) -> np.ndarray:
        """Return float64 [molecule, T] from similarities, float32 [molecule, M]."""
        blank = np.empty((0, self.offset.size))
        starts = range(0, len(like), _ANSWER_ROW)
        return np.concatenate([blank, *(self._answer(like[i : i + _ANSWER_ROW]) for i in starts)])

    def _answer(self, like: np.ndarray) -> np.ndarray:
        first: np.ndarray = like @ self.weight
        return self.offset + (first if self.fellows is None else self.fellows.weighed(like, first))

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return what a model file keeps."""
        kept = {"weight": self.weight, "offset": self.offset}
        if self.fellows is not None:
            kept |= {f"fellows_{k}": v for k, v in vars(self.fellows).items()}
        return {name: torch.from_numpy(values) for name, values in kept.items()}

    @classmethod
    def from_tensors(cls, kept: Mapping[str, torch.Tensor]) -> "TaskFit":
        """Read what `tensors` gave.

        Raises
        ------
        DataError
            If the shapes do not belong together.
        """
        weight, offset = (kept[name].numpy() for name in ("weight", "offset"))
        fellows = None
        if "fellows_said" in kept:
            fellows = Fellows(*(kept[f"fellows_{k}"].numpy() for k in ("said", "heed", "weight")))
        is_fine = weight.ndim == 2 and offset.shape == weight.shape[1:]
        if fellows is not None:
            is_fine &= fellows.said.shape == fellows.weight.shape == weight.shape
            is_fine &= fellows.heed.shape == (offset.size, offset.size)
        if not is_fine:
            shapes = {name: tuple(tensor.shape) for name, tensor in kept.items()}
            raise DataError(
                f"models of tasks with arrays {shapes}, which do not belong together: the file was "
                "changed or is damaged; train the model again"
            )
        return cls(weight, offset, fellows)


def fit_tasks(
    tasks: Sequence[Task],
    likes: Sequence[np.ndarray],
    n: int,
    weighed: Callable[[np.ndarray], np.ndarray],
    *,
    choose: Literal["first", "each"] = "first",
) -> list[TaskFit]:
    """Fit the processes of all tasks.

    Parameters
    ----------
    tasks : sequence of Task
        All with the same number of fits.
    likes : sequence of ndarray, float32 [value, value]
        Similarities of each task's own rows.
    n : int
        Number of training molecules.
    weighed : callable
        ``similarity @ weight``, float32 [n, column] from float64 [n, column], of all of them.
    choose : "first" or "each"
        Whose values choose noise and scales: those of the first fit, for all, or each its own.

    Returns
    -------
    list of TaskFit
        One per fit.
    """
    n_fit, is_first = len(tasks[0].kept), choose == "first"
    fits = _fit(tasks, ([like] * n_fit for like in likes), n, is_first)
    if np.isfinite(fits[0].offset).sum() < 2:
        return fits
    whole = weighed(np.concatenate([fit.weight for fit in fits], axis=1))
    said = [np.ascontiguousarray(s) for s in np.split(whole, n_fit, axis=1)]
    heed = [_heed(s, tasks, k) for k, s in enumerate(said[:1] if is_first else said)]
    heed = heed * n_fit if is_first else heed

    def kernels() -> Iterator[list[np.ndarray]]:
        for i, (task, like) in enumerate(zip(tasks, likes, strict=True)):
            owns = ((s[task.molecule], h[i]) for s, h in zip(said, heed, strict=True))
            yield [like * np.exp(-square_distance(own, own, scale)) for own, scale in owns]

    seconds = _fit(tasks, kernels(), n, is_first)
    return [
        TaskFit(fit.weight, fit.offset, Fellows(s, h, second.weight))
        for fit, s, h, second in zip(fits, said, heed, seconds, strict=True)
    ]


def _fit(
    tasks: Sequence[Task], kernels: Iterable[Sequence[np.ndarray]], n: int, is_first: bool
) -> list[TaskFit]:
    """Fit each task to the rows of each fit, given a kernel for each, float32 [value, value].

    With `is_first` the first fit chooses the noise for all.
    """
    fits = [TaskFit(np.zeros((n, len(tasks))), np.full(len(tasks), np.nan)) for _ in tasks[0].kept]
    for i, (task, own) in enumerate(zip(tasks, kernels, strict=True)):
        ratio = None
        for fit, kernel, kept in zip(fits, own, task.kept, strict=True):
            if kept.sum() < 2:
                continue
            block = kernel[np.ix_(kept, kept)].astype(np.float64)
            found = fit_gaussian_process(block, task.value[kept], ratio=ratio)
            np.add.at(fit.weight[:, i], task.molecule[kept], found.weight)
            fit.offset[i], ratio = found.offset, found.setting if is_first else None
    return fits


def _heed(said: np.ndarray, tasks: Sequence[Task], k: int) -> np.ndarray:
    """Return float32 [task, task]: the scales that the values of fit `k` choose, see `Fellows`."""
    rows = [
        _scales(said, task.molecule[task.kept[k]], task.value[task.kept[k]], own)
        for own, task in enumerate(tasks)
    ]
    return np.array(rows, dtype=np.float32)


def _scales(said: np.ndarray, molecule: np.ndarray, value: np.ndarray, own: int) -> np.ndarray:
    """Return float [task]: what a squared difference in the answers of each task counts for `own`.

    Answers are scaled by their variance over all molecules; each task counts by its correlation
    with the values, and a median difference of all together takes `HEED` off the exponent.
    """
    if len(value) < 2:
        return np.zeros(said.shape[1])
    heard = said[molecule]
    deviation, apart = value - value.mean(), heard - heard.mean(axis=0)
    spread = apart.std(axis=0) * deviation.std()
    related = np.zeros(said.shape[1])
    np.divide(deviation @ apart / len(value), spread, out=related, where=spread > 0)
    related = np.abs(related) ** RELATED
    related[own] = 0.0
    variance = said.var(axis=0)
    heed = np.divide(related, variance, out=np.zeros_like(related), where=variance > 0)
    some = heard[:: 1 + len(heard) // _MEDIAN_ROW]
    square = square_distance(some, some, heed)
    median = float(np.median(square[~np.eye(len(some), dtype=bool)]))
    return heed * (HEED / median if median > 0 else 0.0)


def square_distance(a: np.ndarray, b: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return float32 [row of a, row of b]: squared differences weighed by `scale` [column]."""
    a, b = (np.asarray(x * np.sqrt(scale), dtype=np.float32) for x in (a, b))
    apart = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None, :] - 2.0 * a @ b.T
    return np.maximum(apart, 0.0)
