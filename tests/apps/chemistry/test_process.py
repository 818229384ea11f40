from dataclasses import replace

import numpy as np
import pytest
import torch

from apps.chemistry.baselines.fellows import HEED, RELATED
from apps.chemistry.baselines.kernel import fit_gaussian_process
from apps.chemistry.config import TrainConfig
from apps.chemistry.datasets import Table
from apps.chemistry.minmax import min_max
from apps.chemistry.molecules import featurise
from apps.chemistry.predictor import Predictor, build_network
from apps.chemistry.process import CountProcess, fit_process
from apps.chemistry.whole import add_processes
from apps.lab.config import load_config
from core.errors import DataError

FLOAT32 = 1e-5
SMALL = ["model.d_hidden=16", "model.n_layer=1", "model.n_member=2", "model.process=true"]


@pytest.fixture
def drawn():
    """Counts, two tasks with gaps, and parts: 30 rows learn, 10 of them held out, 10 do not."""
    rng = np.random.default_rng(0)
    count = rng.gamma(1.0, size=(40, 6)).astype(np.float32)
    target = np.stack([count[:, 0] - count[:, 4], count[:, 1]], axis=1)
    target[::3, 1] = np.nan
    learns, held = np.arange(40) < 30, np.arange(40) < 10
    return count, target, [f"m{i}" for i in range(40)], learns, held


def test_process_of_one_task_is_that_of_the_reference(drawn):
    count, target, smiles, learns, held = drawn
    fit = fit_process(count, target[:, 1:], smiles, n_state=2, learns=learns, held=held)
    kernel = min_max(count, count, 2).astype(float)
    known = np.isfinite(target[:, 1])
    inside, whole = (np.nonzero(known & rows)[0] for rows in (learns & ~held, learns))
    y = target[:, 1].astype(float)
    first = fit_gaussian_process(kernel[np.ix_(inside, inside)], y[inside])
    expected = first.predict(kernel[np.ix_(np.nonzero(held)[0], inside)])
    np.testing.assert_allclose(fit.held_out[held, 0], expected, atol=FLOAT32)
    deployed = fit_gaussian_process(kernel[np.ix_(whole, whole)], y[whole], ratio=first.setting)
    found = fit.process.predict(count)[:, 0]
    np.testing.assert_allclose(found, deployed.predict(kernel[:, whole]), atol=FLOAT32)
    assert np.isnan(fit.held_out[~held]).all()


def second_process(kernel, target, task, said, inside, rows):
    """Answers of `task` for all molecules, [molecule]: a slow reference with one other task."""
    y, other = target[:, task].astype(float), said[:, 1 - task]
    related = abs(np.corrcoef(other[inside], y[inside])[0, 1]) ** RELATED
    apart = related * (other[:, None] - other[None, :]) ** 2 / other.var()
    pairs = apart[np.ix_(inside, inside)][~np.eye(inside.size, dtype=bool)]
    kernel = kernel * np.exp(-HEED * apart / np.median(pairs))
    ratio = fit_gaussian_process(kernel[np.ix_(inside, inside)], y[inside]).setting
    fit = fit_gaussian_process(kernel[np.ix_(rows, rows)], y[rows], ratio=ratio)
    return fit.predict(kernel[:, rows])


def test_processes_of_two_tasks_heed_what_the_other_says(drawn):
    count, target, smiles, learns, held = drawn
    learns[:] = True  # every molecule is known, so that the reference has no rows beyond
    fit = fit_process(count, target, smiles, n_state=2, learns=learns, held=held)
    kernel = min_max(count, count, 2).astype(float)
    said = np.empty(target.shape)
    for task in range(2):
        rows = np.nonzero(np.isfinite(target[:, task]) & ~held)[0]
        y = target[rows, task].astype(float)
        said[:, task] = fit_gaussian_process(kernel[np.ix_(rows, rows)], y).predict(kernel[:, rows])
    for task in range(2):
        rows = np.nonzero(np.isfinite(target[:, task]) & ~held)[0]
        expected = second_process(kernel, target, task, said, rows, rows)
        np.testing.assert_allclose(fit.held_out[held, task], expected[held], atol=1e-3)


def test_a_value_of_a_related_task_comes_along():
    n, error = 160, {"related": 0.0, "unrelated": 0.0, "alone": 0.0}
    held = np.arange(2 * n) % 4 == 0
    held[n:] = False  # the other task has a value of every molecule
    smiles, learns = [f"m{i}" for i in range(n)] * 2, np.ones(2 * n, dtype=bool)
    for seed in (1, 2, 3):
        rng = np.random.default_rng(seed)
        count = rng.gamma(2.0, size=(n, 8)).astype(np.float32)
        shown = count[:, 0] - count[:, 1]
        y = shown / shown.std() + 0.6 * rng.standard_normal(n)  # the rest no count shows
        for name, other in (("related", y), ("unrelated", rng.standard_normal(n)), ("alone", None)):
            target = np.full((2 * n, 2), np.nan, dtype=np.float32)
            target[:n, 0] = y
            target[n:, 1] = np.nan if other is None else other
            fit = fit_process(
                np.concatenate([count, count]), target, smiles, n_state=2, learns=learns, held=held
            )
            error[name] += np.sqrt(np.mean((fit.held_out[held, 0] - target[held, 0]) ** 2)) / 3
    # .254, .663 and .605
    assert error["related"] < 0.6 * error["alone"]
    assert error["unrelated"] < 1.2 * error["alone"]


