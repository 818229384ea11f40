import numpy as np
import pytest

from apps.chemistry.benchmark.hybrid import (
    draw_folds,
    graph_members,
    kernel_member,
    mixture_weight,
    paired_bootstrap,
)
from apps.chemistry.datasets import Table
from apps.chemistry.molecules import featurise


@pytest.fixture(scope="module")
def table():
    smiles = [f"{'C' * i}{end}" for i in range(1, 16) for end in ("O", "N", "c1ccccc1", "C(=O)O")]
    target = np.array([len(s) + (s[-1] == "O") for s in smiles], dtype=np.float32)
    return Table(
        name="t",
        smiles=smiles,
        graphs=[featurise(s) for s in smiles],
        target=target[:, None],
        split=np.array((["train"] * 3 + ["valid", "test"]) * 12),
        row=np.arange(60),
        target_names=["y"],
        unit="",
        sha256="",
        source="file",
    )


def test_folds_leave_the_test_part_alone_and_are_even(table):
    fold = draw_folds(table, 4, seed=0)
    assert (fold[table.split == "test"] == -1).all()
    assert sorted(np.bincount(fold[fold >= 0]).tolist()) == [12, 12, 12, 12]
    means = [table.target[fold == i].mean() for i in range(4)]
    # neighbours in rank go to different folds: the means differ by less than one step of rank
    assert np.ptp(means) < 0.2 * table.target.std()
    assert (draw_folds(table, 4, seed=0) == fold).all()
    assert (draw_folds(table, 4, seed=1) != fold).any()


def test_graph_member_is_the_mean_of_fold_models_that_never_saw_their_fold(table):
    fold = draw_folds(table, 3, seed=0)
    seen = []

    def model(part, i):
        seen.append(part.split.copy())
        return np.full((60, 1), 10.0 * i)

    (member,) = graph_members(table, fold, model)
    for i, split in enumerate(seen):
        assert ((split == "valid") == (fold == i)).all()
        assert ((split == "test") == (fold < 0)).all()
    np.testing.assert_array_equal(member.held_out[fold >= 0], 10.0 * fold[fold >= 0])
    assert np.isnan(member.held_out[fold < 0]).all()
    np.testing.assert_array_equal(member.whole, 10.0)


def test_kernel_member_predicts_rows_it_has_not_seen(table):
    fold = draw_folds(table, 4, seed=0)
    member = kernel_member(table, fold, seed=0)
    true = table.target[:, 0]
    known = fold >= 0
    assert np.isnan(member.held_out[~known]).all()
    held = np.sqrt(np.mean((member.held_out - true)[known] ** 2))
    seen = np.sqrt(np.mean((member.whole - true)[known] ** 2))
    assert seen < held < 0.5 * true.std()
    # values of the test part are never read
    changed = table.target.copy()
    changed[~known] = 99.0
    from dataclasses import replace

    again = kernel_member(replace(table, target=changed), fold, seed=0)
    np.testing.assert_array_equal(again.whole, member.whole)


def test_weight_by_hand():
    rng = np.random.default_rng(0)
    true = rng.standard_normal(40_000)
    a, b = true + rng.standard_normal(40_000), true + 0.5 * rng.standard_normal(40_000)
    # independent errors of variance 1 and 1/4: the best weight of the second is 1 / (1 + 1/4);
    # one standard error of this many rows is less than a step of the weight from there
    assert mixture_weight(a, b, true) == pytest.approx(0.8, abs=0.051)
    assert mixture_weight(true, b, true) == 0.0
    # a's own error goes with the square of (1 - w): with the truth as partner more is better
    assert mixture_weight(a, true, np.where(true > 0, true, np.nan)) > 0.9


def test_a_graph_that_adds_no_more_than_chance_is_left_out():
    rng = np.random.default_rng(2)
    true = rng.standard_normal(300)
    kernel = true + 0.6 * rng.standard_normal(300)
    graph = kernel + 0.3 * rng.standard_normal(300)  # the kernel, and noise
    assert mixture_weight(kernel, graph, true) == 0.0


def test_bootstrap_interval_covers_and_pairs():
    rng = np.random.default_rng(1)
    shared = [rng.standard_normal(300) for _ in range(4)]
    same = paired_bootstrap(shared, shared)
    assert same == (0.0, 0.0, 0.0)
    worse = [1.1 * e for e in shared]
    difference, low, high = paired_bootstrap(worse, shared)
    expected = 0.1 * np.mean([np.sqrt(np.mean(e**2)) for e in shared])
    assert difference == pytest.approx(expected, rel=1e-12)
    assert low < difference < high
    # errors that are equal up to a factor leave only the spread of .1 rmse: sd of an rmse of
    # 300 normal errors is 1 / sqrt(600), of a mean of four half of it
    assert high - low == pytest.approx(2 * 1.96 * 0.1 / np.sqrt(600) / 2, rel=0.15)
