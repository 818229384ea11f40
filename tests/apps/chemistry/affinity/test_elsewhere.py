"""Another set's answer about a table's pairs: by its values, without the table's own drugs."""

from dataclasses import replace

import numpy as np
import pytest

from apps.chemistry.affinity import AffinityConfig, run, run_affinity
from apps.chemistry.affinity.elsewhere import elsewhere_answers
from apps.chemistry.affinity.pairs import PairTable
from core.errors import DataError

ENDS = {"O": 1.0, "N": -1.0, "F": 0.5, "Cl": -0.5}


def made(name, lengths, unit, seed):
    """Chains by two families of proteins; which family a chain prefers is told by its end."""
    rng = np.random.default_rng(seed)
    smiles = ["C" * n + end for n in lengths for end in ENDS]
    rows = np.array([sign for _ in lengths for sign in ENDS.values()])[:, None]
    family = np.array([1.0, -1.0] * 6)
    letters = np.array(list("ADEFGHIKLMNPQRSTVWY"))
    texts = np.random.default_rng(7).choice(letters, size=(2, 60))
    sequence = ["".join(texts[i % 2]) + letters[i] for i in range(12)]
    value = unit * (6.0 + rows * family + rng.normal(0, 0.2, size=(len(smiles), 12)))
    fold = rng.integers(6, size=value.shape).astype(np.int8)
    names = [f"t{i}" for i in range(12)]
    return PairTable(
        name, "file", "0" * 64, "pKd", smiles, names, sequence, value, fold, None, 7.0 * unit
    )


@pytest.fixture
def tables():
    return made("davis", range(3, 6), 1.0, 0), made("kiba", range(2, 12), 2.0, 1)


def test_the_answer_follows_the_other_sets_values_in_its_unit(tables):
    table, other = tables
    answer = elsewhere_answers(table, other)
    assert answer.shape == table.value.shape
    assert np.corrcoef(answer.ravel(), table.value.ravel())[0, 1] > 0.8
    assert abs(answer.mean() - other.value.mean()) < 0.5


def test_a_drug_that_stands_in_both_has_no_part_in_it(tables):
    table, other = tables
    table = replace(table, smiles=[*table.smiles[:-1], "C[C@H](N)C(=O)O"])
    written = {"CCCO": "OCCC", "CCCN": "[NH3+]CCC"}  # other spelling, other charge
    smiles = [written.get(text, text) for text in other.smiles]
    smiles[0] = "C[C@@H](N)C(=O)O"  # other stereo form
    other = replace(other, smiles=smiles)
    shared = [0, *(smiles.index(text) for text in written.values())]
    value = other.value.copy()
    value[shared] += 100.0
    changed = elsewhere_answers(table, replace(other, value=value))
    assert np.array_equal(changed, elsewhere_answers(table, other))


def test_nothing_new_is_refused(tables):
    table, _ = tables
    with pytest.raises(DataError, match="every drug of davis is one of its own"):
        elsewhere_answers(table, table)


def test_drugs_never_seen_are_told_better_where_another_set_is_heeded(
    tables, tmp_path, monkeypatch
):
    named = dict(zip(("davis", "kiba"), tables, strict=True))
    monkeypatch.setattr(run, "read_pairs", named.__getitem__)
    config = AffinityConfig(split="cold-drug", other_set=True)
    record = run_affinity(config, out=tmp_path, seeds=[0])[0]
    alone = record.members["this_set_alone"]["test"]["mse"]
    plain = run_affinity(AffinityConfig(split="cold-drug"), out=tmp_path / "plain", seeds=[0])[0]
    assert alone == plain.accuracy["test"]["mse"]
    assert record.accuracy["test"]["mse"] < 0.8 * alone
    weights = {k for k in record.accuracy["test"] if k.startswith("weight_")}
    assert {"weight_elsewhere", "weight_ridge_elsewhere"} <= weights
    assert not weights & {k for k in plain.accuracy["test"] if "elsewhere" in k}
