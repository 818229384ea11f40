from dataclasses import replace

import numpy as np
import pytest

from apps.chemistry.baselines.joint import JointKernel
from apps.chemistry.baselines.kernel import fit_gaussian_process
from apps.chemistry.baselines.mix import MixKernel
from apps.chemistry.datasets import Table
from apps.chemistry.molecules import featurise, mol_from_smiles

FLOAT32 = 2e-5  # float32 kernel, weights of order ten


@pytest.fixture(scope="module")
def table():
    """Two tasks on alcohols and amines; five molecules have a row for each task."""
    first = [f"{'C' * i}O" for i in range(1, 21)]
    second = [f"{'C' * i}N" for i in range(1, 16)] + first[:5]
    target = np.full((40, 2), np.nan, np.float32)
    target[:20, 0] = np.arange(20)
    target[20:, 1] = np.sqrt(np.arange(20))
    split = np.array((["train"] * 3 + ["test"]) * 10)
    split[20 + 17] = "valid"
    return Table(
        name="t",
        smiles=first + second,
        graphs=[featurise(s) for s in first + second],
        target=target,
        split=split,
        row=np.arange(40),
        target_names=["a", "b"],
        unit="",
        sha256="",
        source="file",
    )


def test_labels_are_those_of_a_process_fitted_to_each_task(table):
    labels = JointKernel.of(table).hints(table)
    learns = sorted({s for s, part in zip(table.smiles, table.split, strict=True)
                     if part != "test"})  # fmt: skip
    kernel = MixKernel.of([mol_from_smiles(s) for s in learns])
    fitted = np.nonzero((table.split == "train") & np.isfinite(table.target[:, 0]))[0]
    among = kernel.against([mol_from_smiles(table.smiles[i]) for i in fitted])
    place = [learns.index(table.smiles[i]) for i in fitted]
    model = fit_gaussian_process(
        among[:, place].astype(np.float64), table.target[fitted, 0].astype(np.float64)
    )
    # an amine, which task 0 has never measured
    amine = kernel.against([mol_from_smiles(table.smiles[20])])[:, place]
    assert labels[20, 0] == pytest.approx(model.predict(amine)[0], abs=FLOAT32 * 20)
    np.testing.assert_allclose(labels[fitted, 0], model.predict(among[:, place]), atol=FLOAT32 * 20)


def test_what_is_to_be_predicted_is_not_hinted_at(table):
    teacher = JointKernel.of(table)
    labels = teacher.hints(table)
    assert np.isnan(labels[table.split != "train"]).all()
    hidden = 0
    for row in np.nonzero(table.split == "train")[0]:
        twins = [i for i in range(40) if table.smiles[i] == table.smiles[row]]
        for task in range(2):
            judged = any(
                table.split[i] != "train" and np.isfinite(table.target[i, task]) for i in twins
            )
            assert np.isnan(labels[row, task]) == judged
            hidden += judged
    assert hidden  # there is such a pair
    # and values of rows that do not train are never read
    changed = table.target.copy()
    changed[(table.split != "train")[:, None] & np.isfinite(changed)] = 99.0
    np.testing.assert_array_equal(labels, teacher.hints(replace(table, target=changed)))
