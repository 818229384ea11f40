"""Analogues: valid molecules, each one exchange away from its parent, none that is known."""

import numpy as np
import pytest
from rdkit import Chem

from apps.chemistry.datasets import load_table
from apps.chemistry.molecules.analogues import make_analogues

# three series that share no branch: halides, ethers, amides, each on two kinds of ring
HALIDES = ["Fc1ccccc1", "Clc1ccccc1C", "BrC1CCCCC1", "Ic1ccncc1"]
ETHERS = ["COc1ccccc1", "CCOc1ccncc1", "CC(C)OC1CCCCC1"]
ROWS = [*HALIDES, *ETHERS]
SERIES = [np.arange(4), np.arange(4, 7)]


@pytest.fixture(scope="module")
def made():
    return make_analogues(ROWS, SERIES, 12, known=ROWS, seed=0)


def test_each_is_a_new_valid_molecule(made):
    assert len(made.smiles) >= 8
    assert len(set(made.smiles)) == len(made.smiles)
    for smiles in made.smiles:
        mol = Chem.MolFromSmiles(smiles)
        assert mol is not None
        assert Chem.MolToSmiles(mol) == smiles
        assert not any(atom.GetAtomicNum() == 0 for atom in mol.GetAtoms())
        assert smiles not in ROWS


def test_branch_and_rest_come_from_one_series(made):
    for smiles, parent, donor in zip(made.smiles, made.parent, made.donor, strict=True):
        assert (parent < 4) == (donor < 4)
        assert ("O" in smiles) == (parent >= 4)


def test_a_branch_goes_to_a_site_alike():
    """The halogen of the saturated ring has no partner among the aromatic ones."""
    made = make_analogues(["BrC1CCCCC1", "Ic1ccncc1"], [np.arange(2)], 5, seed=0)
    for smiles, parent, donor in zip(made.smiles, made.parent, made.donor, strict=True):
        assert parent == donor, smiles


def test_known_molecules_are_left_out():
    free = make_analogues(HALIDES, [np.arange(4)], 6, seed=3)
    less = make_analogues(HALIDES, [np.arange(4)], 6, known=free.smiles[:2], seed=3)
    assert not set(less.smiles) & set(free.smiles[:2])


def test_the_seed_decides():
    a, b, c = (make_analogues(ROWS, SERIES, 6, seed=s).smiles for s in (1, 1, 2))
    assert a == b
    assert a != c


def test_a_real_table_gives_as_many_as_asked_for():
    table = load_table("pocket")
    rows = np.nonzero(table.split == "train")[0]
    made = make_analogues(table.smiles, [rows], 200, known=table.smiles, seed=0)
    assert len(made.smiles) == 200
    sizes = [Chem.MolFromSmiles(s).GetNumAtoms() for s in made.smiles]
    parents = [table.graphs[i].n_atom for i in made.parent]
    assert np.corrcoef(sizes, parents)[0, 1] > 0.3  # most of the parent stays


def test_molecules_without_a_branch_give_none():
    assert make_analogues(["c1ccccc1", "CC"], [np.arange(2)], 3, seed=0).smiles == []
