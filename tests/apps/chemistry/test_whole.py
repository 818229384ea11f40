import csv
from dataclasses import replace

import numpy as np
import pytest

from apps.chemistry.answers import explain, predict_file
from apps.chemistry.baselines import JointKernel, predict_kernel_mix
from apps.chemistry.config import TrainConfig
from apps.chemistry.datasets import load_table, pocket
from apps.chemistry.molecules import mol_from_smiles
from apps.chemistry.predictor import Predictor
from apps.chemistry.train import read_table, run
from apps.chemistry.whole import run_folds, weigh, without_fold
from apps.lab.checkpoint import load_checkpoint, save_checkpoint
from apps.lab.config import load_config
from core.errors import DataError

SMALL = ["model.d_hidden=32", "model.n_layer=2", "train.n_epoch=6", "data.target=pk",
         "data.split_column=split"]  # fmt: skip
FOUR_DECIMALS = 1e-4  # of the predictions file
FOUR_DIGITS = 6e-4  # of `predict`, values below 10
FLOAT32 = 1e-5
HIDDEN = 0.7  # pK units, spread of what no structure shows


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
    joint = JointKernel.of(table)
    found = joint.fit(table, fold, n_fold=5, seed=0)
    mix = predict_kernel_mix(table, parts=("train", "valid"), seed=0)["kernel_mix"]
    np.testing.assert_allclose(found.whole, mix, atol=FLOAT32 * 100)
    mols = [mol_from_smiles(text) for text in table.smiles]
    told = joint.member({"kernel": found}).predict(mols)["kernel"]
    np.testing.assert_allclose(told, found.whole, atol=FLOAT32 * 100)
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
    np.testing.assert_array_equal(member.parts["kernel"].weight, again.parts["kernel"].weight)
    np.testing.assert_array_equal(answers.whole, same.whole)
    # and the answers at valid rows are those of the first network, which has not seen them
    valid = table.split == "valid"
    np.testing.assert_array_equal(answers.graph[valid], each[0][valid])
    np.testing.assert_allclose(answers.graph[~valid], each.mean(axis=0)[~valid], atol=FLOAT32)
    assert answers.kernel_share == {"kernel": 1.0}  # noise has no weight


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
    (share,) = predictor.kernel_share.values()
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
    assert again.kernel.parts.keys() == {"kernel"}
    np.testing.assert_array_equal(
        again.kernel.parts["kernel"].weight, predictor.kernel.parts["kernel"].weight
    )
    assert again.kernel.smiles == predictor.kernel.smiles


@pytest.fixture(scope="module")
def two_files(csv_file, tmp_path_factory):
    """The molecules measured twice, each half of the test part in one file trains in the other.

    Both values share a part that no structure shows, of spread `HIDDEN`.
    """
    rows = list(csv.DictReader(csv_file.read_text().splitlines()))
    hidden = HIDDEN * np.random.default_rng(0).standard_normal(len(rows))
    files = []
    for i in range(2):
        file = tmp_path_factory.mktemp("two") / f"set{i}.csv"
        with file.open("w", newline="") as text:
            writer = csv.DictWriter(text, ["smiles", "pk", "split"])
            writer.writeheader()
            for k, (row, more) in enumerate(zip(rows, hidden, strict=True)):
                split = row["split"] if k % 2 == i else "train"
                pk = float(row["pk"]) + more - i
                writer.writerow({"smiles": row["smiles"], "pk": f"{pk:.4f}", "split": split})
        files.append(file)
    return files


def config_of_two(two_files, *more):
    first, second = two_files
    quick = ["model.n_member=3", "train.n_epoch=2", f'data.more=["{second}"]']
    return config(first, *quick, *more)


