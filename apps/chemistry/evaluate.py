"""How good a run is: metrics of every split beside the baselines, test predictions, figures."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from apps.chemistry.baselines import nearest_training_row, predict_baselines
from apps.chemistry.datasets import SPLITS, Table
from apps.chemistry.figures import MIN_ROWS, draw_coverage, draw_figures
from apps.chemistry.metrics import roc_auc, score
from apps.chemistry.molecules import mol_from_smiles
from apps.chemistry.predictor import Predictor
from apps.chemistry.whole import Answers
from apps.lab.files import write_atomic
from apps.lab.record import Figure

Scores = dict[str, dict[str, float]]
COVERAGE_BINS = (0.0, 0.4, 0.55, 0.7, 1.0001)
PREDICTIONS_FILE = "predictions.csv"


@dataclass(frozen=True)
class Evaluation:
    """The judged part of a record."""

    accuracy: Scores
    members: dict[str, Scores]
    baselines: dict[str, Scores]
    figures: list[Figure]


def evaluate(
    predictor: Predictor,
    table: Table,
    each: np.ndarray,
    answers: Answers | None,
    networks: np.ndarray | None = None,
    *,
    seed: int,
    history: Sequence[Mapping[str, float]],
    folder: Path,
) -> Evaluation:
    """Judge a predictor on every split, and write predictions and figures to `folder`.

    Parameters
    ----------
    predictor : Predictor
        Its reference gives the intervals.
    table : Table
    each : float [member, row, task]
        What its members say of the rows.
    answers : Answers, optional
        What networks and kernel say, where the kernel has a part. Baselines are then fitted to the
        train and valid parts, as the kernel is, and not judged on the latter.
    networks : float [member, row, task], optional
        What the last layers of the networks say, where processes answer in their place.
    seed : int
    history : sequence of mapping
    folder : Path

    Returns
    -------
    Evaluation
        Accuracy of the whole answer; the mean of the networks, or of the processes on their
        counts, is the member "graph", and that of their last layers then "network".

    Notes
    -----
    `interval_coverage` of the test part is the share of values inside their interval, which
    should be `calibration.COVERAGE`; `interval_coverage_A-B` that of the molecules whose
    similarity to the training part is from A to B.
    """
    prediction = each.mean(axis=0) if answers is None else answers.whole
    accuracy = score_splits(prediction, table)
    members = {"graph": accuracy if answers is None else score_splits(answers.graph, table)}
    if answers is not None:
        members |= {name: score_splits(said, table) for name, said in answers.kernel.items()}
    if networks is not None:
        members["network"] = score_splits(networks.mean(axis=0), table)
    if len(each) > 1:
        members |= {f"graph-{i}": score_splits(one, table) for i, one in enumerate(each)}
    parts = ("train",) if answers is None else ("train", "valid")
    references = predict_baselines(table, parts=parts, seed=seed)
    baselines = {name: score_splits(values, table) for name, values in references.items()}
    if answers is not None:
        # fitted to it, but for the first network, whose answers there stand under "graph"
        alone = [v for k, v in members.items() if k.startswith("graph-") or k == "network"]
        for scores in (*baselines.values(), *alone):
            scores.pop("valid", None)
    test = np.nonzero(table.split == "test")[0]
    similarity = nearest_training_row(table)[1][test]
    if predictor.reference is not None and "test" in accuracy:
        error = np.abs(prediction[test] - table.exact[test])
        mols = [mol_from_smiles(table.smiles[i]) for i in test]
        half = predictor.reference.half_width(predictor.reference.nearest(mols).own)
        accuracy["test"] |= coverage(error, half, similarity)
    figures = draw_figures(
        table, prediction, references, test, similarity, history=history, folder=folder
    )
    if "interval_coverage" in accuracy.get("test", {}):
        figures.append(draw_coverage(accuracy["test"], table.name, folder))
    text = predictions_csv(table, prediction, test, similarity)
    write_atomic(folder / PREDICTIONS_FILE, text)
    return Evaluation(accuracy, members, baselines, figures)


def coverage(error: np.ndarray, half: np.ndarray, similarity: np.ndarray) -> dict[str, float]:
    """Return the share of values inside their intervals, of all rows and by similarity.

    Parameters
    ----------
    error, half : float [row, task]
        Size of the error, half width of the interval; pairs that are not finite are left out.
    similarity : float [row]
        To the nearest training molecule.

    Returns
    -------
    dict
        `interval_coverage`, and one entry for each of `COVERAGE_BINS` with `MIN_ROWS` values.
    """
    known = np.isfinite(error) & np.isfinite(half)
    out = {"interval_coverage": float((error <= half)[known].mean())} if known.any() else {}
    for low, high in pairwise(COVERAGE_BINS):
        rows = known & ((similarity >= low) & (similarity < high))[:, None]
        if rows.sum() >= MIN_ROWS:
            name = f"interval_coverage_{low:.2f}-{min(high, 1.0):.2f}"
            out[name] = float((error <= half)[rows].mean())
    return out


def score_splits(prediction: np.ndarray, table: Table) -> Scores:
    """Return the metrics of each split that has rows; `prediction` is [molecule, task]."""
    return {
        split: score_rows(prediction[rows], table.take(rows))
        for split in SPLITS
        if (rows := np.nonzero(table.split == split)[0]).size
    }


def score_rows(prediction: np.ndarray, table: Table) -> dict[str, float]:
    """Return the metrics of one split, in the unit of the data.

    Parameters
    ----------
    prediction : float [molecule, task]
    table : Table
        The same rows; missing values and bounds are left out task by task.

    Returns
    -------
    dict
        Those of `metrics.score` (means over the tasks); `rmse_NAME` (and `rmse_cliff_NAME`) for
        each task where there are several, and `rmse_KIND` for each kind of row in `held_out` where
        the table tells them apart; `auc_published` and `auc_repaired` where it has classes.
    """
    target = table.exact
    out = score(target, prediction, cliff=table.extra.get("cliff_mol"))
    if len(table.target_names) > 1:
        for task, name in enumerate(table.target_names):
            one = score(target[:, task], prediction[:, task], cliff=table.extra.get("cliff_mol"))
            out |= {f"{k}_{name}": one[k] for k in ("rmse", "rmse_cliff") if k in one}
    for name, active in table.extra.items():
        if name.startswith("active_"):
            out[name.replace("active", "auc")] = roc_auc(active.astype(float), prediction[:, 0])
    kinds = table.extra.get("held_out", np.array([], dtype=str))
    for kind in sorted(set(kinds.tolist()) - {""}):
        rows = kinds == kind
        out[f"rmse_{kind}"] = score(target[rows], prediction[rows])["rmse"]
    return out


def predictions_csv(
    table: Table, prediction: np.ndarray, rows: np.ndarray, similarity: np.ndarray
) -> str:
    """Return the text of the predictions of `rows`: row number, SMILES, values, similarity."""
    names = table.target_names
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    values = [f"{kind}_{name}" for kind in ("measured", "predicted") for name in names]
    writer.writerow(["row", "smiles", *values, "nearest_train_tanimoto"])
    for i, nearest in zip(rows, similarity, strict=True):
        measured = ["" if math.isnan(v) else f"{v:.4f}" for v in table.target[i].tolist()]
        predicted = [f"{v:.4f}" for v in prediction[i].tolist()]
        writer.writerow([table.row[i], table.smiles[i], *measured, *predicted, f"{nearest:.4f}"])
    return text.getvalue()
