"""Pruning a trained network: what it starts from, what it ends at, what it refuses."""

import numpy as np
import pytest
import torch

from apps.chemistry.compress import (
    COUNT_WEIGHT,
    SMALL,
    _adopt,
    _taught,
    compress,
    compress_run,
    imitation_loss,
)
from apps.chemistry.config import TrainConfig
from apps.chemistry.datasets import load_table
from apps.chemistry.fitting import fit_network
from apps.chemistry.network import pack
from apps.chemistry.predictor import Predictor, build_network
from apps.lab.config import load_config
from apps.lab.variant import Variant
from core.errors import ConfigError, DataError
from core.sparse import BlockSparseLinear

FLOAT32 = 1e-4  # float32 sums of some hundred products of order one, in another order


@pytest.fixture(scope="module")
def small_run():
    config = load_config(
        TrainConfig, overrides=["model.d_hidden=32", "model.n_layer=2", "train.n_epoch=4"]
    )
    table = load_table("pocket")
    rows = np.concatenate(
        [np.nonzero(table.split == p)[0][:120] for p in ("train", "valid", "test")]
    )
    table = table.take(rows)
    model = build_network(config, n_task=1, seed=0)
    model.set_scale(table.select("train").target)
    fit_network(model, table, config.train, 0)
    return Predictor(config, ["pk"], table.unit, [0], [model.eval()]), table


def test_before_pruning_the_answers_are_those_of_the_dense_network(small_run):
    dense, table = small_run
    config = dense.config.model_copy(
        update={
            "variant": Variant(density=0.5, block=16),
            "train": dense.config.train.model_copy(update={"method": "prune"}),
        }
    )
    model = build_network(config, n_task=1, seed=1)
    with torch.no_grad():
        _adopt(model, dense.members[0])
    copy = Predictor(config, ["pk"], table.unit, [0], [model.eval()])
    np.testing.assert_allclose(
        copy.predict(table.graphs), dense.predict(table.graphs), atol=FLOAT32
    )


def test_ends_at_the_density_and_close_to_the_dense_network(small_run):
    dense, table = small_run
    half = Variant(density=0.5, block=16, weight_format="int8")
    answer = compress(dense, table, variant=half, n_epoch=40)
    # 32 wide layers have four or more blocks; rounding to whole blocks moves the share
    assert 0.4 < answer.weight_share < 0.6
    (rank,) = answer.rank_correlation
    assert rank > 0.8
    kept = answer.document()
    assert kept["rank_correlation"] == [pytest.approx(rank, abs=1e-4)]
    assert kept["dense"]["rmse"] == pytest.approx(answer.scores_before["rmse"], abs=1e-4)
    assert "rank correlation of the predictions" in str(answer)
    assert "int8" in answer.predictor.config.variant.name


def test_a_copy_has_nothing_to_learn_and_each_distance_counts(small_run):
    dense, table = small_run
    original, copy = (build_network(dense.config, n_task=1, seed=1).eval() for _ in range(2))
    with torch.no_grad():
        for model in (original, copy):
            model.load_state_dict(dense.members[0].state_dict())
            model.out.weight.zero_()  # answers are the last bias, whatever is counted
        batch = pack(table.graphs[:20])
        batch = batch._replace(y=original.predict(batch), y_weight=torch.ones(20, 1))
        assert float(imitation_loss(copy, original, batch)) < FLOAT32**2
        copy.out.bias += 0.5
        assert float(imitation_loss(copy, original, batch)) == pytest.approx(0.25, rel=FLOAT32)
        copy.out.bias -= 0.5
        for detect in copy.readout.detect:  # doubles all counts
            detect.weight *= 2.0
            detect.bias *= 2.0
        found = imitation_loss(copy, original, batch)
        assert float(found) == pytest.approx(COUNT_WEIGHT * 0.5, rel=FLOAT32)
        for model in (original, copy):  # nothing is counted: they are alike
            for detect in model.readout.detect:
                detect.weight.zero_()
                detect.bias.fill_(-1.0)
        assert float(imitation_loss(copy, original, batch)) < FLOAT32**2


