import csv
import functools
import itertools
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from apps.chemistry import fitting
from apps.chemistry.config import TrainConfig
from apps.chemistry.datasets import pocket
from apps.chemistry.predictor import Predictor
from apps.chemistry.train import cost_run, run
from apps.lab.checkpoint import load_checkpoint, save_checkpoint
from apps.lab.config import load_config
from apps.lab.fit import fit
from apps.lab.record import read_record
from core.errors import ConfigError, DataError

SMALL = [
    "model.d_hidden=32",
    "model.n_layer=3",
    "train.n_epoch=12",
    "data.target=pk",
    "kernel=off",
]
# Predictions stand in the file with four decimals, measured values too: the error of one row is
# off by at most 1e-4, so is the root of the mean square.
FOUR_DECIMALS = 1e-4


@pytest.fixture(scope="module")
def csv_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("data") / "small.csv"
    file.write_text(pocket.generate(240, 40, 60).csv_text())
    return file


def config(csv_file, *more):
    source = [f"data.source={csv_file}", "data.split_column=split"]
    return load_config(TrainConfig, overrides=[*source, *SMALL, *more])


@pytest.fixture(scope="module")
def finished(csv_file, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "a"
    return out, run(config(csv_file), out=out, seed=1, device="cpu")


def assert_same_model(a, b):
    (tensors, meta), (other_tensors, other_meta) = load_checkpoint(a), load_checkpoint(b)
    assert meta == other_meta
    assert tensors.keys() == other_tensors.keys()
    assert all(torch.equal(tensors[name], other_tensors[name]) for name in tensors)


def test_record_is_complete_and_written(finished):
    out, record = finished
    assert read_record(out) == record
    assert (record.application, record.variant, record.seed) == ("chemistry", "dense-fp32", 1)
    assert (record.data.n_train, record.data.n_valid, record.data.n_test) == (240, 40, 60)
    assert record.data.source == "file"
    assert set(record.accuracy) == {"train", "valid", "test"}
    assert {"rmse", "mae", "r2", "spearman"} <= set(record.accuracy["test"])
    assert 0.5 < record.accuracy["test"]["interval_coverage"] < 1.0  # 60 rows, sd .05 about .8
    assert record.members["graph"] == record.accuracy
    assert {"train_mean", "nearest_neighbour", "random_forest", "svm_ecfp4"} == set(
        record.baselines
    )
    phases = [(entry.machine, entry.phase) for entry in record.cost]
    machines = {machine for machine, _ in phases}
    assert {"ipu_gc200", "ipu_bow", "a100", "tpu_v3"} <= machines
    assert sorted(phases) == sorted(itertools.product(machines, ["train_step", "inference"]))
    by = {(entry.machine, entry.phase): entry for entry in record.cost}
    for machine in machines:
        assert by[machine, "train_step"].time_s > 1.5 * by[machine, "inference"].time_s > 0
    assert len(record.history) == 12
    assert record.throughput.item == "molecule"
    assert record.throughput.train_item_per_s > 0
    assert record.throughput.infer_item_per_s > 0
    for figure in record.figures:
        assert (out / figure.file).read_text().startswith("<?xml")
        assert figure.wrong_if


def test_the_worst_test_molecule_is_drawn(finished):
    out, record = finished
    with (out / "predictions.csv").open() as text:
        rows = list(csv.DictReader(text))
    worst = max(rows, key=lambda r: abs(float(r["predicted_pk"]) - float(r["measured_pk"])))
    figures = {figure.file: figure for figure in record.figures}
    assert {"step.svg", "molecule-typical.svg", "molecule-worst.svg"} <= figures.keys()
    said = (
        f"predicted {float(worst['predicted_pk']):.2f}, measured {float(worst['measured_pk']):.2f}"
    )
    assert worst["smiles"] in figures["molecule-worst.svg"].caption
    assert said in figures["molecule-worst.svg"].caption


def test_beats_the_train_mean(finished):
    # 240 molecules, 12 epochs: .78 here against 1.24; a network that learns nothing has 1.24.
    _, record = finished
    assert record.accuracy["test"]["rmse"] < 0.8 * record.baselines["train_mean"]["test"]["rmse"]


def test_recorded_error_is_that_of_the_predictions_file(finished):
    out, record = finished
    with (out / "predictions.csv").open() as text:
        rows = list(csv.DictReader(text))
    assert len(rows) == record.data.n_test
    error = [float(r["predicted_pk"]) - float(r["measured_pk"]) for r in rows]
    rmse = np.sqrt(np.mean(np.square(error)))
    assert rmse == pytest.approx(record.accuracy["test"]["rmse"], abs=FOUR_DECIMALS)
    assert all(0 <= float(r["nearest_train_tanimoto"]) <= 1 for r in rows)
    numbers = [int(r["row"]) for r in rows]
    assert numbers == list(range(2 + 280, 2 + 340))  # the test part stands last in the file


def test_killed_and_resumed_run_equals_the_uninterrupted_one(
    csv_file, finished, tmp_path, monkeypatch
):
    whole, record = finished
    monkeypatch.setattr(fitting, "fit", functools.partial(fit, checkpoint_every_s=0.0))
    n_step = 240 // 32
    calls = itertools.count()
    real_pack = fitting.pack

    def dies(*args):
        if next(calls) == 5 * n_step + 3:  # in the sixth epoch
            raise KeyboardInterrupt
        return real_pack(*args)

    monkeypatch.setattr(fitting, "pack", dies)
    out = tmp_path / "b"
    with pytest.raises(KeyboardInterrupt):
        run(config(csv_file), out=out, seed=1, device="cpu")
    assert not (out / "record.json").exists()
    assert load_checkpoint(out / "checkpoint-0.safetensors")[1]["epoch"] in (4, 5)
    with pytest.raises(DataError, match="already holds a run; continue it with --resume"):
        run(config(csv_file), out=out, seed=1, device="cpu")
    resumed = run(config(csv_file), out=out, seed=1, device="cpu", resume=True)
    assert resumed.accuracy == record.accuracy
    assert resumed.history == record.history
    assert_same_model(out / "model.safetensors", whole / "model.safetensors")


def test_ensemble_of_sparse_int8_networks_on_two_tasks_with_missing_values(csv_file, tmp_path):
    with csv_file.open() as text:
        rows = list(csv.DictReader(text))[::2]
    for i, row in enumerate(rows):
        row["other"] = "" if i % 3 else f"{-float(row['pk']):.4f}"
        row["pk"] = "" if i % 3 == 0 and i % 2 else row["pk"]
    file = tmp_path / "two.csv"
    with file.open("w", newline="") as text:
        writer = csv.DictWriter(text, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    more = ['data.target=["pk", "other"]', "variant=sparse-16x16-75-int8", "model.n_member=2"]
    settings = config(csv_file, f"data.source={file}", *more, "train.n_epoch=3")
    record = run(settings, out=tmp_path / "run", seed=0, device="cpu")
    assert record.variant == "sparse-16x16-75-int8"
    assert {entry.variant for entry in record.cost} == {"sparse-16x16-75-int8"}
    assert set(record.members) == {"graph", "graph-0", "graph-1"}
    test = record.accuracy["test"]
    assert {"rmse_pk", "rmse_other"} <= set(test)
    assert test["rmse"] == pytest.approx((test["rmse_pk"] + test["rmse_other"]) / 2)
    assert np.isfinite([v for v in test.values() if v is not None]).all()
    assert record.members["graph-0"] != record.members["graph-1"]


def test_model_file_gives_the_same_bits(finished, csv_file):
    from apps.chemistry.molecules import featurise

    out, _ = finished
    predictor = Predictor.load(out)
    graphs = [featurise(s) for s in ("CCO", "c1ccccc1C(=O)N")]
    first = predictor.predict(graphs)
    assert first.shape == (2, 1)
    copy = out.parent / "copy.safetensors"
    predictor.save(copy)
    again = Predictor.load(copy)
    np.testing.assert_array_equal(again.predict(graphs), first)
    assert len(again.reference.smiles) == 240
    assert np.isfinite(again.reference.interval).all()
    assert_same_model(copy, out / "model.safetensors")


def test_damaged_and_foreign_model_files_are_refused(finished, tmp_path):
    out, _ = finished
    whole = (out / "model.safetensors").read_bytes()
    short = tmp_path / "short.safetensors"
    short.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cut short or damaged"):
        Predictor.load(short)
    with pytest.raises(DataError, match="there is no checkpoint"):
        Predictor.load(tmp_path / "nothing")
    tensors, meta = load_checkpoint(out / "model.safetensors")
    other = save_checkpoint(tmp_path / "o.safetensors", tensors, meta | {"n_feature": [7, 3]})
    with pytest.raises(DataError, match=r"trained on \[7, 3\] features per atom and bond"):
        Predictor.load(other)
    other = save_checkpoint(tmp_path / "p.safetensors", tensors, {"schema": "x"})
    with pytest.raises(DataError, match="is no chemistry model: schema 'x'"):
        Predictor.load(other)
    del tensors["0.out.weight"]
    other = save_checkpoint(tmp_path / "q.safetensors", tensors, meta)
    with pytest.raises(DataError, match="does not fit this version"):
        Predictor.load(other)


def test_cost_of_a_finished_run_is_the_recorded_cost(finished):
    out, record = finished
    entries = cost_run(out, machines=["ipu_bow"])
    assert entries == [entry for entry in record.cost if entry.machine == "ipu_bow"]


@pytest.mark.parametrize(
    ("overrides", "error", "match"),
    [
        (["train.learning_rat=1"], ConfigError, "unknown key 'learning_rat'.*'learning_rate'"),
        (["model.d_hidden=40"], ConfigError, "d_hidden.*multiple of 16"),
        (["variant=sparse"], ConfigError, "no variant is named 'sparse'"),
        (["data.split=scaffold"], ConfigError, "split"),
        (["data.target=pK"], DataError, "no column 'pK'; it has 'smiles'"),
        (["data.smiles=SMILES"], DataError, "no column 'SMILES'"),
    ],
)
def test_refuses(csv_file, tmp_path, overrides, error, match):
    with pytest.raises(error, match=match):
        run(config(csv_file, *overrides), out=tmp_path / "run", seed=0, device="cpu")
    assert not (tmp_path / "run" / "record.json").exists()


def test_refuses_a_single_training_row(tmp_path):
    file = tmp_path / "one.csv"
    file.write_text("smiles,pk,split\nCCO,5.0,train\nCCN,6.0,valid\nCCC,7.0,test\n")
    with pytest.raises(DataError, match="needs at least 2 rows, the train part has 1"):
        run(config(file), out=tmp_path / "run", seed=0, device="cpu")


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["dense-fp32", "dense-bf16", "sparse-16x16-75-int8"])
def test_pocket_error_is_within_half_again_of_its_noise(tmp_path, variant):
    settings = load_config(TrainConfig, overrides=[f"variant={variant}"])
    record = run(settings, out=tmp_path / "run", seed=0, device="cpu")
    test = record.accuracy["test"]
    assert pocket.NOISE_SD < test["rmse_r_group"] < 1.5 * pocket.NOISE_SD
    assert test["rmse"] < 0.5 * record.baselines["svm_ecfp4"]["test"]["rmse"]


@pytest.mark.slow
@pytest.mark.skipif(
    not (Path(os.environ.get("TESSERA_DATA_DIR", "-")) / "chemistry/bace/bace.csv").is_file(),
    reason="needs BACE in TESSERA_DATA_DIR",
)
def test_bace_error_is_within_a_tenth_of_the_svm(tmp_path):
    settings = load_config(TrainConfig, overrides=["data.source=bace"])
    errors = []
    for seed in range(3):
        record = run(settings, out=tmp_path / str(seed), seed=seed, device="cpu")
        errors.append(record.accuracy["test"]["rmse"])
    assert np.mean(errors) < 1.1 * record.baselines["svm_ecfp4"]["test"]["rmse"]


@pytest.mark.slow
@pytest.mark.skipif(
    not (
        Path(os.environ.get("TESSERA_DATA_DIR", "-")) / "chemistry/moleculeace/CHEMBL2835_Ki.csv"
    ).is_file(),
    reason="needs CHEMBL2835_Ki in TESSERA_DATA_DIR",
)
def test_graph_networks_alone_beat_the_fingerprints_on_one_measured_target(tmp_path):
    # Janus kinase 1 of MoleculeACE, the train part alone: two networks of seed 0 with processes on
    # their counts reached .370 (support vectors on ECFP4 .414, nearest neighbour .545). The margin
    # is twice the spread of single networks (.018) that a trial saw between folds.
    overrides = ["data.source=moleculeace/CHEMBL2835_Ki", "model.n_member=2", "model.process=true"]
    settings = load_config(TrainConfig, overrides=overrides)
    record = run(settings, out=tmp_path / "run", seed=0, device="cpu")
    error = record.accuracy["test"]["rmse"]
    assert error == pytest.approx(0.370, abs=0.036)
    assert error < record.baselines["svm_ecfp4"]["test"]["rmse"]
    assert error == record.members["graph"]["test"]["rmse"]
