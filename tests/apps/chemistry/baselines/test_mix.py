import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rdkit import Chem

from apps.chemistry import metrics
from apps.chemistry.baselines import (
    KERNEL_MODELS,
    MixKernel,
    predict_baselines,
    predict_kernel_mix,
)
from apps.chemistry.datasets import load_table
from apps.chemistry.molecules.descriptors import descriptors

MIRROR = os.environ.get("TESSERA_DATA_DIR", "")
TARGET = "CHEMBL4203_Ki"
needs_target = pytest.mark.skipif(
    not MIRROR or not (Path(MIRROR) / f"chemistry/moleculeace/{TARGET}.csv").is_file(),
    reason=f"needs {TARGET} below $TESSERA_DATA_DIR",
)
# An independent run of the same recipe with other descriptors gave .842; .880 is the published
# support vector machine on ECFP (MoleculeACE, results at commit 7e6de0bd).
TRIAL_RMSE, TRIAL_SLACK, PUBLISHED_RMSE = 0.842, 0.015, 0.880
SMILES = [
    tail + "C" * n + ring
    for n in range(1, 7)
    for tail in ("O", "N", "FC(F)(F)", "OC(=O)")
    for ring in ("C", "c1ccccc1", "C1CC1")
]
MOLS = [Chem.MolFromSmiles(text) for text in SMILES]


@pytest.fixture
def table(tmp_path):
    parts = ("train", "train", "train", "valid", "test")
    lines = ["smiles,pk,part"]
    for i, (smiles, mol) in enumerate(zip(SMILES, MOLS, strict=True)):
        value = 0.2 * mol.GetNumAtoms() + smiles.startswith("N") - 0.5 * ("(=O)" in smiles)
        lines.append(f"{smiles},{value:.3f},{parts[7 * i % 5]}")
    path = tmp_path / "set.csv"
    path.write_text("\n".join(lines) + "\n")
    return load_table(str(path), target="pk", split_column="part")


def test_kernel_is_a_similarity():
    kernel = MixKernel.of(MOLS).against(MOLS)
    np.testing.assert_allclose(np.diag(kernel), 1.0, atol=1e-12)
    np.testing.assert_allclose(kernel, kernel.T, atol=1e-12)
    assert np.linalg.eigvalsh(kernel).min() > -1e-10
    assert kernel.min() > 0


def test_kernel_of_new_molecules_does_not_depend_on_their_company():
    kernel = MixKernel.of(MOLS[:40])
    together = kernel.against(MOLS[40:])
    alone = np.concatenate([kernel.against([mol]) for mol in MOLS[40:]])
    np.testing.assert_allclose(together, alone, atol=1e-12)


def test_mix_is_the_mean_of_its_parts_and_beats_the_simple_lines(table):
    out = predict_kernel_mix(table)
    assert tuple(out) == KERNEL_MODELS
    np.testing.assert_allclose(
        out["kernel_mix"], 0.5 * (out["kernel_gp"] + out["kernel_svr"]), rtol=1e-12
    )
    test = table.split == "test"
    lines = out | predict_baselines(table)
    error = {name: metrics.rmse(table.target[test], p[test]) for name, p in lines.items()}
    assert error["kernel_mix"] < error["svm_ecfp4"] < error["train_mean"]
    assert error["kernel_mix"] < 0.3 * error["train_mean"]


def test_labels_outside_the_parts_are_not_read(table):
    changed = table.target.copy()
    changed[table.split == "test"] = 99.0
    changed[table.split == "valid"] = np.nan
    before, after = predict_kernel_mix(table), predict_kernel_mix(replace(table, target=changed))
    assert (before["kernel_mix"] == after["kernel_mix"]).all()
    both = predict_kernel_mix(table, parts=("train", "valid"))
    assert (both["kernel_mix"] != before["kernel_mix"]).any()


def test_descriptors_are_finite_even_for_metals():
    rows = descriptors([Chem.MolFromSmiles(s) for s in ("CCO", "[Pt+2]", "[Na+].[Cl-]", "C")])
    assert np.isfinite(rows).all()
    assert rows[0, 2] == pytest.approx(46.0419, abs=1e-3)  # mass of ethanol, dalton
    assert rows[0, 3] == pytest.approx(20.23)  # polar surface of one hydroxyl (Ertl 2000)


@needs_target
def test_one_target_reaches_the_trial():
    table = load_table(f"moleculeace/{TARGET}")
    out = predict_kernel_mix(table, parts=("train", "valid"))
    test = table.split == "test"
    error = metrics.rmse(table.target[test], out["kernel_mix"][test])
    assert error == pytest.approx(TRIAL_RMSE, abs=TRIAL_SLACK)
    assert error < PUBLISHED_RMSE
