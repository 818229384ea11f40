import numpy as np
import pytest

from apps.chemistry.datasets import Table
from apps.chemistry.hybrid import (
    draw_folds,
    graph_members,
    kernel_member,
    mixture_weights,
    paired_bootstrap,
    trees_member,
)
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


def test_graph_member_is_the_mean_of_fold_models_and_its_own_fold_model_held_out(table):
    fold = draw_folds(table, 3, seed=0)
    answers = [np.full((60, 1), 10.0 * i) for i in range(3)]
    (member,) = graph_members(fold, answers)
    np.testing.assert_array_equal(member.held_out[fold >= 0], 10.0 * fold[fold >= 0])
    assert np.isnan(member.held_out[fold < 0]).all()
    np.testing.assert_array_equal(member.whole, 10.0)


@pytest.mark.parametrize("fit", [kernel_member, trees_member])
def test_members_predict_rows_they_have_not_seen(table, fit):
    fold = draw_folds(table, 4, seed=0)
    member = fit(table, fold, seed=0)
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

    again = fit(replace(table, target=changed), fold, seed=0)
    np.testing.assert_array_equal(again.whole, member.whole)


def test_weights_by_hand():
    rng = np.random.default_rng(0)
    true = rng.standard_normal(40_000)
    noise = rng.standard_normal((3, 40_000))
    # independent errors of variances 1, 1/2 and 1/4: weights as their inverses, 1 : 2 : 4
    members = true + noise * np.sqrt([[1.0], [0.5], [0.25]])
    weights = mixture_weights([members], [true])
    assert sum(weights) == pytest.approx(1.0)
    # half a step of the grid each way, and chance of 40,000 rows
    assert weights == pytest.approx([1 / 7, 2 / 7, 4 / 7], abs=0.05)
    # a row without a measured value or a held-out prediction has no part in it
    members[0, :10_000], true[10_000:20_000] = np.nan, np.nan
    assert mixture_weights([members], [true]) == pytest.approx(weights, abs=0.051)


def test_a_member_that_is_another_and_noise_is_left_out():
    rng = np.random.default_rng(2)
    true = [rng.standard_normal(300) for _ in range(5)]
    held_out = []
    for y in true:
        kernel = y + 0.6 * rng.standard_normal(300)
        held_out.append(np.array([kernel, kernel + 0.6 * rng.standard_normal(300)]))
    assert mixture_weights(held_out, true) == (1.0, 0.0)


def test_each_target_has_one_voice_whatever_its_rows_and_scale():
    rng = np.random.default_rng(3)
    y, noise = rng.standard_normal(2000), rng.standard_normal((2, 2000))
    one = y + noise * [[1.0], [0.5]]
    many = np.tile(10.0 * (y + noise * [[0.5], [1.0]]), 20)
    weights = mixture_weights([one, many], [y, np.tile(10.0 * y, 20)])
    # errors in units of the first member's: variances 1, 1/4 and 1, 4; sums 2 : 4.25
    assert weights == pytest.approx([4.25 / 6.25, 2 / 6.25], abs=0.05)


def test_bootstrap_interval_covers_and_pairs():
    rng = np.random.default_rng(1)
    shared = [rng.standard_normal((1, 300)) for _ in range(4)]
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


def test_seeds_on_the_same_molecules_do_not_narrow_the_interval():
    rng = np.random.default_rng(2)
    one = rng.standard_normal((1, 200))
    alone = paired_bootstrap([1.1 * one], [one])
    five = paired_bootstrap([1.1 * np.tile(one, (5, 1))], [np.tile(one, (5, 1))])
    assert five == pytest.approx(alone, rel=1e-9)