def test_where_processes_answer_the_counts_are_learned(small_run):
    dense, table = small_run
    half = Variant(density=0.5, block=16)
    known = np.log1p(dense.run_networks(table.graphs)[1][0])
    distance = []
    for on in (False, True):
        small = compress(dense, table, variant=half, n_epoch=10, process=on).predictor
        distance.append(np.abs(np.log1p(small.run_networks(table.graphs)[1][0]) - known).mean())
    assert distance[1] < 0.8 * distance[0]


def test_each_molecule_is_taught_once_and_none_of_the_test_part(small_run):
    dense, table = small_run
    rows = np.r_[np.arange(len(table)), np.nonzero(table.split == "train")[0]]
    taught = _taught(dense, table.take(rows))
    part = {p: set(table.select(p).smiles) for p in ("train", "valid")}
    assert {p: sorted(taught.select(p).smiles) for p in part} == {
        p: sorted(names) for p, names in part.items()
    }
    assert "test" not in taught.split
    np.testing.assert_allclose(taught.target, dense.predict(taught.graphs), atol=FLOAT32)


@pytest.mark.parametrize(("name", "least"), [("bf16", 0.999), ("int8", 0.999), ("int4", 0.9)])
def test_weights_alone_are_rounded_without_training(small_run, name, least):
    dense, table = small_run
    rounded = compress(dense, table, variant=Variant(weight_format=name), n_epoch=0)
    (rank,) = rounded.rank_correlation
    assert least < rank < 1.0
    assert rounded.weight_share == 1.0
    assert rounded.document()["n_epoch"] == 0


def test_dense_weights_are_trained_while_rounded(small_run):
    dense, table = small_run
    answer = compress(dense, table, variant=Variant(weight_format="int4"), n_epoch=20)
    assert answer.rank_correlation[0] > 0.6  # a teacher of four epochs: little to agree on
    assert answer.predictor.config.variant.name == "dense-int4"
    assert answer.document()["n_epoch"] == 20


def test_refuses_what_cannot_be(small_run):
    dense, table = small_run
    with pytest.raises(ConfigError, match="expected a dense run and a smaller variant"):
        compress(dense, table, variant=Variant())
    with pytest.raises(ConfigError, match="needs epochs"):
        compress(dense, table, n_epoch=0)
    assert SMALL.density == 0.1


def test_the_run_that_is_compressed_is_not_written_over(small_run, tmp_path):
    dense, _ = small_run
    before = dense.save(tmp_path / "run" / "model.safetensors").read_bytes()
    for source in (tmp_path / "run", tmp_path / "run" / "model.safetensors"):
        with pytest.raises(DataError, match="holds the model to compress; choose another folder"):
            compress_run(source, tmp_path / "run")
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == before


def test_narrow_layers_keep_a_larger_share_and_all_together_the_density(small_run):
    dense, table = small_run
    answer = compress(dense, table, variant=Variant(density=0.5, block=16), n_epoch=2)
    layers = {
        name: m.pattern.density
        for name, m in answer.predictor.members[0].named_modules()
        if isinstance(m, BlockSparseLinear)
    }
    assert layers["layers.0.first"] > layers["head"]
    assert answer.weight_share == pytest.approx(0.5, abs=0.05)  # whole blocks of few


def test_processes_are_fitted_anew_to_what_the_smaller_network_counts(small_run):
    dense, table = small_run
    int4 = Variant(weight_format="int4")
    layers, processes = (
        compress(dense, table, variant=int4, n_epoch=0, process=on) for on in (False, True)
    )
    assert layers.last_layers is None
    assert processes.last_layers.scores == layers.scores
    assert processes.document()["last_layers"] == layers.document()
    assert str(layers) in str(processes)
    (own,) = processes.predictor.processes
    (count,) = processes.predictor.run_networks(table.graphs)[1]
    learned = {s for s, part in zip(table.smiles, table.split, strict=True) if part == "train"}
    assert len(own.count) == len(learned)
    rows = table.split == "test"
    said = processes.predictor.predict(table.graphs)
    np.testing.assert_allclose(said, own.predict(count), atol=FLOAT32)
    error = np.sqrt(np.mean((said - table.target)[rows] ** 2))
    assert processes.scores["rmse"] == pytest.approx(error, abs=FLOAT32)
    # a network of four epochs: what it counts says more than what its last layers make of it
    assert processes.scores["rmse"] < layers.scores["rmse"]
