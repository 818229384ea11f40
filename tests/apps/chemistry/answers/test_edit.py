import pytest
from rdkit import Chem

from apps.chemistry.answers.edit import as_carbon, branches, n_stereocentre, polar_groups, shorten
from apps.chemistry.molecules import mol_from_smiles


@pytest.mark.parametrize(
    ("smiles", "atoms", "saturate", "expected"),
    [
        ("COc1ccccc1", [1], False, "CCc1ccccc1"),
        ("Cc1ccncc1", [4], False, "Cc1ccccc1"),
        ("CCC(=O)[O-]", [3, 4], True, "CCC(C)C"),
        ("CCC(=O)[O-]", [3, 4], False, "C=C(C)CC"),
        ("CCC#N", [3], True, "CCCC"),
        ("CC[NH3+]", [2], False, "CCC"),
        ("Cc1ccco1", [5], False, "Cc1ccccc1"),
        ("Cc1cccs1", [5], False, "Cc1ccccc1"),
        ("c1cc[nH]c1", [3], False, "c1ccccc1"),
        ("C[C@H](F)Cl", [2], False, "C[C@H](C)Cl"),  # two methyl groups: no stereocentre
    ],
)
def test_carbon_in_place_of_heteroatoms(smiles, atoms, saturate, expected):
    found = as_carbon(mol_from_smiles(smiles), atoms, saturate=saturate)
    assert Chem.MolToSmiles(found) == Chem.CanonSmiles(expected.replace("@", ""))


def test_carbon_that_makes_no_molecule_is_none():
    assert as_carbon(mol_from_smiles("Cn1cccc1"), [1], saturate=False) is None


def test_polar_groups_stand_together_on_an_unsaturated_carbon():
    mol = mol_from_smiles("NC(=O)CCOC")  # 0 N, 2 O of the amide; 5 the ether
    assert polar_groups(mol, range(mol.GetNumAtoms())) == [[0, 2], [5]]


def test_branches_seen_from_the_ring_and_what_stands_in_their_place():
    mol = mol_from_smiles("c1ccccc1CCO")
    assert [(b.inner, b.outer, sorted(b.atoms)) for b in branches(mol)] == [
        (5, 6, [6, 7, 8]), (6, 7, [7, 8]), (7, 8, [8]),
    ]  # fmt: skip
    whole = branches(mol)[0]
    made = [shorten(mol, [whole]), shorten(mol, [], methyl=[whole]), shorten(mol, [], ethyl=whole)]
    assert [Chem.MolToSmiles(m) for m in made] == ["c1ccccc1", "Cc1ccccc1", "CCc1ccccc1"]


def test_a_nitrogen_keeps_its_valence():
    mol = mol_from_smiles("Cn1cccc1")
    assert Chem.MolToSmiles(shorten(mol, branches(mol)[:1])) == "c1cc[nH]c1"


def test_ethyl_in_either_form_of_the_centre_that_bears_it():
    mol = mol_from_smiles("C[C@@H](CCC)c1ccccc1")
    branch = next(b for b in branches(mol) if len(b.atoms) == 3)
    forms = [shorten(mol, [], ethyl=branch, mirror=m) for m in (False, True)]
    assert [Chem.MolToSmiles(m) for m in forms] == ["CC[C@H](C)c1ccccc1", "CC[C@@H](C)c1ccccc1"]
    assert [n_stereocentre(m) for m in (*forms, shorten(mol, [], methyl=[branch]))] == [1, 1, 0]


def test_carbon_for_a_heteroatom_and_a_branch_cut_back_at_once():
    mol = mol_from_smiles("OCCc1ccc(CN)cc1")
    branch = next(b for b in branches(mol) if sorted(b.atoms) == [7, 8])  # CN
    found = [
        as_carbon(mol, [0], saturate=False, gone=[branch]),
        as_carbon(mol, [0], saturate=False, methyl=[branch]),
    ]
    assert [Chem.MolToSmiles(m) for m in found] == ["CCCc1ccccc1", "CCCc1ccc(C)cc1"]
