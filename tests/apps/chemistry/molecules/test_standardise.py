import pytest
from rdkit import Chem

from apps.chemistry.molecules import standardise
from core.errors import DataError


@pytest.mark.parametrize(
    ("smiles", "expected", "changes"),
    [
        ("CCO", "CCO", []),
        ("C[N+](=O)[O-]", "C[N+](=O)[O-]", []),  # charges that no proton can balance
        ("C[N+](C)(C)CC", "CC[N+](C)(C)C", []),
        ("CCN.Cl", "CCN", ["left out Cl"]),
        (
            "C[C@@H](O)[C@H]([NH3+])C(=O)[O-]",
            "C[C@@H](O)[C@H](N)C(=O)O",
            ["balanced charges (N+1 O-1 to none)"],
        ),
        (
            "[Na]OC(=O)c1ccccc1",
            "O=C(O)c1ccccc1",
            [
                "took bonds to metals apart",
                "left out [Na+]",
                "balanced charges (O-1 to none)",
            ],
        ),
    ],
)
def test_parent_by_hand(smiles, expected, changes):
    mol, done = standardise(smiles)
    assert Chem.MolToSmiles(mol) == expected
    assert done == changes
    again, done = standardise(expected)
    assert (Chem.MolToSmiles(again), done) == (expected, [])


def test_does_not_depend_on_the_order_of_atoms():
    mol = Chem.MolFromSmiles("C[C@H]([NH3+])CC(=O)[O-].CCS.Cl")
    texts = {
        Chem.MolToSmiles(standardise(text)[0]) for text in Chem.MolToRandomSmilesVect(mol, 20, 3)
    }
    assert texts == {"C[C@H](N)CC(=O)O"}


def test_tautomers_become_one_and_keep_their_stereo():
    texts = ["O=c1cc([C@H](C)N)cc[nH]1", "Oc1cc([C@H](C)N)ccn1"]
    forms = {Chem.MolToSmiles(standardise(text, "tautomer")[0]) for text in texts}
    assert forms == {"C[C@H](N)c1cc[nH]c(=O)c1"}
    assert len({Chem.MolToSmiles(standardise(text)[0]) for text in texts}) == 2


def test_fragment_leaves_charges_as_they_are():
    mol, changes = standardise("C[NH2+]CC(=O)O.[Cl-]", "fragment")
    assert Chem.MolToSmiles(mol) == "C[NH2+]CC(=O)O"
    assert changes == ["left out [Cl-]"]


def test_none_leaves_a_salt_as_it_is():
    mol, changes = standardise("CCN.Cl", "none")
    assert (mol.GetNumAtoms(), changes) == (4, [])


@pytest.mark.parametrize(
    ("smiles", "match"),
    [
        ("[Na+].[Cl-]", "no organic fragment"),
        ("O", "no organic fragment"),
        ("ClCl", "no organic fragment"),
        ("C[Hg]C.[Fe]", "drop it"),
        ("[Fe+2].c1cc[cH-]c1.c1cc[cH-]c1", "no molecule any more after standardisation"),
        ("C1CC(", "is not a SMILES"),
        ("O=C(N1CCC1[U+6])c1cc(Cl)~ccn1", "cannot be standardised .*valence.*drop it"),
    ],
)
def test_refuses(smiles, match):
    with pytest.raises(DataError, match=match):
        standardise(smiles)