@pytest.fixture(scope="module")
def finished_two(two_files, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "two"
    return out, run(config_of_two(two_files), out=out, seed=0, device="cpu")


def test_several_files_are_one_run_with_a_line_for_each(finished_two, two_files):
    _, record = finished_two
    members = {"graph", "network", "kernel", "joint", *(f"graph-{i}" for i in range(3))}
    assert set(record.members) == members
    for scores in (record.accuracy, *(record.members[k] for k in ("graph", "kernel", "joint"))):
        test = scores["test"]
        each = [test[f"rmse_set{i}.csv"] for i in range(2)]
        assert test["rmse"] == pytest.approx(sum(each) / 2)
    tables = [load_table(str(file), target="pk", split_column="split") for file in two_files]
    assert record.data.n_test == sum(int((table.split == "test").sum()) for table in tables)


def test_joint_kernel_brings_along_what_another_set_knows_of_a_molecule(finished_two):
    out, record = finished_two
    test = {name: scores["test"]["rmse"] for name, scores in record.members.items()}
    # .71 and 1.44, graph .89, the whole .70: the other file knows what no structure shows
    assert test["joint"] < 0.6 * test["kernel"]
    assert record.accuracy["test"]["rmse"] < min(0.6 * test["kernel"], 1.05 * test["joint"])
    share = Predictor.load(out).kernel_share
    assert share["joint"] > share["kernel"]


def test_loaded_model_of_several_files_gives_the_answer_that_was_judged(
    finished_two, two_files, tmp_path
):
    out, record = finished_two
    predictor = Predictor.load(out)
    table = read_table(config_of_two(two_files), 0).select("test")
    mols = [mol_from_smiles(text) for text in table.smiles]
    graph = predictor.predict(table.graphs)
    whole = predictor.answer(mols, graph)
    with (out / "predictions.csv").open() as text:
        rows = [[float(row[f"predicted_set{i}.csv"]) for i in range(2)]
                for row in csv.DictReader(text)]  # fmt: skip
    np.testing.assert_allclose(whole, rows, atol=FOUR_DECIMALS)
    share = predictor.kernel_share
    told = predictor.kernel.predict(mols)
    rest = 1.0 - share["kernel"] - share["joint"]
    by_hand = share["kernel"] * told["kernel"] + share["joint"] * told["joint"] + rest * graph
    np.testing.assert_allclose(whole, by_hand, atol=FLOAT32)
    again = Predictor.load(predictor.save(tmp_path / "copy.safetensors"))
    np.testing.assert_array_equal(again.answer(mols, graph), whole)
    told = explain(predictor, table.smiles[0], task=1)
    assert told.prediction == pytest.approx(whole[0, 1], abs=FLOAT32 * 10)
    half = predictor.reference.half_width(predictor.reference.nearest(mols).own)
    known = np.isfinite(table.exact)
    inside = (np.abs(whole - table.exact) <= half)[known].mean()
    assert inside == record.accuracy["test"]["interval_coverage"]
    assert 0.65 < inside < 0.95  # 60 rows, sd .05 about .8


def test_what_the_joint_kernel_says_of_the_valid_part_does_not_know_its_values(two_files):
    settings = config_of_two(two_files)
    table = read_table(settings, 0)
    fold = run_folds(settings, table, 0)
    each = np.random.default_rng(0).standard_normal((3, len(table), 2)).astype(np.float32)
    valid, judged = table.split == "valid", table.split == "test"
    changed = table.target.copy()
    changed[valid] += 3.0
    changed[judged] = 99.0
    (member, answers), (again, others) = (
        weigh(t, fold, JointKernel.of(t), each, seed=0)
        for t in (table, replace(table, target=changed))
    )
    joint, other = answers.kernel["joint"], others.kernel["joint"]
    np.testing.assert_array_equal(joint[valid], other[valid])
    assert (joint[~valid] != other[~valid]).any()  # what is deployed has learnt from them
    assert (member.parts["joint"].weight != again.parts["joint"].weight).any()


def test_run_of_several_files_killed_among_its_kernels_resumes_to_the_same_bits(
    finished_two, two_files, tmp_path, monkeypatch
):
    whole, record = finished_two
    real = JointKernel.heeding

    def dies(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(JointKernel, "heeding", dies)
    out, settings = tmp_path / "run", config_of_two(two_files)
    with pytest.raises(KeyboardInterrupt):
        run(settings, out=out, seed=0, device="cpu")
    assert not (out / "model.safetensors").exists()
    monkeypatch.setattr(JointKernel, "heeding", real)
    resumed = run(settings, out=out, seed=0, device="cpu", resume=True)
    assert resumed.members == record.members
    assert resumed.accuracy == record.accuracy
    (ours, meta), (theirs, other_meta) = (
        load_checkpoint(folder / "model.safetensors") for folder in (out, whole)
    )
    assert meta == other_meta
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        np.testing.assert_array_equal(tensor, theirs[name], err_msg=name)


def test_files_of_one_set_are_as_they_were_and_damaged_kernels_are_refused(
    finished, finished_two, tmp_path
):
    tensors, meta = load_checkpoint(finished[0] / "model.safetensors")
    assert {k for k in tensors if k.startswith("kernel.")} == {
        "kernel.smiles", "kernel.weight", "kernel.offset",
    }  # fmt: skip
    share = meta["kernel_share"]["kernel"]
    # of a version that knew one kernel
    old = save_checkpoint(tmp_path / "old.safetensors", tensors, meta | {"kernel_share": share})
    assert Predictor.load(old).kernel_share == {"kernel": share}
    tensors, meta = load_checkpoint(finished_two[0] / "model.safetensors")
    one = meta | {"kernel_share": {"kernel": 1.0}}
    path = save_checkpoint(tmp_path / "share.safetensors", tensors, one)
    with pytest.raises(DataError, match=r"weights of the kernels \['kernel'\] for \['joint', 'k"):
        Predictor.load(path)
    for name in ("kernel.joint.weight", "kernel.joint.fellows_said", "kernel.smiles"):
        cut = tensors | {name: tensors[name][:-1] if name != "kernel.smiles" else tensors[name][:3]}
        path = save_checkpoint(tmp_path / "cut.safetensors", cut, meta)
        with pytest.raises(DataError, match="train the model again"):
            Predictor.load(path)
