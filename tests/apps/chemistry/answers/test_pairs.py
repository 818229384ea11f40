from types import SimpleNamespace

import numpy as np
import pytest

from apps.chemistry.answers import matched_pairs, write_pairs
from apps.chemistry.answers.explain import Explanation
from apps.chemistry.calibration import similarity_keys
from apps.chemistry.molecules import mol_from_smiles
from core.errors import DataError

TRAIN = {
    "Fc1ccc(CCN)cc1": 6.0,
    "Clc1ccc(CCN)cc1": 7.5,
    "COc1ccc(CCN)cc1": 4.0,
    "Clc1ccc(CCO)cc1": 5.0,  # differs from the first in two places
    "NCCc1ccccc1": np.nan,  # no exact value
    "CCCCCC": 3.0,
}


def predictor():
    mols = [mol_from_smiles(s) for s in TRAIN]
    reference = SimpleNamespace(
        smiles=list(TRAIN),
        target=np.array(list(TRAIN.values()))[:, None],
        keys=similarity_keys(mols),
    )
    return SimpleNamespace(reference=reference)


def explanation(smiles, prediction=6.5):
    mol = mol_from_smiles(smiles)
    return Explanation(mol, prediction, 0.0, np.zeros(mol.GetNumAtoms()), 0, False)


def test_one_substituent_apart_largest_step_first(tmp_path):
    pairs = matched_pairs(predictor(), explanation("Fc1ccc(CCN)cc1"))
    assert [(p.here, p.there, p.measured, p.step) for p in pairs] == [
        ("F[*:1]", "CO[*:1]", 4.0, 2.5),
        ("F[*:1]", "Cl[*:1]", 7.5, -1.0),
    ]
    text = write_pairs(pairs, tmp_path / "pairs.csv").read_text().splitlines()
    assert text[0] == "here,there,training_smiles,measured,predicted_minus_measured"
    assert text[1] == "F[*:1],CO[*:1],COc1ccc(CCN)cc1,4,+2.500"
    assert len(text) == 3


def test_the_smallest_exchange_counts():
    # methoxy for fluorine, not 4-methoxyphenyl for 4-fluorophenyl
    pair = matched_pairs(predictor(), explanation("Brc1ccc(CCO)cc1"))
    assert [(p.here, p.there) for p in pair] == [("Br[*:1]", "Cl[*:1]")]


def test_mirror_images_are_different_pieces():
    asked = predictor()
    asked.reference.smiles = ["F[C@H](Cl)CCO"] * len(TRAIN)
    assert matched_pairs(asked, explanation("F[C@H](Cl)CCN"))
    assert not matched_pairs(asked, explanation("F[C@@H](Cl)CCN"))


def test_needs_a_reference():
    with pytest.raises(DataError, match="the model file has no reference"):
        matched_pairs(SimpleNamespace(reference=None), explanation("CCO"))
