import os
from pathlib import Path

import numpy as np
import pytest
from rdkit import Chem

from apps.chemistry.datasets import load_table, split_molecules
from apps.chemistry.datasets.split import carve_valid, scaffold_sets
from core.errors import DataError

MIRROR = os.environ.get("TESSERA_DATA_DIR", "")
needs_bace = pytest.mark.skipif(
    not (Path(MIRROR) / "chemistry/bace/bace.csv").is_file() or not MIRROR,
    reason="needs the BACE file below $TESSERA_DATA_DIR",
)
# 5 benzenes, 3 pyridines, 2 without a ring, and two hands of one chiral scaffold
SMILES = [
    *("Cc1ccccc1", "CCc1ccccc1", "Oc1ccccc1", "Nc1ccccc1", "Fc1ccccc1"),
    *("Cc1ccncc1", "CCc1ccncc1", "Oc1ccncc1"),
    *("CCO", "CCN"),
    *("C1CC[C@@H](c2ccccc2)OC1", "C1CC[C@H](c2ccccc2)OC1"),
]
MOLS = [Chem.MolFromSmiles(text) for text in SMILES]


def test_sets_by_hand():
    # ties in size go to the later first row; the two hands are one set without chirality
    chiral = scaffold_sets(MOLS, chirality=True)
    assert chiral == [[0, 1, 2, 3, 4], [5, 6, 7], [8, 9], [11], [10]]
    flat = scaffold_sets(MOLS, chirality=False)
    assert flat == [[0, 1, 2, 3, 4], [5, 6, 7], [10, 11], [8, 9]]


def test_gem_rule_by_hand():
    # limits 9.6 and 10.8 rows: 5 + 3 train, [8, 9] would make 10 of at most 9.6, so it tries
    # valid (8 + 0 + 2 = 10 fits), [11] trains (9), [10] makes 10 and then 9 + 2 + 1 = 12: test
    split = split_molecules(MOLS, "gem")
    assert np.nonzero(split == "valid")[0].tolist() == [8, 9]
    assert np.nonzero(split == "test")[0].tolist() == [10]
    assert (split == "train").sum() == 9


@pytest.mark.parametrize("rule", ["random", "random_scaffold"])
def test_random_rules_follow_the_seed(rule):
    mols = [Chem.MolFromSmiles("C1" + "C" * (i % 24 + 1) + "C1") for i in range(48)]
    a, b, c = (split_molecules(mols, rule, seed=seed) for seed in (1, 1, 2))
    assert (a == b).all()
    assert (a != c).any()
    if rule == "random":
        assert [(a == part).sum() for part in ("train", "valid", "test")] == [38, 5, 5]
    else:
        for rows in scaffold_sets(mols, chirality=True):
            assert len(set(a[rows])) == 1


def test_impossible_splits_are_refused():
    with pytest.raises(DataError, match=r"rule must be one of .*'gem'.* got 'scafold'"):
        split_molecules(MOLS, "scafold")
    with pytest.raises(DataError, match=r"leaves no molecule for 'train' \(3 molecules, 1 sets\)"):
        split_molecules(MOLS[:3], "gem")


def test_valid_rows_are_carved_evenly():
    split = np.array(["train"] * 100 + ["test"] * 20)
    target = np.arange(120.0)[::-1]
    out = carve_valid(split, target, seed=0)
    assert (out == "valid").sum() == 10
    assert (out[100:] == "test").all()
    # one from each tenth of the training range
    tenth = (target[out == "valid"] - 20) // 10
    assert sorted(tenth) == list(range(10))
    flag = np.arange(120) % 2 == 0
    assert (carve_valid(split, target, seed=0, flag=flag) == "valid").sum() == 10


@needs_bace
def test_bace_matches_the_published_counts():
    # anchors: 1,210 / 151 / 152 rows; the validation block has 130 of 151 above the rule pIC50 7
    table = load_table("bace")
    counts = [(table.split == part).sum() for part in ("train", "valid", "test")]
    assert counts == [1210, 151, 152]
    assert table.rejected == []
    assert table.unit == "pIC50"
    assert table.source == "mirror"
