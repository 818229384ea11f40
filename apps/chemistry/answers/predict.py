"""A file of molecules in, the same rows in the same order out, with predictions and a status."""

import csv
import itertools
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rdkit import Chem

from apps.chemistry.datasets.read import place_of
from apps.chemistry.datasets.rows import Row, open_rows
from apps.chemistry.molecules import featurise_many, standardise
from apps.chemistry.molecules.stereo import stereo_warnings
from apps.chemistry.predictor import Predictor
from apps.lab.files import atomic_path
from apps.lab.progress import track
from core.errors import DataError

CHUNK = 1024  # rows held in memory at a time
# Units that are -log10 of mol/l, so that 9 - pK is log10 of nmol/l (an acid's pKa is none).
_LOG_UNIT = re.compile(r"\bp(ic50|ec50|k[id]?)\b", re.IGNORECASE)


def predict_file(
    predictor: Predictor, source: Path, out: Path, *, smiles: str = "smiles", strict: bool = False
) -> Counter[str]:
    """Predict every row of a file.

    Parameters
    ----------
    predictor : Predictor
    source : Path
        A file of molecules, formats as `datasets.rows.open_rows` has them.
    out : Path
        CSV with the columns of `source`, then for each task ``predicted_NAME`` (and
        ``predicted_NAME_nM`` where the unit is a pK), with several members ``sd_NAME``, their
        spread, and what the model remembers of its training: ``lower_NAME``, ``upper_NAME`` (an
        80 % interval), ``nearest_train``, its ``nearest_train_tanimoto`` and measured
        ``nearest_train_NAME``, ``domain`` (in, edge, out). Last ``warnings`` about open stereo
        and ``status``: "ok", "fixed: what was changed", or "invalid: why". Rows and their order
        are those of `source`. Written whole or not at all.
    smiles : str
        Column of the SMILES.
    strict : bool
        Stop at the first row that cannot be read.

    Returns
    -------
    Counter
        Number of rows "ok", "fixed" and "invalid".

    Raises
    ------
    DataError
        If the file or the column is missing, with `strict` at a row that cannot be read, or if
        the disk fills.

    Notes
    -----
    Memory does not grow with the file: `CHUNK` rows are held at a time.
    """
    try:
        return _predict_file(predictor, source, out, smiles, strict)
    except OSError as error:  # the disk is full, or `out` has no folder; reading has its own words
        raise DataError(f"predict: cannot write {out} ({error}); nothing was written") from error


def _predict_file(
    predictor: Predictor, source: Path, out: Path, smiles: str, strict: bool
) -> Counter[str]:
    counts: Counter[str] = Counter()
    with open_rows(source) as opened, atomic_path(out) as part:
        place = place_of(smiles, opened.header, opened.name)
        n_cell = len(opened.header)
        columns = _new_columns(predictor)
        with part.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow([*opened.header, *columns, "warnings", "status"])
            for chunk in track(_chunks(opened.rows), "predict"):
                read = [_read(row, place, predictor.level) for row in chunk]
                for row, state in zip(chunk, read, strict=True):
                    if strict and state.mol is None:
                        raise DataError(f"row {row.number} of {opened.name}: {state.text}")
                    counts[state.word] += 1
                answers = _answers(predictor, [state.mol for state in read if state.mol])
                for row, state in zip(chunk, read, strict=True):
                    cells = [*row.cells, *[""] * n_cell][:n_cell]
                    if state.mol is None:
                        new = [*[""] * len(columns), ""]
                    else:
                        new = [*next(answers), "; ".join(stereo_warnings(state.mol))]
                    writer.writerow([*cells, *new, str(state)])
    return counts


class _State(NamedTuple):
    """What became of a row: its molecule, or why there is none."""

    mol: Chem.Mol | None
    word: str
    text: str = ""

    def __str__(self) -> str:
        return f"{self.word}: {self.text}" if self.text else self.word


def _read(row: Row, place: int, level: str) -> _State:
    if row.problem:
        return _State(None, "invalid", row.problem)
    try:
        mol, changes = standardise(row.cells[place].strip(), level)
    except DataError as error:
        return _State(None, "invalid", str(error))
    return _State(mol, "fixed", "; ".join(changes)) if changes else _State(mol, "ok")


def _chunks(rows: Iterator[Row]) -> Iterator[list[Row]]:
    while chunk := list(itertools.islice(rows, CHUNK)):
        yield chunk


def _new_columns(predictor: Predictor) -> list[str]:
    """Return the names of the cells of `_answers`."""
    names = predictor.target_names
    columns = [f"predicted_{name}" for name in names]
    if _LOG_UNIT.search(predictor.unit):
        columns += [f"predicted_{name}_nM" for name in names]
    if len(predictor.members) > 1:
        columns += [f"sd_{name}" for name in names]
    if predictor.reference is not None:
        columns += [f"lower_{name}" for name in names]
        columns += [f"upper_{name}" for name in names]
        columns += ["nearest_train", "nearest_train_tanimoto"]
        columns += [f"nearest_train_{name}" for name in names]
        columns += ["domain"]
    return columns


def _answers(predictor: Predictor, mols: list[Chem.Mol]) -> Iterator[list[str]]:
    if not mols:
        return
    graphs = featurise_many(mols)
    each = predictor.predict_members(graphs)
    mean = each.mean(axis=0)
    parts = [mean]
    if _LOG_UNIT.search(predictor.unit):
        parts.append(10.0 ** (9.0 - mean))
    if len(each) > 1:
        parts.append(each.std(axis=0, ddof=1))
    known = predictor.reference
    if known is None:
        yield from ([_text(v) for v in row] for row in np.concatenate(parts, axis=1).tolist())
        return
    nearest, similarity = known.nearest(mols)
    half = known.half_width(similarity)
    values = np.concatenate([*parts, mean - half, mean + half], axis=1).tolist()
    for i, row in enumerate(values):
        yield [
            *(_text(v) for v in row),
            known.smiles[nearest[i]],
            f"{similarity[i]:.3f}",
            *(_text(v) for v in known.target[nearest[i]].tolist()),
            known.domain(graphs[i], similarity[i]),
        ]


def _text(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.4g}"