def test_what_is_held_out_or_does_not_learn_is_not_read(drawn):
    count, target, smiles, learns, held = drawn
    fit = fit_process(count, target, smiles, n_state=2, learns=learns, held=held)
    changed = target.copy()
    changed[~learns] = 99.0
    same = fit_process(count, changed, smiles, n_state=2, learns=learns, held=held)
    np.testing.assert_array_equal(same.process.fit.weight, fit.process.fit.weight)
    changed[held] = 99.0
    other = fit_process(count, changed, smiles, n_state=2, learns=learns, held=held)
    np.testing.assert_array_equal(other.held_out, fit.held_out)
    assert np.abs(other.process.predict(count) - fit.process.predict(count)).max() > 1.0


def test_a_file_whose_shapes_do_not_belong_together_is_refused(drawn):
    count, target, smiles, learns, held = drawn
    process = fit_process(count, target, smiles, n_state=2, learns=learns, held=held).process
    kept = process.tensors()
    again = CountProcess.from_tensors(kept)
    np.testing.assert_array_equal(again.predict(count), process.predict(count))
    for name, wrong in (
        ("weight", kept["weight"][:-1]),
        ("offset", kept["offset"][:1]),
        ("n_state", torch.tensor(4)),
        ("n_state", torch.tensor(0)),
        ("count", kept["count"][0]),
        ("fellows_said", kept["fellows_said"][1:]),
        ("fellows_heed", kept["fellows_heed"][:1]),
        ("fellows_weight", kept["fellows_weight"][:, :1]),
    ):
        with pytest.raises(DataError, match="train the model again"):
            CountProcess.from_tensors(kept | {name: wrong})


def test_rows_of_one_molecule_are_one_and_a_task_without_values_says_nothing(drawn):
    count, target, smiles, learns, held = drawn
    twice = [np.concatenate([x, x]) for x in (count, target, learns, held)]
    once, both = (
        fit_process(c, t, s, n_state=2, learns=rows, held=out)
        for c, t, rows, out, s in (
            (count, target, learns, held, smiles),
            (*twice, smiles * 2),
        )
    )
    assert once.process.count.shape == both.process.count.shape
    blank = target.copy()
    blank[:, 1] = np.nan
    fit = fit_process(count, blank, smiles, n_state=2, learns=learns, held=held)
    found = fit.process.predict(count)
    assert np.isfinite(found[:, 0]).all()
    assert np.isnan(found[:, 1]).all()


@pytest.fixture(scope="module")
def table():
    smiles = [f"{'C' * i}{end}" for i in range(1, 13) for end in ("O", "N", "c1ccccc1")]
    target = np.array([[len(s), s[-1] == "O"] for s in smiles], dtype=np.float32)
    return Table(
        name="t", smiles=smiles, graphs=[featurise(s) for s in smiles], target=target,
        split=np.array((["train"] * 4 + ["valid", "test"]) * 6), row=np.arange(36),
        target_names=["length", "acid"], unit="", sha256="", source="file",
    )  # fmt: skip


@pytest.fixture(scope="module")
def networks(table):
    config = load_config(TrainConfig, overrides=SMALL)
    members = []
    for seed in (0, 1):
        model = build_network(config, n_task=2, seed=seed)
        model.set_scale(table.select("train").target)
        members.append(model.eval())
    return Predictor(config, list(table.target_names), "", [0, 1], members)


def test_members_answer_by_their_processes_and_the_file_keeps_them(table, networks, tmp_path):
    fold = np.where(table.split == "test", -1, np.arange(36) % 2)
    whole, layers, held_out = add_processes(networks, table, fold)
    np.testing.assert_array_equal(layers, networks.predict_members(table.graphs))
    each = whole.predict_members(table.graphs)
    counts = networks.run_networks(table.graphs)[1]
    for one, process, count in zip(each, whole.processes, counts, strict=True):
        np.testing.assert_allclose(one, process.predict(count), atol=FLOAT32)
    assert np.isfinite(held_out[fold >= 0]).all()
    assert np.isnan(held_out[fold < 0]).all()
    learned, seen = (fold >= 0), table.target
    error = np.abs(whole.predict(table.graphs) - seen)[learned].mean()
    assert error < 0.5 * np.abs(held_out - seen)[learned].mean()
    again = Predictor.load(whole.save(tmp_path / "model.safetensors"))
    np.testing.assert_array_equal(again.predict_members(table.graphs), each)
    assert whole.predict_members([]).shape == (2, 0, 2)
    half = replace(whole, processes=whole.processes[:1]).save(tmp_path / "half.safetensors")
    with pytest.raises(DataError, match="1 processes for 2 networks"):
        Predictor.load(half)


def test_a_task_without_process_is_answered_by_the_last_layers(table, networks):
    blank = table.target.copy()
    blank[:, 1] = np.nan
    fold = np.where(table.split == "test", -1, 0)
    whole, layers, _ = add_processes(networks, replace(table, target=blank), fold)
    each = whole.predict_members(table.graphs)
    np.testing.assert_array_equal(each[:, :, 1], layers[:, :, 1])
    assert np.abs(each[:, :, 0] - layers[:, :, 0]).max() > 0.1


def test_networks_count_alike_in_any_batch(table, networks):
    counts = networks.run_networks(table.graphs)[1][0]
    alone = networks.run_networks(table.graphs[:3])[1][0]
    assert counts.shape == (36, networks.members[0].readout.n_count)
    assert (counts >= 0).all()
    torch.testing.assert_close(torch.from_numpy(alone), torch.from_numpy(counts[:3]))
