"""The figures of a chemistry run: parity, error by similarity, learning curve."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from apps.chemistry.calibration import COVERAGE
from apps.chemistry.datasets import Table
from apps.lab.figures import new_figure, save_svg
from apps.lab.record import Figure

SIMILARITY_EDGES = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0001)
SVM = "svm_ecfp4"
MIN_ROWS = 5  # a bin with fewer molecules is not drawn


def draw_figures(
    table: Table,
    prediction: np.ndarray,
    references: Mapping[str, np.ndarray],
    test: np.ndarray,
    similarity: np.ndarray,
    *,
    history: Sequence[Mapping[str, float]],
    folder: Path,
) -> list[Figure]:
    """Write the SVG files and return their entries in the record.

    Parameters
    ----------
    prediction : float [molecule, task]
    references : dict of str to float [molecule, task]
        Predictions of the baselines; the SVM is drawn beside the network where it is there.
    test : int64 [row]
        Rows of the test part.
    similarity : float [row]
        Tanimoto similarity of each test row to its nearest training molecule.
    """
    figures = [_learning_curve(history, table.unit, folder)]
    if test.size:
        figures.insert(0, _parity(table, prediction, test, folder))
        compared = {"graph network": prediction}
        if SVM in references:
            compared["SVM on ECFP4"] = references[SVM]
        figures.insert(1, _error_by_similarity(table, compared, test, similarity, folder))
    return figures


def _parity(table: Table, prediction: np.ndarray, test: np.ndarray, folder: Path) -> Figure:
    figure, (axes,) = new_figure(width_inch=4.2, height_inch=4.0)
    target = table.target[test]
    low, high = np.nanmin(target) - 0.5, np.nanmax(target) + 0.5
    axes.plot([low, high], [low, high], color="#7d8793", linewidth=1.0)
    for task, name in enumerate(table.target_names):
        axes.scatter(
            target[:, task], prediction[test, task], s=9, alpha=0.6, linewidths=0, label=name,
            rasterized=len(test) > 3000,
        )  # fmt: skip
    axes.set(
        title=f"{table.name}: predicted and measured, test part",
        xlabel=f"measured, {table.unit}",
        ylabel=f"predicted, {table.unit}",
        xlim=(low, high),
        ylim=(low, high),
        aspect="equal",
    )
    if len(table.target_names) > 1:
        axes.legend()
    save_svg(figure, folder / "parity.svg")
    return Figure(
        file="parity.svg",
        title="Predicted and measured",
        caption=f"Each dot is one of the {len(test)} test molecules; the line is a perfect answer.",
        wrong_if="the cloud lies flat (the mean is predicted) or off the line by a constant "
        "(another unit, or a shifted scale).",
    )


def _error_by_similarity(
    table: Table,
    compared: Mapping[str, np.ndarray],
    test: np.ndarray,
    similarity: np.ndarray,
    folder: Path,
) -> Figure:
    figure, (axes,) = new_figure()
    place = np.digitize(similarity, SIMILARITY_EDGES) - 1
    bins = [b for b in range(len(SIMILARITY_EDGES) - 1) if (place == b).sum() >= MIN_ROWS]
    labels = [
        f"{SIMILARITY_EDGES[b]:.1f}-{min(SIMILARITY_EDGES[b + 1], 1.0):.1f}\n"
        f"n = {(place == b).sum()}"
        for b in bins
    ]
    for name, values in compared.items():
        square = (values[test] - table.target[test]) ** 2
        heights = [float(np.sqrt(np.nanmean(square[place == b]))) for b in bins]
        axes.plot(range(len(bins)), heights, marker="o", label=name)
    axes.set_xticks(range(len(bins)), labels)
    axes.set(
        title=f"{table.name}: error by similarity to the training part",
        xlabel="Tanimoto similarity (ECFP4) to the nearest training molecule",
        ylabel=f"RMSE, {table.unit}",
    )
    axes.set_ylim(bottom=0)
    axes.legend()
    save_svg(figure, folder / "error_by_similarity.svg")
    return Figure(
        file="error_by_similarity.svg",
        title="Error by similarity",
        caption="Test molecules in bins of similarity to the nearest training molecule.",
        wrong_if="the error rises with similarity, or the test part has molecules at 1.0 "
        "(a training molecule leaked into the test).",
    )


def draw_coverage(scores: Mapping[str, float], name: str, folder: Path) -> Figure:
    """Draw the shares of test values inside their intervals, all and by similarity.

    `scores` are those of the test part, with the entries of `evaluate.coverage`.
    """
    each = {k.partition("coverage")[2].strip("_"): v for k, v in scores.items() if "coverage" in k}
    figure, (axes,) = new_figure()
    axes.axhspan(COVERAGE - 0.06, COVERAGE + 0.06, color="#7d8793", alpha=0.15, linewidth=0)
    axes.axhline(COVERAGE, color="#7d8793", linewidth=1.0)
    axes.plot(range(len(each)), list(each.values()), marker="o", linestyle="none")
    axes.set_xticks(range(len(each)), [text or "all" for text in each])
    axes.set(
        title=f"{name}: test values inside their {COVERAGE:.0%} intervals",
        xlabel="Tanimoto similarity (ECFP4) to the nearest training molecule",
        ylabel="share inside",
        ylim=(0, 1),
    )
    save_svg(figure, folder / "coverage.svg")
    return Figure(
        file="coverage.svg",
        title="Calibration of the intervals",
        caption=f"Share of test values inside; the band is {COVERAGE:.0%} +- 6 points.",
        wrong_if="a dot lies below the band (intervals too narrow: too sure of itself) or above "
        "(too wide to be of use).",
    )


def _learning_curve(history: Sequence[Mapping[str, float]], unit: str, folder: Path) -> Figure:
    figure, (axes,) = new_figure()
    epoch = [row["epoch"] + 1 for row in history]
    axes.plot(epoch, [row["loss"] for row in history], label="training loss (scaled units)")
    if history and "valid_rmse" in history[0]:
        axes.plot(epoch, [row["valid_rmse"] for row in history], label=f"valid RMSE, {unit}")
    axes.set(title="Learning curve", xlabel="epoch", ylabel="error")
    axes.set_ylim(bottom=0)
    axes.legend()
    save_svg(figure, folder / "learning_curve.svg")
    return Figure(
        file="learning_curve.svg",
        title="Learning curve",
        caption="Training loss and validation error after each epoch, both of one network; the "
        "validation error is that of the averaged weights.",
        wrong_if="the training loss does not fall, or the validation error turns up for good "
        "long before the last epoch (too many epochs).",
    )
