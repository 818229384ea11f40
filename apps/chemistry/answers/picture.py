"""Test molecules in a run's report: a typical one and the worst, atom by atom."""

from pathlib import Path

import numpy as np

from apps.chemistry.answers.explain import draw, explain
from apps.chemistry.datasets import Table
from apps.chemistry.predictor import Predictor
from apps.lab.record import Figure

_WRONG_IF = (
    "the numbers do not add up to the prediction, atoms of one group in one place differ much from "
    "molecule to molecule, or everything rests on a single atom"
)


def draw_molecules(
    predictor: Predictor, table: Table, prediction: np.ndarray, folder: Path
) -> list[Figure]:
    """Draw the test molecules with the median and the largest error of the first task.

    Parameters
    ----------
    predictor : Predictor
        With its reference.
    table : Table
    prediction : float [molecule, task]
    folder : Path
        Receives ``molecule-typical.svg`` and ``molecule-worst.svg``.

    Returns
    -------
    list of Figure
        Empty where no test molecule has an exact value.
    """
    test = np.nonzero(table.split == "test")[0]
    error = np.abs(prediction[test, 0] - table.exact[test, 0])
    known = test[np.isfinite(error)]
    if predictor.reference is None or not known.size:
        return []
    in_order = known[np.argsort(error[np.isfinite(error)], kind="stable")]
    figures = []
    for word, row in (("typical", in_order[len(in_order) // 2]), ("worst", in_order[-1])):
        explanation = explain(predictor, table.smiles[row])
        file = f"molecule-{word}.svg"
        draw(explanation, folder / file)
        figures.append(
            Figure(
                file=file,
                title=f"The {'median' if word == 'typical' else 'largest'} error of the test part",
                caption=(
                    f"{table.smiles[row]}: predicted {explanation.prediction:.2f}, measured "
                    f"{table.exact[row, 0]:.2f} {table.unit}. Blue atoms raise the value, red ones "
                    "lower it, by the numbers beside them; the scaffold has the rest."
                ),
                wrong_if=_WRONG_IF,
            )
        )
    return figures
