from collections import Counter

import numpy as np
import pytest
from rdkit import Chem, DataStructs
from rdkit.Chem import rdFingerprintGenerator

from apps.chemistry.molecules import fingerprint
from apps.chemistry.molecules.fingerprint import KINDS, KeyIndex, KeySets, key_sets, tanimoto
from tests.apps.chemistry.molecules.odd import molecules

SMILES = ["CCO", "CCN", "CCCCCCO", "c1ccccc1C(=O)NC", "c1ccccc1C(=O)O", "O=C(O)CC(=O)O", "C"] * 4
SMILES += ["CC(C)Cc1ccc(C(C)C(=O)O)cc1", "CN1C=NC2=C1C(=O)N(C)C(=O)N2C"]
MOLS = [Chem.MolFromSmiles(text) for text in SMILES]
ATOL = 1e-12  # small integers in float64, one division


def min_max(a, b):
    """The kernel as it is defined, on counts."""
    keys = set(a) | set(b)
    top = sum(max(a[k], b[k]) for k in keys)
    return sum(min(a[k], b[k]) for k in keys) / top if top else 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_min_max_kernel_against_its_definition(kind):
    generator = fingerprint._KINDS[kind]()
    counts = [Counter(generator.GetSparseCountFingerprint(m).GetNonzeroElements()) for m in MOLS]
    expected = [[min_max(a, b) for b in counts[:5]] for a in counts]
    keys, few = key_sets(MOLS, kind), key_sets(MOLS[:5], kind)
    np.testing.assert_allclose(tanimoto(keys, few), expected, atol=ATOL)


@pytest.mark.skipif(fingerprint.compiled() is None, reason="no compiler")
@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_keys_are_those_of_rdkit(kind, binary):
    mols = molecules()
    found, expected = key_sets(mols, kind, binary=binary), fingerprint._by_rdkit(mols, kind, binary)
    np.testing.assert_array_equal(found.start, expected.start)
    np.testing.assert_array_equal(found.key, expected.key)


@pytest.mark.skipif(fingerprint.compiled() is None, reason="no compiler")
@pytest.mark.parametrize("kind", KINDS)
def test_compiled_similarity_is_that_of_matrices(monkeypatch, kind):
    mols = [*molecules(), Chem.MolFromSmiles("C")]
    index, some = KeyIndex.of(key_sets(mols[::2], kind)), key_sets(mols[1::2], kind)
    found = index.similarity(some)
    nothing = index.similarity(KeySets(np.zeros(3, np.int64), np.empty(0, np.uint64)))
    monkeypatch.setattr(fingerprint, "compiled", lambda: None)
    np.testing.assert_array_equal(found, index.similarity(some))
    assert set(nothing.ravel().tolist()) <= {0.0, 1.0}
    none = KeyIndex.of(KeySets(np.zeros(1, np.int64), np.empty(0, np.uint64)))
    assert none.similarity(some).shape == (len(mols) // 2, 0)


def test_second_number_of_a_path_told_nothing(monkeypatch):
    # RDKit gives each path two numbers by default, the second made of the first
    def twice():
        return rdFingerprintGenerator.GetRDKitFPGenerator(maxPath=5)

    keys = key_sets(MOLS, "path5")
    monkeypatch.setitem(fingerprint._KINDS, "path5", twice)
    both = fingerprint._by_rdkit(MOLS, "path5", False)
    assert both.key.size == 2 * keys.key.size
    np.testing.assert_allclose(tanimoto(keys, keys), tanimoto(both, both), atol=ATOL)


def test_binary_tanimoto_against_rdkit():
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2)
    prints = [generator.GetSparseFingerprint(m) for m in MOLS]
    expected = [DataStructs.BulkTanimotoSimilarity(p, prints) for p in prints]
    keys = key_sets(MOLS, "ecfp4", binary=True)
    np.testing.assert_allclose(tanimoto(keys, keys), expected, atol=ATOL)


def test_folding_matches_rdkit():
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=512)
    expected = np.array([generator.GetFingerprintAsNumPy(m) for m in MOLS])
    assert (key_sets(MOLS, "ecfp4", binary=True).folded(512) == expected).all()


def test_molecules_without_keys_are_alike():
    keys = key_sets([*MOLS[:1], Chem.MolFromSmiles("C")], "torsion")
    assert keys.size.tolist() == [0, 0]
    assert tanimoto(keys, keys).tolist() == [[1.0, 1.0], [1.0, 1.0]]


def test_kernel_is_positive_semi_definite():
    keys = key_sets(MOLS, "path5")
    assert np.linalg.eigvalsh(tanimoto(keys, keys)).min() > -1e-10
