import numpy as np
import pytest
from rdkit.Chem import rdMolDescriptors as rd

from apps.chemistry.molecules import tables
from apps.chemistry.molecules.invariants import connectivity, features, pair_codes
from apps.chemistry.molecules.tables import MolTables
from tests.apps.chemistry.molecules.odd import molecules

MOLS = molecules()

compiled = pytest.mark.skipif(tables.compiled() is None, reason="no compiler")


def asked(monkeypatch, mols):
    """The tables as each atom tells them."""
    with monkeypatch.context() as patch:
        patch.setattr(tables, "compiled", lambda: None)
        return MolTables.of(mols)


@compiled
def test_binary_form_says_what_atoms_say(monkeypatch):
    found, expected = MolTables.of(MOLS), asked(monkeypatch, MOLS)
    for name in (*tables._ATOM, *tables._BOND):
        theirs = getattr(expected, name)
        ours = getattr(found, name) % 4 if name == "pi" else getattr(found, name)
        np.testing.assert_array_equal(ours, theirs, err_msg=name)


@compiled
def test_what_is_no_binary_form_is_asked(monkeypatch):
    # of another version, cut short anywhere, or with a byte that says another thing: never misread
    class Spoilt:
        def __init__(self, mol, spoil):
            self.mol, self.spoil = mol, spoil

        def __getattr__(self, name):
            return getattr(self.mol, name)

        def ToBinary(self):
            return self.spoil(self.mol.ToBinary())

    mols = [mol for mol in MOLS if mol.GetNumBonds()][:12]
    expected = MolTables.of(mols)
    rng = np.random.default_rng(0)
    spoils = [lambda data: b"", lambda data: data[:8] + b"\x11" + data[9:]]
    spoils += [lambda data, n=n: data[: n % len(data)] for n in rng.integers(1, 10**6, 40)]
    for spoil in spoils:
        found = MolTables.of([Spoilt(mol, spoil) for mol in mols])
        cut = np.array([len(spoil(mol.ToBinary())) for mol in mols])
        whole = np.array([len(mol.ToBinary()) for mol in mols])
        for i in np.nonzero(cut < whole - 32)[0]:  # the end holds nothing that is read
            own = slice(expected.first_atom[i], expected.first_atom[i + 1])
            for name in tables._ATOM:
                ours, theirs = getattr(found, name)[own], getattr(expected, name)[own]
                np.testing.assert_array_equal(ours % 4, theirs % 4, err_msg=name)


def test_by_hand():
    mols = [mol for mol in MOLS if mol.GetNumAtoms() == 3 and mol.GetNumBonds() == 3]
    ring = MolTables.of(mols[:1])  # cyclopropane
    assert ring.element.tolist() == [6, 6, 6]
    assert ring.hydrogen.tolist() == [2, 2, 2]
    assert ring.rings.tolist() == [8, 8, 8]
    assert ring.in_ring.tolist() == [1, 1, 1]
    assert ring.degree.tolist() == [2, 2, 2]
    assert ring.valence.tolist() == [4, 4, 4]
    empty = MolTables.of([])
    assert empty.n_mol == 0
    assert empty.source.size == 0


def test_invariants_are_those_of_rdkit():
    found = MolTables.of(MOLS)
    theirs = [rd.GetConnectivityInvariants(mol) for mol in MOLS]
    expected = np.array([x & 0xFFFFFFFF for each in theirs for x in each], dtype=np.uint32)
    np.testing.assert_array_equal(connectivity(found), expected)
    expected = np.array([x for mol in MOLS for x in rd.GetFeatureInvariants(mol)])
    np.testing.assert_array_equal(features(found), expected)
    expected = np.array([rd.GetAtomPairAtomCode(a) for mol in MOLS for a in mol.GetAtoms()])
    np.testing.assert_array_equal(pair_codes(found), expected)
