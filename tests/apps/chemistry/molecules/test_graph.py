import numpy as np
import pytest
from rdkit import Chem

from apps.chemistry.molecules import (
    ATOM_FEATURES,
    EDGE_FEATURES,
    MAX_ATOM,
    N_ATOM_FEATURE,
    N_EDGE_FEATURE,
    featurise,
    featurise_many,
    mol_from_smiles,
)
from core.errors import DataError

ATOL = 1e-6  # features are 0, 1 or one float32 near 1; sums run over fewer than 100 atoms

STEREO_RICH = [
    "C[C@H](N)C(=O)O",
    "C[C@@H]1CC[C@H](C(C)C)[C@@H](O)C1",
    "C/C=C/C(=O)N[C@@H](Cc1ccccc1)C(=O)O",
    r"C/C=C\C1CC1",
    "CN1C[C@@H](C(=O)N)C=C2c3cccc4[nH]cc(C[C@H]12)c34",
    "C[C@@H](O)[C@H]1[C@@H]2[C@@H](C)C(=O)[N+]2(C)C1",
    "F/C(Cl)=C(/Br)I",
    "O=C([O-])[C@H]1CS[P@](=O)(C)C1",
    "C1=CC2CC1C=C2",
    "O=S(=O)(N1CCOCC1)c1ccc(-c2nnn[nH]2)s1",
]


def column(graph, name):
    return graph.atom_features[:, ATOM_FEATURES.index(name)]


def edge_column(graph, name):
    return graph.edge_features[:, EDGE_FEATURES.index(name)]


def environments(graph):
    """Sorted rows of (atom, sum of neighbours with their bonds): equal for equal molecules."""
    source, target = graph.edge_index
    message = np.concatenate([graph.atom_features[source], graph.edge_features], axis=1)
    pooled = np.zeros((graph.n_atom, message.shape[1]))
    np.add.at(pooled, target, message)
    rows = np.concatenate([graph.atom_features, pooled], axis=1)
    return rows[np.lexsort(rows.T)]


@pytest.mark.parametrize("smiles", STEREO_RICH)
def test_features_do_not_depend_on_atom_order(smiles):
    mol = Chem.MolFromSmiles(smiles)
    expected = environments(featurise(smiles))
    for text in Chem.MolToRandomSmilesVect(mol, 12, 7):
        np.testing.assert_allclose(environments(featurise(text)), expected, atol=ATOL)


def test_rings_do_not_depend_on_atom_order_of_a_molecule():
    # RDKit leaves a quick ring search after RenumberAtoms, which finds other rings in this one
    mol = Chem.MolFromSmiles("O1CC[C@@H](NC(=O)[C@@H](Cc2cc3cc(ccc3nc2N)-c2ccccc2C)C)CC1(C)C")
    order = np.random.default_rng(0).permutation(mol.GetNumAtoms()).tolist()
    expected = featurise(mol).atom_features[order]
    renumbered = featurise(Chem.RenumberAtoms(mol, order))
    np.testing.assert_array_equal(renumbered.atom_features, expected)


def test_order_dependent_tag_would_have_failed():
    # the tag of one and the same molecule differs between two SMILES; the CIP label does not
    a, b = (Chem.MolFromSmiles(s) for s in ("C[C@H](N)C(=O)O", "N[C@@H](C)C(=O)O"))
    assert Chem.MolToSmiles(a) == Chem.MolToSmiles(b)
    assert a.GetAtomWithIdx(1).GetChiralTag() != b.GetAtomWithIdx(1).GetChiralTag()
    assert column(featurise(a), "cip_r").sum() == column(featurise(b), "cip_r").sum()


def test_mirror_images_and_double_bonds_are_told_apart():
    r, s = featurise("C[C@@H](N)C(=O)O"), featurise("C[C@H](N)C(=O)O")
    assert column(r, "cip_r").tolist() == [0, 1, 0, 0, 0, 0]
    assert column(s, "cip_s").tolist() == [0, 1, 0, 0, 0, 0]
    e, z = featurise("C/C=C/C"), featurise(r"C/C=C\C")
    assert edge_column(e, "stereo_e").sum() == 2  # both directions of one bond
    assert edge_column(z, "stereo_z").sum() == 2
    assert edge_column(featurise("CC=CC"), "stereo_e").sum() == 0


