"""A Gaussian process on what a network counts: a learned fingerprint in place of a given one.

A network's last layers see its counts (`network.Readout`) through one dense map for all molecules.
A process on the same counts answers from the training molecules that are nearest in them, and
needs no further training: the similarity of molecules is the mean, over the states of the network,
of the min-max similarity of their counts. No fingerprint, no descriptor and no other model has a
part in it.

On a held-out fold of eight MoleculeACE sets it took .038 off the RMSE of one network's last layers;
the same process on the counts of a network that was not trained was .047 worse than it.

Processes of several tasks heed each other (`apps.chemistry.baselines.fellows`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from apps.chemistry.baselines.fellows import Task, TaskFit, fit_tasks
from apps.chemistry.minmax import min_max
from core.errors import DataError

_ROW = 2000  # molecules whose similarities are held at a time


@dataclass(frozen=True)
class CountProcess:
    """Gaussian processes of all tasks on the counts of one network.

    Shape letters: M training molecules, C counts, T tasks.
    """

    count: np.ndarray
    """float32 [M, C]"""
    n_state: int
    """Groups of equal size in C, one per state of the network."""
    fit: TaskFit

    def predict(self, count: np.ndarray) -> np.ndarray:
        """Return float64 [molecule, T] from float32 [molecule, C]."""
        likes = _likes(count, self.count, self.n_state)
        blank = np.empty((0, self.fit.offset.size))
        return np.concatenate([blank, *(self.fit.answer(like) for like in likes)])

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return what a model file keeps."""
        own = {"count": torch.from_numpy(self.count), "n_state": torch.tensor(self.n_state)}
        return own | self.fit.tensors()

    @classmethod
    def from_tensors(cls, kept: dict[str, torch.Tensor]) -> "CountProcess":
        """Read what `tensors` gave.

        Raises
        ------
        DataError
            If the shapes do not belong together.
        """
        count, n_state, fit = (
            kept["count"].numpy(),
            int(kept["n_state"]),
            TaskFit.from_tensors(kept),
        )
        if (
            count.ndim != 2
            or len(count) != len(fit.weight)
            or n_state < 1
            or count.shape[1] % n_state
        ):
            raise DataError(
                f"a process of counts {count.shape} in {n_state} states, weights "
                f"{fit.weight.shape}: the file was changed or is damaged; train the model again"
            )
        return cls(count, n_state, fit)


class ProcessFit(NamedTuple):
    """A process as it is deployed, and what one says that was fitted without the rows held out."""

    process: CountProcess
    held_out: np.ndarray
    """float64 [row, task]: NaN for rows that are not held out."""


def fit_process(
    count: np.ndarray,
    target: np.ndarray,
    smiles: Sequence[str],
    *,
    n_state: int,
    learns: np.ndarray,
    held: np.ndarray,
) -> ProcessFit:
    """Fit a process to the counts of a network.

    Parameters
    ----------
    count : float32 [row, C]
    target : float32 [row, task]
        NaN for nothing; values of rows that do not learn are not read.
    smiles : sequence of str
        [row]: rows of one SMILES are one molecule.
    n_state : int
        See `CountProcess`.
    learns : bool [row]
        Rows that the deployed process is fitted to.
    held : bool [row]
        Those of them that the network has not seen. Noise, and how much a task heeds another, are
        chosen by the others alone; a second fit to them answers for the rows held out.
    """
    rows = np.nonzero(learns & np.isfinite(target).any(axis=1))[0]
    names = np.array(smiles, dtype=object)[rows]
    _, first, molecule = np.unique(names, return_index=True, return_inverse=True)
    known = np.ascontiguousarray(count[rows[first]], dtype=np.float32)
    place = np.full(len(smiles), -1)
    place[rows] = molecule
    tasks = [
        Task(
            place[fitted],
            target[fitted, i].astype(np.float64),
            (~held[fitted], np.ones(fitted.size, dtype=bool)),
        )
        for i in range(target.shape[1])
        for fitted in [np.nonzero(learns & np.isfinite(target[:, i]))[0]]
    ]

    def weighed(weight: np.ndarray) -> np.ndarray:
        likes = _likes(known, known, n_state)
        return np.concatenate([(like @ weight).astype(np.float32) for like in likes])

    squares = [min_max(own, own, n_state) for own in (known[task.molecule] for task in tasks)]
    judge, process = (
        CountProcess(known, n_state, fit) for fit in fit_tasks(tasks, squares, len(known), weighed)
    )
    out = np.full(target.shape, np.nan)
    out[held] = judge.predict(count[held])
    return ProcessFit(process, out)


def _likes(a: np.ndarray, b: np.ndarray, n_state: int) -> Iterator[np.ndarray]:
    """Yield the similarity of a to b, float32 [some rows of a, row of b], some rows at a time."""
    for start in range(0, len(a), _ROW):
        yield min_max(a[start : start + _ROW], b, n_state)
