from dataclasses import replace

import numpy as np
import pytest
import torch

from apps.chemistry import fitting
from apps.chemistry.config import FitConfig, TrainConfig
from apps.chemistry.datasets import Table
from apps.chemistry.fitting import (
    fit_network,
    hint_weight,
    make_optimizer,
    merge_molecules,
    one_cycle,
    with_hint,
)
from apps.chemistry.molecules import featurise
from apps.chemistry.network import pack
from apps.chemistry.predictor import build_network
from apps.lab.config import load_config

CONFIG = load_config(TrainConfig, overrides=["model.d_hidden=16", "model.n_layer=2"])


def make_table(n_valid=6):
    """Chains of carbon: the target is the length."""
    smiles = ["C" * n for n in range(1, 31)]
    split = np.array(["train"] * 30)
    split[3 : 3 + 4 * n_valid : 4] = "valid"
    return Table(
        name="chains",
        smiles=smiles,
        graphs=[featurise(s) for s in smiles],
        target=np.arange(1.0, 31.0, dtype=np.float32)[:, None],
        split=split,
        row=np.arange(2, 32),
        target_names=["length"],
        unit="atom",
        sha256="",
        source="file",
    )


def train(table, **settings):
    model = build_network(CONFIG, n_task=1, seed=0)
    model.set_scale(table.select("train").target)
    config = FitConfig(**{"n_epoch": 30, "batch_size": 8, "learning_rate": 0.01} | settings)
    return model, fit_network(model, table, config, seed=0)


def test_learns_a_property_that_is_a_sum_over_atoms():
    table = make_table()
    model, result = train(table, n_epoch=100)
    valid = table.select("valid")
    with torch.no_grad():
        error = model.predict(pack(valid.graphs)).numpy() - valid.target
    rmse = float(np.sqrt(np.mean(error**2)))
    assert rmse < 1.5  # atoms; the spread of the target is 8.7
    # the error of the kept weights is the lowest of the history
    assert rmse == pytest.approx(min(row["valid_rmse"] for row in result.history), rel=1e-4)


def test_pick_last_keeps_the_last_epoch():
    _, result = train(make_table(), pick="last", n_epoch=5)
    assert result.best_epoch == 4


def test_without_validation_rows_the_last_epoch_is_kept():
    _, result = train(make_table(n_valid=0), n_epoch=5)
    assert result.best_epoch == 4
    assert "valid_rmse" not in result.history[0]


def test_every_training_molecule_is_seen_once_an_epoch_in_an_order_of_the_seed(monkeypatch):
    seen = []

    def watch(graphs, target, bound):
        seen.append(target[:, 0].tolist())
        return pack(graphs, target, bound)

    monkeypatch.setattr(fitting, "pack", watch)
    table = make_table(n_valid=0)
    train(table, n_epoch=2)
    first, second = seen[: 30 // 8], seen[30 // 8 :]
    flat = [[v for batch in epoch for v in batch] for epoch in (first, second)]
    assert sorted(flat[0]) == sorted(flat[1]) == table.target[:, 0].tolist()
    assert flat[0] != flat[1]
    again, seen[:] = list(seen), []
    train(table, n_epoch=2)
    assert seen == again


def test_decay_acts_on_matrices_only():
    model = build_network(CONFIG, n_task=1, seed=0)
    matrices, vectors = make_optimizer(model, FitConfig(weight_decay=0.5)).param_groups
    assert matrices["weight_decay"] == 0.5
    assert vectors["weight_decay"] == 0.0
    assert {p.ndim for p in vectors["params"]} == {1}
    n = len(matrices["params"]) + len(vectors["params"])
    assert n == len(list(model.parameters()))


def test_one_cycle_starts_low_peaks_after_the_warmup_and_ends_low():
    assert one_cycle(0.0, 0.2) == 0.0
    assert one_cycle(0.1, 0.2) == pytest.approx(0.5)
    assert one_cycle(0.2, 0.2) == pytest.approx(1.0)
    assert one_cycle(0.6, 0.2) == pytest.approx(0.5)
    assert one_cycle(1.0, 0.2) == fitting.LAST_RATE


def test_rows_of_one_molecule_become_one_where_they_measure_different_tasks():
    table = make_table(n_valid=0).take(np.array([0, 1, 0, 2, 1, 0]))
    nan = np.nan
    target = np.float32([[1, nan], [2, nan], [nan, 3], [nan, 4], [5, nan], [nan, 6]])
    table = replace(table, target=target, split=np.array(["train"] * 3 + ["test"] + ["train"] * 2))
    hint = np.arange(12, dtype=np.float32).reshape(6, 2)
    merged, hints = merge_molecules(table, hint)
    # methane: the second row fills the first, the last measures task 1 once more; ethane: both
    # rows measure task 0; propane is of the test part
    assert merged.smiles == ["C", "CC", "CC", "C"]
    expected = [[1, 3], [2, nan], [5, nan], [nan, 6]]
    np.testing.assert_array_equal(merged.target, np.float32(expected))
    np.testing.assert_array_equal(hints, hint[[0, 1, 4, 5]])
    assert np.isnan(table.target[0, 1])  # the table that was given is as it was


def test_hints_cost_by_their_distance_and_missing_ones_nothing():
    model = build_network(CONFIG, n_task=2, seed=0)
    graphs = [featurise(s) for s in ("CCO", "CCN", "CCC")]
    nan = np.nan
    target = np.float32([[4, nan], [6, 1], [nan, 3]])
    model.set_scale(target)
    hint = np.float32([[5, 2], [nan, nan], [7, nan]])
    batch = with_hint(pack(graphs, target), hint, hint_weight(np.isfinite(target)))
    alone, both = model.loss(pack(graphs, target)).item(), model.loss(batch).item()
    out = model.predict(batch).detach().numpy()
    square = ((out - hint) / model.target_sd.numpy()) ** 2
    weight = np.where(np.isnan(target), fitting.HINT_UNMEASURED, fitting.HINT_MEASURED)
    expected = alone + np.nansum(weight * square) / 4  # four measured values
    assert both == pytest.approx(expected, rel=1e-5)  # sums of a few float32


def test_a_network_follows_the_teacher_where_nothing_is_measured():
    table = make_table(n_valid=0)
    target = np.concatenate([table.target, table.target], axis=1)
    target[10:, 1] = np.nan  # the second task is measured on ten short chains only
    hint = np.full_like(target, np.nan)
    hint[10:, 1] = 20.0  # and the teacher says it stays there, against all appearance
    table = replace(table, target=target, target_names=["a", "b"])
    found = []
    for taught in (None, hint):
        model = build_network(CONFIG, n_task=2, seed=0)
        model.set_scale(target)
        config = FitConfig(n_epoch=60, batch_size=8, learning_rate=0.01, pick="last")
        fit_network(model, table, config, seed=0, hint=taught)
        with torch.no_grad():
            found.append(float(model.predict(pack(table.graphs[10:]))[:, 1].sub(20.0).abs().mean()))
    assert found[1] < 0.5 * found[0]