def test_ethyl_acetate_by_hand():
    graph = featurise("CCOC(C)=O")
    assert graph.atom_features.shape == (6, N_ATOM_FEATURE)
    assert graph.edge_features.shape == (10, N_EDGE_FEATURE)
    assert graph.atom_features.dtype == graph.edge_features.dtype == np.float32
    assert graph.edge_index.dtype == graph.reverse_edge.dtype == np.int64
    assert column(graph, "element_8").tolist() == [0, 0, 1, 0, 0, 1]
    assert column(graph, "degree_3").tolist() == [0, 0, 0, 1, 0, 0]
    assert column(graph, "hydrogen_3").tolist() == [1, 0, 0, 0, 1, 0]
    assert column(graph, "acceptor").tolist() == [0, 0, 1, 0, 0, 1]
    assert column(graph, "donor").sum() == 0
    assert column(graph, "mass_100_dalton")[2] == pytest.approx(0.15999, abs=1e-4)
    assert edge_column(graph, "double").sum() == 2
    assert edge_column(graph, "single").sum() == 8


def test_rings_aromaticity_and_charge():
    graph = featurise("c1ccc2c(c1)CCC2")  # indane: six ring fused to five ring
    assert column(graph, "ring").sum() == 9
    assert column(graph, "ring_size_6").sum() == 6
    assert column(graph, "ring_size_5").sum() == 5
    assert column(graph, "aromatic").sum() == 6
    assert edge_column(graph, "aromatic").sum() == 12
    assert edge_column(graph, "ring").sum() == 20
    assert edge_column(featurise("C1CC1CC1CC1"), "ring").sum() == 12  # the linkers are no ring
    zwitterion = featurise("[NH3+]CC(=O)[O-]")
    assert column(zwitterion, "charge_positive").tolist() == [1, 0, 0, 0, 0]
    assert column(zwitterion, "charge_negative").tolist() == [0, 0, 0, 0, 1]
    assert column(featurise("C1CCCCCCCCC1"), "ring_size_large").sum() == 10


def test_donors_and_acceptors():
    amide = featurise("CC(=O)NC")
    assert column(amide, "donor").tolist() == [0, 0, 0, 1, 0]
    assert column(amide, "acceptor").tolist() == [0, 0, 1, 0, 0]
    imidazole = featurise("c1c[nH]cn1")
    assert column(imidazole, "donor").tolist() == [0, 0, 1, 0, 0]
    assert column(imidazole, "acceptor").tolist() == [0, 0, 0, 0, 1]


@pytest.mark.parametrize("smiles", [*STEREO_RICH, "C", "[Na+].[Cl-]", "F[Pt](F)(<-N)<-N"])
def test_edges_come_in_pairs(smiles):
    graph = featurise(smiles)
    assert (graph.edge_index[:, graph.reverse_edge] == graph.edge_index[::-1]).all()
    assert (graph.edge_features[graph.reverse_edge] == graph.edge_features).all()
    assert (graph.edge_features[:, :5].sum(axis=1) == 1).all()
    assert (graph.atom_features[:, :13].sum(axis=1) == 1).all()


def test_molecule_with_explicit_stereo_undone_is_labelled():
    mol = Chem.MolFromSmiles("C[C@H](N)C(=O)O")
    mol.ClearComputedProps()
    for atom in mol.GetAtoms():
        atom.ClearProp("_CIPCode")
    assert column(featurise(mol), "cip_s").sum() == 1


@pytest.mark.parametrize(
    ("smiles", "reason"),
    [
        ("C1CC(", r"1 '\(' but 0 '\)'"),
        ("C1CCC", "ring 1 never closes"),
        ("C%12CCC", "ring 12 never closes"),
        ("CC(C)(C)(C)C", "explicit valence for atom # 1 c, 5"),
        ("c1cccc1", "can't kekulize"),
        ("", "no atom"),
        ("héllo", "not ASCII"),
        ("C*", "wildcard"),
        ("CC\nF", "it is broken by a line end"),
        ("xyz", "syntax error"),
        ("C" * (MAX_ATOM + 1), "501 heavy atoms, at most 500"),
    ],
)
def test_bad_smiles_says_why(smiles, reason, capfd):
    with pytest.raises(DataError, match=reason):
        mol_from_smiles(smiles)
    assert capfd.readouterr().err == ""  # RDKit's own log stays quiet


def test_many_equal_one_by_one(monkeypatch):
    from apps.chemistry.molecules import graph as module

    monkeypatch.setattr(module, "_CHUNK", 4)  # chunks that are full, and one that is not
    mols = [Chem.MolFromSmiles(s) for s in [*STEREO_RICH, "C", "[Na+].[Cl-]", "C1CC1"]]
    for mol, graph in zip(mols, featurise_many(mols), strict=True):
        for ours, alone in zip(graph, featurise(mol), strict=True):
            np.testing.assert_array_equal(ours, alone)
    assert featurise_many([]) == []
