"""The whole affinity benchmark on pairs whose values follow from structure and sequence."""

import numpy as np
import pytest

from apps.chemistry.affinity import (
    AffinityConfig,
    affinity_summary,
    network,
    run,
    run_affinity,
    stack,
)
from apps.chemistry.affinity.pairs import PairTable
from apps.lab.record import read_record

NOISE = 0.1


@pytest.fixture
def made(monkeypatch):
    """Chains of carbon, oxygen and nitrogen by sequences of two families; floor at 5."""
    rng = np.random.default_rng(0)
    smiles = ["C" * n + end for n in range(1, 9) for end in ("O", "N", "F", "Cl")]
    letters = np.array(list("ADEFGHIKLMNPQRSTVWY"))
    family = rng.choice(letters, size=(2, 60))
    sequence = []
    for i in range(16):
        text = family[i % 2].copy()
        text[rng.integers(60, size=6)] = rng.choice(letters, size=6)
        sequence.append("".join(text))
    size = np.repeat(np.arange(8), 4)[:, None] / 3.0
    kind = np.tile([1.0, -1.0, 0.5, -0.5], 8)[:, None] * np.array([1.0, -1.0])[np.arange(16) % 2]
    value = np.maximum(5.0, 6.0 + kind + size + rng.normal(0, NOISE, size=kind.shape))
    fold = rng.integers(6, size=value.shape).astype(np.int8)
    names = [f"t{i}" for i in range(16)]
    table = PairTable(
        "davis", "file", "0" * 64, "pKd", smiles, names, sequence, value, fold, 5.0, 7.0
    )
    monkeypatch.setattr(run, "read_pairs", lambda name: table)
    monkeypatch.setattr(stack, "_N_TREE", 20)
    return table


@pytest.mark.parametrize("split", ["warm", "cold-target"])
def test_whole_answer_beats_main_effects_and_is_kept(made, tmp_path, split):
    config = AffinityConfig(split=split)
    records = run_affinity(config, out=tmp_path, seeds=[0])
    test = records[0].accuracy["test"]
    simple = records[0].baselines["main_effects"]["test"]
    assert test["mse"] < 0.3 * simple["mse"]
    assert test["ci"] > 0.9
    assert sum(v for k, v in test.items() if k.startswith("weight_")) == pytest.approx(1.0)
    assert read_record(tmp_path / f"davis-{split}" / "seed-0") == records[0]
    assert run_affinity(config, out=tmp_path, seeds=[0]) == records  # kept, not run again
    text = affinity_summary(records)
    assert "main_effects" in text
    assert ("deepdta" in text) == (split == "warm")


def test_same_seed_same_bits(made, tmp_path):
    first, second = (
        run_affinity(AffinityConfig(), out=tmp_path / name, seeds=[0])[0].accuracy for name in "ab"
    )
    assert first == second


def test_the_network_stands_beside_the_kernels_and_helps_or_stays_out(made, tmp_path, monkeypatch):
    monkeypatch.setattr(network, "N_EPOCH", 2)  # learns next to nothing
    record = run_affinity(AffinityConfig(network=True), out=tmp_path, seeds=[0])[0]
    plain = run_affinity(AffinityConfig(), out=tmp_path / "plain", seeds=[0])[0]
    assert {"network", "with_network", "kernels_alone"} <= record.members.keys()
    alone = record.members["kernels_alone"]["test"]["mse"]
    assert alone == plain.accuracy["test"]["mse"]
    with_network = record.members["with_network"]["test"]["mse"]
    assert record.accuracy["test"]["mse"] in (alone, with_network)
    assert record.accuracy["test"]["weight_network"] < 0.3
