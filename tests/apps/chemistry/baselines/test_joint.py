from dataclasses import replace

import numpy as np
import pytest

from apps.chemistry.baselines.fellows import HEED
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


def second_process(kernel, said, other, at, y):
    """Weights over `at` of the process that heeds `other`: slow."""
    apart = (said[:, None, other] - said[None, :, other]) ** 2 / said[:, other].var()
    pairs = apart[np.ix_(at, at)][~np.eye(at.size, dtype=bool)]
    kernel = kernel * np.exp(-HEED * apart / np.median(pairs))
    return fit_gaussian_process(kernel[np.ix_(at, at)], y), kernel


def test_processes_on_the_mix_heed_what_the_other_task_says(table):
    joint = JointKernel.of(table)
    fold = np.where(table.split == "test", -1, np.arange(40) % 2)
    told = joint.heeding(table, fold, n_fold=2)
    whole, held_out = told.whole, told.held_out
    assert np.isfinite(whole).all()
    np.testing.assert_array_equal(np.isfinite(held_out).all(axis=1), fold >= 0)
    learns = np.nonzero(joint.column >= 0)[0]
    kernel = joint.kernel[learns].astype(float)
    rows = [np.nonzero((fold >= 0) & np.isfinite(table.target[:, t]))[0] for t in range(2)]
    at = [joint.column[joint.molecule[r]] for r in rows]
    y = [table.target[r, t].astype(float) for t, r in enumerate(rows)]

    def reference(kept):
        """What the process of the first task says of all its rows, from some rows of both."""
        alone = [(a[k], v[k]) for a, v, k in zip(at, y, kept, strict=True)]
        said = [fit_gaussian_process(kernel[np.ix_(a, a)], v).predict(kernel[:, a])
                for a, v in alone]  # fmt: skip
        fit, heeding = second_process(kernel, np.stack(said, axis=1), 1, *alone[0])
        return fit.predict(heeding[np.ix_(at[0], alone[0][0])])

    np.testing.assert_allclose(
        whole[rows[0], 0], reference([fold[r] >= 0 for r in rows]), atol=1e-2
    )
    for i in range(2):
        held = fold[rows[0]] == i
        expected = reference([fold[r] != i for r in rows])[held]
        np.testing.assert_allclose(held_out[rows[0][held], 0], expected, atol=1e-2)
    # values in a fold change nothing that is said of it, and what the deployed fit says follows
    changed = table.target.copy()
    row, own = rows[0][3], fold == fold[rows[0][3]]
    changed[row, 0] += 5.0
    other = joint.heeding(replace(table, target=changed), fold, n_fold=2)
    assert other.whole[row, 0] - whole[row, 0] > 1.0
    np.testing.assert_array_equal(other.held_out[own], held_out[own])
    assert (other.held_out[(fold >= 0) & ~own, 0] != held_out[(fold >= 0) & ~own, 0]).all()


def test_a_single_task_heeds_nobody(table):
    joint = JointKernel.of(table)
    blank = table.target.copy()
    blank[:, 1] = np.nan
    fold = np.where(table.split == "test", -1, np.arange(40) % 2)
    told = joint.heeding(replace(table, target=blank), fold, n_fold=2)
    whole, held_out = told.whole, told.held_out
    rows = np.nonzero((fold >= 0) & np.isfinite(blank[:, 0]))[0]
    at = joint.column[joint.molecule[rows]]
    kernel = joint.kernel[:, at].astype(float)
    y = blank[rows, 0].astype(float)
    fit = fit_gaussian_process(kernel[joint.molecule[rows]], y)
    np.testing.assert_allclose(whole[:, 0], fit.predict(kernel)[joint.molecule], atol=FLOAT32 * 20)
    kept = fold[rows] != 0
    square = kernel[joint.molecule[rows]][np.ix_(kept, kept)]
    first = fit_gaussian_process(square, y[kept])
    expected = first.predict(kernel[np.ix_(joint.molecule[fold == 0], kept)])
    np.testing.assert_allclose(held_out[fold == 0, 0], expected, atol=FLOAT32 * 20)
    assert np.isnan(whole[:, 1]).all()
