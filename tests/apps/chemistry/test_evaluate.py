import csv
import io

import numpy as np
import pytest

from apps.chemistry.datasets import Table
from apps.chemistry.evaluate import predictions_csv, score_rows, score_splits
from apps.chemistry.molecules import featurise

SMILES = ["CCO", "CCN", "CCC", "CC", "C", "CO"]


def make_table(target, extra=None):
    target = np.asarray(target, np.float32)
    return Table(
        name="t",
        smiles=SMILES,
        graphs=[featurise(s) for s in SMILES],
        target=target,
        split=np.array(["train"] * 3 + ["test"] * 3),
        row=np.arange(2, 8),
        target_names=["a", "b"][: target.shape[1]],
        unit="pK",
        sha256="",
        source="file",
        extra=extra or {},
    )


def test_score_by_hand():
    table = make_table([[0], [2], [4], [1], [2], [3]])
    prediction = np.array([[1], [2], [3], [2], [2], [5]])
    scores = score_splits(prediction, table)
    assert set(scores) == {"train", "test"}
    train = scores["train"]
    assert train["rmse"] == pytest.approx(np.sqrt(2 / 3))
    assert train["mae"] == pytest.approx(2 / 3)
    assert train["r2"] == pytest.approx(1 - (2 / 3) / (8 / 3))
    assert train["spearman"] == pytest.approx(1.0)
    assert scores["test"]["rmse"] == pytest.approx(np.sqrt(5 / 3))


def test_score_by_task_by_cliff_and_by_kind_of_row():
    nan = np.nan
    table = make_table(
        [[0, 1], [2, nan], [4, nan], [1, 3], [nan, 2], [3, 1]],
        {
            "cliff_mol": np.array([False] * 5 + [True]),
            "held_out": np.array(["", "", "", "core", "core", "group"]),
        },
    )
    prediction = np.zeros((6, 2))
    out = score_rows(prediction, table)
    a, b = np.sqrt((0 + 4 + 16 + 1 + 9) / 5), np.sqrt((1 + 9 + 4 + 1) / 4)
    assert out["rmse_a"] == pytest.approx(a)
    assert out["rmse_b"] == pytest.approx(b)
    assert out["rmse"] == pytest.approx((a + b) / 2)
    assert out["rmse_cliff"] == pytest.approx((3 + 1) / 2)
    assert out["rmse_core"] == pytest.approx((1 + np.sqrt((9 + 4) / 2)) / 2)
    assert out["rmse_group"] == pytest.approx((3 + 1) / 2)


def test_predictions_leave_missing_values_empty():
    table = make_table([[0, 1], [2, np.nan], [4, 0], [1, 3], [0, 2], [3, 1]])
    prediction = np.arange(12.0).reshape(6, 2)
    text = predictions_csv(table, prediction, np.array([1, 3]), np.array([0.5, 1.0]))
    rows = list(csv.DictReader(io.StringIO(text)))
    assert rows[0] == {
        "row": "3",
        "smiles": "CCN",
        "measured_a": "2.0000",
        "measured_b": "",
        "predicted_a": "2.0000",
        "predicted_b": "3.0000",
        "nearest_train_tanimoto": "0.5000",
    }
    assert [row["row"] for row in rows] == ["3", "5"]
