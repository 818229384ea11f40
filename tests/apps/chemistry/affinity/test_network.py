"""The network of pairs: what it reads, that it learns, and that no held value reaches it."""

import numpy as np
import pytest
import torch

from apps.chemistry.affinity import network
from apps.chemistry.affinity.network import WINDOW, PairNetwork, Residues, network_answer
from apps.chemistry.affinity.pairs import PairTable
from apps.chemistry.molecules import featurise

SEQUENCES = ["MKVLAAGHWYWRRST", "GGSSKK", "MKVLAAGHWYWRRSTDEDEXB"]
ORDER = 2e-5  # float32 sums of some hundred terms of order one, in another order


@pytest.fixture
def pairs():
    """Six chains by eight proteins of two families: the sign of the slope is the family's."""
    rng = np.random.default_rng(0)
    smiles = ["C" * n + end for n in range(2, 8) for end in ("O", "N", "Cl")]
    family = ["WWKKRRDDEE" * 4, "GGAASSTTVV" * 4]
    sequence = [family[i % 2][: 30 + i] for i in range(8)]
    kind = np.tile([1.0, 0.0, -1.0], 6)[:, None] * np.array([1.0, -1.0])[np.arange(8) % 2]
    value = 6.0 + kind + rng.normal(0, 0.05, size=kind.shape)
    fold = np.zeros(value.shape, dtype=np.int8)
    names = [f"t{i}" for i in range(8)]
    return PairTable("davis", "file", "0" * 64, "pKd", smiles, names, sequence, value, fold,
                     5.0, 7.0)  # fmt: skip


def test_no_window_spans_two_proteins_and_neighbours_do_not_matter():
    model = PairNetwork(seed=0).eval()
    with torch.no_grad():
        together = model.protein(Residues.of(SEQUENCES))
        alone = torch.cat([model.protein(Residues.of([text])) for text in SEQUENCES])
    torch.testing.assert_close(together, alone, rtol=ORDER, atol=ORDER)
    proteins = Residues.of(SEQUENCES)
    assert len(proteins.code) == len(proteins.protein) + WINDOW - 1


def test_a_grid_is_what_its_pairs_are_alone():
    model = PairNetwork(seed=1).eval()
    graphs = [featurise(s) for s in ("CCO", "c1ccccc1N", "CC(=O)O")]
    grid = model.predict(graphs, SEQUENCES)
    assert grid.shape == (3, 3)
    one = model.predict(graphs[1:2], SEQUENCES[2:])
    assert grid[1, 2] == pytest.approx(one[0, 0], abs=ORDER)


def test_learns_which_drug_goes_with_which_family(pairs, monkeypatch):
    monkeypatch.setattr(network, "N_EPOCH", 150)
    train = np.ones(pairs.value.shape, dtype=bool)
    train[:, 6:] = False  # one sequence of either family is never seen
    answer = network_answer(pairs, train, seed=0)
    held = pairs.value[:, 6:]
    assert np.mean((answer[:, 6:] - held) ** 2) < 0.2 * held.var()


def test_held_values_are_never_read(pairs, monkeypatch):
    monkeypatch.setattr(network, "N_EPOCH", 2)
    train = np.random.default_rng(1).random(pairs.value.shape) < 0.6
    first = network_answer(pairs, train, seed=0)
    pairs.value[~train] += 100.0
    np.testing.assert_array_equal(first, network_answer(pairs, train, seed=0))


def test_entries_of_one_sequence_get_one_answer(pairs, monkeypatch):
    monkeypatch.setattr(network, "N_EPOCH", 1)
    pairs.sequence[3] = pairs.sequence[1]
    answer = network_answer(pairs, np.ones(pairs.value.shape, dtype=bool), seed=0)
    np.testing.assert_array_equal(answer[:, 1], answer[:, 3])
