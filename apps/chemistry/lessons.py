"""Molecules that a teacher answers for a network: analogues of those that train it."""

from collections.abc import Sequence

import numpy as np

from apps.chemistry.baselines import JointKernel
from apps.chemistry.datasets import Table
from apps.chemistry.fitting import Lesson
from apps.chemistry.molecules import featurise_many, mol_from_smiles
from apps.chemistry.molecules.analogues import Analogues, make_analogues


def lesson_molecules(table: Table, share: float, *, seed: int) -> Analogues:
    """Return `share` analogues per row outside the test part, none of them in the table.

    Parent and donor are rows of the train or valid part that were measured for one task.
    """
    learns = table.split != "test"
    known = np.isfinite(table.target) & learns[:, None]
    series = [np.nonzero(column)[0] for column in known.T if column.any()]
    n = round(share * learns.sum())
    if n == 0:
        return Analogues([], np.empty(0, np.int64), np.empty(0, np.int64))
    return make_analogues(table.smiles, series, n, known=set(table.smiles), seed=seed)


def lesson_of(table: Table, made: Analogues, answer: np.ndarray) -> Lesson:
    """Return the analogues made of rows that train `table`, with what its teacher says.

    Parameters
    ----------
    table : Table
        Its split says which rows train now.
    made : Analogues
        Of all rows outside the test part.
    answer : float32 [analogue, task]
        By a teacher that was fitted to the train part alone.
    """
    trains = table.split == "train"
    kept = np.nonzero(trains[made.parent] & trains[made.donor])[0]
    mols = [mol_from_smiles(made.smiles[i]) for i in kept]
    is_own = np.isfinite(table.target[made.parent[kept]])
    return Lesson(featurise_many(mols), answer[kept], is_own)


def teach(
    kernel: JointKernel, table: Table, views: Sequence[Table], share: float, *, seed: int
) -> list[tuple[np.ndarray | None, Lesson | None]]:
    """Return hints and lesson of each view of a table (its rows, parted in another way).

    The teacher of a view is fitted to the train part of that view.
    """
    teachers = [kernel.teacher(view) for view in views]
    made = lesson_molecules(table, share, seed=seed)
    answers = kernel.answers(made.smiles, teachers)
    return [
        (kernel.hints(view, teacher), lesson_of(view, made, answer) if made.smiles else None)
        for view, teacher, answer in zip(views, teachers, answers, strict=True)
    ]
