"""Analogues that a teacher answers: whose they are, and that nothing held out has a part."""

from dataclasses import replace

import numpy as np
import pytest

from apps.chemistry import fitting
from apps.chemistry.baselines import JointKernel
from apps.chemistry.config import TrainConfig
from apps.chemistry.datasets import SPLITS, load_table
from apps.chemistry.fitting import Lesson, fit_network
from apps.chemistry.lessons import lesson_molecules, lesson_of, teach
from apps.chemistry.molecules import featurise
from apps.chemistry.predictor import build_network
from apps.lab.config import load_config


@pytest.fixture(scope="module")
def table():
    """Two tasks of the pocket set; each of the later rows is measured for one of them."""
    whole = load_table("pocket")
    rows = np.concatenate(
        [np.nonzero(whole.split == p)[0][: 60 if p == "train" else 15] for p in SPLITS]
    )
    table = whole.take(rows)
    target = np.concatenate([table.target, -table.target], axis=1)
    target[20::2, 0] = np.nan
    target[21::2, 1] = np.nan
    return replace(table, target=target, target_names=["a", "b"], bound=None)


def test_analogues_are_made_of_rows_outside_the_test_part_and_new(table):
    made = lesson_molecules(table, 1.0, seed=0)
    assert len(made.smiles) == 75
    assert (table.split[made.parent] != "test").all()
    assert (table.split[made.donor] != "test").all()
    assert not set(made.smiles) & set(table.smiles)
    known = np.isfinite(table.target)
    assert (known[made.parent] & known[made.donor]).any(axis=1).all()  # one task has both
    assert lesson_molecules(table, 0.0, seed=0).smiles == []


def test_a_fold_keeps_those_of_its_own_train_part_alone(table):
    made = lesson_molecules(table, 1.0, seed=0)
    answer = np.arange(2.0 * len(made.smiles), dtype=np.float32).reshape(-1, 2)
    lesson = lesson_of(table, made, answer)
    trains = table.split == "train"
    kept = trains[made.parent] & trains[made.donor]
    assert 0 < kept.sum() < len(kept)
    assert len(lesson.graphs) == kept.sum()
    np.testing.assert_array_equal(lesson.hint, answer[kept])
    np.testing.assert_array_equal(lesson.is_own, np.isfinite(table.target[made.parent[kept]]))


def test_teachers_answer_analogues_as_they_answer_rows(table):
    """What is said of a molecule does not depend on whether it came as a row or as an analogue."""
    kernel = JointKernel.of(table)
    teacher = kernel.teacher(table)
    rows = np.nonzero(table.split == "train")[0][:10]
    as_analogues = kernel.answers([table.smiles[i] for i in rows], [teacher])[0]
    as_rows = teacher.answer(kernel.kernel)[kernel.molecule[rows]]
    np.testing.assert_allclose(as_analogues, as_rows, atol=1e-4)  # float32 kernels


def test_values_held_out_reach_neither_hints_nor_lesson(table):
    held = (table.split != "train")[:, None] & np.isfinite(table.target)
    changed = replace(table, target=np.where(held, 99.0, table.target).astype(np.float32))
    (first,), (second,) = (teach(JointKernel.of(t), t, [t], 1.0, seed=0) for t in (table, changed))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1].hint, second[1].hint)


def test_a_network_learns_from_what_a_teacher_says_of_molecules_without_a_value(table):
    """The teacher alone tells that chlorine counts: no row has any."""
    config = load_config(TrainConfig, overrides=["model.d_hidden=16", "model.n_layer=2"])
    plain = ["C" * n + "O" for n in range(2, 14)]
    other = ["C" * n + "Cl" for n in range(2, 14)]
    rows = replace(
        table.take(np.arange(12)), smiles=plain, graphs=[featurise(s) for s in plain],
        target=np.zeros((12, 1), np.float32) + np.float32([[0.1], [-0.1]] * 6),
        split=np.array(["train"] * 12), target_names=["a"],
    )  # fmt: skip
    lesson = Lesson(
        [featurise(s) for s in other], np.ones((12, 1), np.float32), np.ones((12, 1), dtype=bool)
    )
    model = build_network(config, n_task=1, seed=0)
    model.set_scale(rows.target)
    train = config.train.model_copy(update={"n_epoch": 60, "batch_size": 8})
    fit_network(model, rows, train, 0, lesson=lesson)
    model.eval()
    batch = [fitting.pack([featurise(s)]) for s in ("CCCCCCCO", "CCCCCCCCl")]
    told = [model.predict(one).item() for one in batch]
    assert abs(told[0]) < 0.4
    assert abs(told[1] - 1.0) < 0.4
