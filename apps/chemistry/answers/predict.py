"""A file of SMILES in, the same rows in the same order out, with predictions and a status."""

import csv
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from apps.chemistry.molecules import MolGraph, featurise
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
    """Predict every row of a CSV file.

    Parameters
    ----------
    predictor : Predictor
    source : Path
        CSV with a header, UTF-8.
    out : Path
        CSV with the columns of `source` and, for each task, `predicted_NAME` (and
        `predicted_NAME_nM` where the unit is a pK); with several members `sd_NAME`, their spread;
        last `status`: "ok" or "invalid: why". Rows and their order are those of `source`. Written
        whole or not at all.
    smiles : str
        Column of the SMILES.
    strict : bool
        Stop at the first row that cannot be read.

    Returns
    -------
    Counter
        Number of rows "ok" and "invalid".

    Raises
    ------
    DataError
        If the file or the column is missing, or with `strict` at a row that cannot be read.

    Notes
    -----
    Memory does not grow with the file: `CHUNK` rows are held at a time.
    """
    counts: Counter[str] = Counter()
    try:
        with source.open(encoding="utf-8-sig", errors="replace", newline="") as text:
            reader = csv.reader(text)
            header = next(reader, None)
            place = _column(source, header, smiles)
            n_cell = len(header or [])
            with atomic_path(out) as part, part.open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow([*(header or []), *_new_columns(predictor), "status"])
                for chunk in track(_chunks(reader), "predict"):
                    for row in _predict_chunk(
                        predictor, chunk, place, n_cell, counts, source, strict
                    ):
                        writer.writerow(row)
    except OSError as error:
        raise DataError(f"predict: {error.filename}: {error.strerror}") from error
    return counts


def _column(source: Path, header: list[str] | None, smiles: str) -> int:
    if not header:
        raise DataError(f"{source.name}: the file is empty; expected a header and rows")
    if header.count(smiles) != 1:
        shown = ", ".join(repr(name) for name in header[:12])
        number = "no" if smiles not in header else f"{header.count(smiles)} times the"
        raise DataError(
            f"{source.name}: {number} column {smiles!r}; it has {shown}; name it with --smiles"
        )
    return header.index(smiles)


def _chunks(reader: Iterator[list[str]]) -> Iterator[list[tuple[int, list[str]]]]:
    chunk: list[tuple[int, list[str]]] = []
    for number, cells in enumerate(reader, start=2):
        chunk.append((number, cells))
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _predict_chunk(
    predictor: Predictor,
    chunk: list[tuple[int, list[str]]],
    place: int,
    n_cell: int,
    counts: Counter[str],
    source: Path,
    strict: bool,
) -> Iterator[list[str]]:
    graphs: list[MolGraph] = []
    status: list[str] = []
    for number, cells in chunk:
        try:
            if len(cells) != n_cell:
                raise DataError(f"the row has {len(cells)} cells, the header {n_cell}")
            graphs.append(featurise(cells[place].strip()))
            status.append("ok")
        except DataError as error:
            if strict:
                raise DataError(f"row {number} of {source.name}: {error}") from error
            status.append(f"invalid: {error}")
    values = _values(predictor, predictor.predict_members(graphs)) if graphs else np.empty((0, 0))
    answers = iter(values.tolist())
    n_column = len(_new_columns(predictor))
    for (_, cells), state in zip(chunk, status, strict=True):
        is_ok = state == "ok"
        counts["ok" if is_ok else "invalid"] += 1
        cells = [*cells, *[""] * n_cell][:n_cell]
        yield [*cells, *([f"{v:.4g}" for v in next(answers)] if is_ok else [""] * n_column), state]


def _new_columns(predictor: Predictor) -> list[str]:
    names = [f"predicted_{name}" for name in predictor.target_names]
    if _LOG_UNIT.search(predictor.unit):
        names += [f"predicted_{name}_nM" for name in predictor.target_names]
    if len(predictor.members) > 1:
        names += [f"sd_{name}" for name in predictor.target_names]
    return names


def _values(predictor: Predictor, each: np.ndarray) -> np.ndarray:
    """Return the cells of `_new_columns` from predictions [member, molecule, task]."""
    mean = each.mean(axis=0)
    parts = [mean]
    if _LOG_UNIT.search(predictor.unit):
        parts.append(10.0 ** (9.0 - mean))
    if len(each) > 1:
        parts.append(each.std(axis=0, ddof=1))
    return np.concatenate(parts, axis=1)
