import csv
from dataclasses import replace

import numpy as np
import pytest

from apps.chemistry.answers import explain, predict_file
from apps.chemistry.baselines import JointKernel, predict_kernel_mix
from apps.chemistry.config import TrainConfig
from apps.chemistry.datasets import load_table, pocket
from apps.chemistry.predictor import Predictor
from apps.chemistry.train import read_table, run
from apps.chemistry.whole import run_folds, weigh, without_fold
from apps.lab.config import load_config

SMALL = ["model.d_hidden=32", "model.n_layer=2", "train.n_epoch=6", "data.target=pk",
         "data.split_column=split"]  # fmt: skip
FOUR_DECIMALS = 1e-4  # of the predictions file
FOUR_DIGITS = 6e-4  # of `predict`, values below 10
FLOAT32 = 1e-5


@pytest.fixture(scope="module")
def csv_file(tmp_path_factory):
    """240 + 60 molecules of which a tenth of the former becomes the valid part; cliffs marked."""
    file = tmp_path_factory.mktemp("data") / "small.csv"
    rows = list(csv.DictReader(pocket.generate(216, 24, 60).csv_text().splitlines()))
    for i, row in enumerate(rows):
        row["split"] = "test" if row["split"] == "test" else "train"
        row["cliff_mol"] = str(int(i % 3 == 0))
    with file.open("w", newline="") as text:
        writer = csv.DictWriter(text, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return file


def config(csv_file, *more):
    return load_config(TrainConfig, overrides=[f"data.source={csv_file}", *SMALL, *more])


@pytest.fixture(scope="module")
def finished(csv_file, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "a"
    return out, run(config(csv_file), out=out, seed=0, device="cpu")


def test_what_is_usual_depends_on_the_data_and_gives_way_to_what_is_given(csv_file):
    one = config(csv_file)
    assert (one.has_kernel, one.model.n_member, one.train.pick) == (True, 5, "last")
    assert (one.train.batch_size, one.train.n_epoch) == (32, 6)
    several = config(csv_file, f'data.more=["{csv_file}"]', "train.weight_decay=0.2")
    assert (several.train.batch_size, several.train.weight_decay) == (64, 0.2)
    assert several.model.d_hidden == 32
    assert load_config(TrainConfig, overrides=["kernel=on"]).model.n_member == 5
    plain = TrainConfig()
    assert (plain.has_kernel, plain.model.n_member, plain.train.pick) == (False, 1, "valid")
    # what was written is read back as it is
    assert TrainConfig.model_validate(several.model_dump(mode="json")) == several


def test_folds_leave_the_test_part_alone_and_the_valid_part_is_the_first(csv_file):
    settings = config(csv_file)
    table = read_table(settings, 0)
    fold = run_folds(settings, table, 0)
    assert (fold[table.split == "test"] == -1).all()
    assert (fold[table.split == "valid"] == 0).all()
    assert np.ptp(np.bincount(fold[table.split == "train"])[1:]) <= 1
    assert fold.max() == 4
    seen = without_fold(table, fold, 2)
    assert (seen.split[fold == 2] == "valid").all()
    assert (seen.split[(fold >= 0) & (fold != 2)] == "train").all()
    assert run_folds(config(csv_file, "kernel=off"), table, 0) is None


def test_kernel_member_is_the_mix_of_the_baselines_and_is_deployed_as_it_was_fitted(csv_file):
    settings = config(csv_file)
    table = read_table(settings, 0)
    fold = run_folds(settings, table, 0)
    found = JointKernel.of(table).fit(table, fold, n_fold=5, seed=0)
    mix = predict_kernel_mix(table, parts=("train", "valid"), seed=0)["kernel_mix"]
    np.testing.assert_allclose(found.whole, mix, atol=FLOAT32 * 100)
    from apps.chemistry.molecules import mol_from_smiles

    mols = [mol_from_smiles(text) for text in table.smiles]
    np.testing.assert_allclose(found.member.predict(mols), found.whole, atol=FLOAT32 * 100)
    # by hand: the valid part is predicted by a fit to the train part (C and noise of the whole)
    alone = predict_kernel_mix(table, parts=("train",), seed=0)["kernel_mix"]
    valid = table.split == "valid"
    assert np.abs(found.held_out[valid] - alone[valid]).max() < 0.15
    assert np.abs(found.whole[valid] - alone[valid]).max() > 0.15  # the whole has seen them


def test_values_of_the_test_part_are_never_read(csv_file):
    settings = config(csv_file)
    table = read_table(settings, 0)
    fold = run_folds(settings, table, 0)
    each = np.random.default_rng(0).standard_normal((5, len(table), 1)).astype(np.float32)
    changed = table.target.copy()
    changed[table.split == "test"] = 99.0
    other = replace(table, target=changed)
    assert (run_folds(settings, other, 0) == fold).all()
    (member, answers), (again, same) = (
        weigh(t, fold, JointKernel.of(t), each, seed=0) for t in (table, other)
    )
    np.testing.assert_array_equal(member.weight, again.weight)
    np.testing.assert_array_equal(answers.whole, same.whole)
    # and the answers at valid rows are those of the first network, which has not seen them
    valid = table.split == "valid"
    np.testing.assert_array_equal(answers.graph[valid], each[0][valid])
    np.testing.assert_allclose(answers.graph[~valid], each.mean(axis=0)[~valid], atol=FLOAT32)
    assert answers.kernel_share == 1.0  # noise has no weight


def test_record_has_the_whole_answer_and_its_members(finished):
    out, record = finished
    members = {"graph", "network", "kernel", *(f"graph-{i}" for i in range(5))}
    assert set(record.members) == members
    for scores in (record.accuracy, record.members["graph"], record.members["kernel"]):
        assert {"rmse", "rmse_cliff"} <= set(scores["test"])
    assert record.accuracy != record.members["kernel"]
    assert record.accuracy["test"]["rmse"] < 1.02 * record.members["kernel"]["test"]["rmse"]
    assert "valid" in record.members["graph"]
    assert all("valid" not in scores for scores in record.baselines.values())
    assert record.members["network"]["test"] != record.members["graph"]["test"]
    assert "valid" not in record.members["network"]
    predictor = Predictor.load(out)
    assert len(predictor.processes) == 5
    share = predictor.kernel_share
    assert 0 < share <= 1
    assert np.isfinite(predictor.reference.interval).all()


def test_predict_gives_the_whole_answer_that_was_judged(finished, csv_file, tmp_path):
    out, _ = finished
    predictor = Predictor.load(out)
    predict_file(predictor, csv_file, tmp_path / "answers.csv")
    with (tmp_path / "answers.csv").open() as text:
        found = [(row["smiles"], float(row["predicted_pk"])) for row in csv.DictReader(text)]
    with (out / "predictions.csv").open() as text:
        for row in csv.DictReader(text):
            smiles, value = found[int(row["row"]) - 2]  # the header is row 1
            assert value == pytest.approx(
                float(row["predicted_pk"]), abs=FOUR_DECIMALS + FOUR_DIGITS
            )
    told = explain(predictor, smiles)
    assert told.prediction == pytest.approx(value, abs=FOUR_DIGITS)
    assert told.share.sum() == pytest.approx(told.prediction - told.baseline, abs=FLOAT32 * 100)
    again = Predictor.load(predictor.save(tmp_path / "copy.safetensors"))
    assert again.kernel_share == predictor.kernel_share
    np.testing.assert_array_equal(again.kernel.weight, predictor.kernel.weight)
    assert again.kernel.smiles == predictor.kernel.smiles


def test_several_files_are_one_run_with_a_line_for_each(csv_file, tmp_path):
    other = tmp_path / "other.csv"
    other.write_text(csv_file.read_text())
    record = run(
        config(csv_file, f'data.more=["{other}"]', "model.n_member=2", "train.n_epoch=2"),
        out=tmp_path / "run",
        seed=0,
        device="cpu",
    )
    for scores in (record.accuracy, record.members["graph"], record.members["kernel"]):
        test = scores["test"]
        for kind in ("rmse", "rmse_cliff"):
            each = [test[f"{kind}_{name}.csv"] for name in ("small", "other")]
            assert test[kind] == pytest.approx(sum(each) / 2)
    table = load_table(str(other), target="pk", split_column="split")
    assert record.data.n_test == 2 * int((table.split == "test").sum())
