"""A file of molecules in, the same rows in the same order out, with predictions and a status."""

import csv
import itertools
import multiprocessing
import os
import re
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from rdkit import Chem

from apps.chemistry.datasets.read import place_of
from apps.chemistry.datasets.rows import Row, open_rows
from apps.chemistry.molecules import featurise_many, standardise
from apps.chemistry.molecules.stereo import stereo_warnings
from apps.chemistry.molecules.tables import MolTables
from apps.chemistry.predictor import Predictor
from apps.lab.files import atomic_path
from apps.lab.progress import track
from core.errors import DataError

CHUNK = 1024  # rows held in memory at a time
# Units that are -log10 of mol/l, so that 9 - pK is log10 of nmol/l (an acid's pKa is none).
_LOG_UNIT = re.compile(r"\bp(ic50|ec50|k[id]?)\b", re.IGNORECASE)


# A process needs seconds to start: files of fewer chunks are done where they are.
POOL_CHUNK = 8


class Answered(NamedTuple):
    """What is written of a chunk: cells and status word of each row."""

    cells: list[list[str]]
    word: list[str]
    invalid: tuple[int, str] | None
    """Number of the first row that cannot be read, and why; None where all can."""


def predict_file(
    predictor: Predictor,
    source: Path,
    out: Path,
    *,
    smiles: str = "smiles",
    strict: bool = False,
    n_job: int | None = 1,
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
    n_job : int, optional
        Processes, one thread each; None: one per processor, and for a file of few chunks this
        one alone. More than one need a main module that may be imported again. What is written
        does not depend on it.

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
    Memory does not grow with the file: `CHUNK` rows are held at a time, and three chunks for
    each further process.
    """
    try:
        return _predict_file(predictor, source, out, smiles, strict, n_job)
    except OSError as error:  # the disk is full, or `out` has no folder; reading has its own words
        raise DataError(f"predict: cannot write {out} ({error}); nothing was written") from error


def _predict_file(
    predictor: Predictor, source: Path, out: Path, smiles: str, strict: bool, n_job: int | None
) -> Counter[str]:
    counts: Counter[str] = Counter()
    with open_rows(source) as opened, atomic_path(out) as part:
        place = place_of(smiles, opened.header, opened.name)
        shape = (place, len(opened.header))
        columns = _new_columns(predictor)
        with (
            part.open("w", encoding="utf-8", newline="") as file,
            _answered(predictor, _chunks(opened.rows), shape, n_job) as answered,
        ):
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow([*opened.header, *columns, "warnings", "status"])
            for done in track(answered, "predict"):
                if strict and done.invalid:
                    number, reason = done.invalid
                    raise DataError(f"row {number} of {opened.name}: {reason}")
                counts.update(done.word)
                writer.writerows(done.cells)
    return counts


@contextmanager
def _answered(
    predictor: Predictor,
    chunks: Iterator[list[Row]],
    shape: tuple[int, int],
    n_job: int | None,
) -> Iterator[Iterator[Answered]]:
    """Give the answers to chunks, in order, worked out here or by several processes."""
    first = list(itertools.islice(chunks, POOL_CHUNK))
    chunks = itertools.chain(first, chunks)
    if n_job is None:
        n_job = _n_processor() if len(first) == POOL_CHUNK else 1
    if n_job == 1 or predictor.members[0].target_mean.device.type != "cpu":
        yield (answer_rows(predictor, rows, shape) for rows in chunks)
        return
    with tempfile.TemporaryDirectory() as folder:
        model = predictor.save(Path(folder) / "model.safetensors")
        pool = ProcessPoolExecutor(
            n_job, multiprocessing.get_context("spawn"), _load_in_worker, (model,)
        )
        try:
            yield _in_order(lambda rows: pool.submit(_answer_in_worker, rows, shape), chunks, n_job)
        except BrokenExecutor as error:
            raise DataError(
                "predict: a process ended before its work was done, for want of memory perhaps; "
                "try --jobs 1"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _in_order(
    submit: Callable[[list[Row]], "Future[Answered]"], chunks: Iterator[list[Row]], n_job: int
) -> Iterator[Answered]:
    waiting: deque[Future[Answered]] = deque()
    for rows in chunks:
        waiting.append(submit(rows))
        if len(waiting) >= 3 * n_job:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


_worker: list[Predictor] = []  # of this process, where it is one of a pool


def _load_in_worker(model: Path) -> None:
    torch.set_num_threads(1)
    _worker[:] = [Predictor.load(model)]


def _answer_in_worker(rows: list[Row], shape: tuple[int, int]) -> Answered:
    return answer_rows(_worker[0], rows, shape)


def _n_processor() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def answer_rows(predictor: Predictor, rows: list[Row], shape: tuple[int, int]) -> Answered:
    """Answer the rows of a chunk.

    Parameters
    ----------
    predictor : Predictor
    rows : list of Row
    shape : (int, int)
        Place of the SMILES among the cells, and number of cells of a row.
    """
    place, n_cell = shape
    read = [_read(row, place, predictor.level) for row in rows]
    answers = _answers(predictor, [state.mol for state in read if state.mol])
    blank = [""] * (len(_new_columns(predictor)) + 1)
    cells: list[list[str]] = []
    invalid: tuple[int, str] | None = None
    for row, state in zip(rows, read, strict=True):
        if state.mol is None:
            new = blank
            invalid = invalid or (row.number, state.text)
        else:
            new = [*next(answers), "; ".join(stereo_warnings(state.mol))]
        cells.append([*[*row.cells, *[""] * n_cell][:n_cell], *new, str(state)])
    return Answered(cells, [state.word for state in read], invalid)


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
    tables = MolTables.of(mols)
    graphs = featurise_many(tables)
    each = predictor.predict_members(graphs)
    mean = predictor.answer(tables, each.mean(axis=0))
    parts = [mean]
    if _LOG_UNIT.search(predictor.unit):
        parts.append(10.0 ** (9.0 - mean))
    if len(each) > 1:
        parts.append(each.std(axis=0, ddof=1))
    known = predictor.reference
    if known is None:
        yield from ([_text(v) for v in row] for row in np.concatenate(parts, axis=1).tolist())
        return
    nearest, similarity, own = known.nearest(tables)
    half = known.half_width(own)
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
