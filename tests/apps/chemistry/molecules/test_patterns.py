import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import rdMolDescriptors as rd

from apps.chemistry.molecules import crippen, tables
from apps.chemistry.molecules.patterns import Patterns
from apps.chemistry.molecules.tables import MolTables
from core.errors import DataError
from tests.apps.chemistry.molecules.odd import molecules

MOLS = molecules()
WATERS = ["On1cccc1", "O", "ON", "OCl", "O[Si](C)(C)C", "OO", "Sc1ccccc1", "CS", "P", "[OH3+]"]
ATOL = 1e-10  # sums of figures of order one in another order

pytestmark = pytest.mark.skipif(tables.compiled() is None, reason="no compiler")


@pytest.mark.parametrize("smarts", [
    "[CH3]C", "[CH](C)(C)C", "[CH1X4]([N,O,S])([A;!#1])[A;!#1]", "[c](:a)(:a)-[N,O]", "[O]=C(C)C",
    "[N;+,-]=[!C;A]", "[NH0]([!#1;A,a])(a)C", "O=S(=O)N", "C#N", "[#7;H1,H2]C(=O)c", "[Cl,Br]c:c:n",
])  # fmt: skip
def test_roots_are_those_of_rdkit(smarts):
    found = MolTables.of(MOLS)
    graph, _ = crippen._with_hydrogens(found)
    ours = Patterns(["[#0]", smarts]).first_match(graph)[: found.element.size] == 1
    query = Chem.MolFromSmarts(smarts)
    matches = [m.GetSubstructMatches(query, uniquify=False, maxMatches=10**6) for m in MOLS]
    theirs = np.zeros(found.element.size, dtype=bool)
    for start, each in zip(found.first_atom[:-1], matches, strict=True):
        theirs[[start + match[0] for match in each]] = True
    assert theirs.any()
    np.testing.assert_array_equal(ours, theirs)


def test_the_first_pattern_counts():
    graph, _ = crippen._with_hydrogens(MolTables.of([Chem.MolFromSmiles("CCO")]))
    found = Patterns(["[CH3]", "C", "[OH]C"]).first_match(graph)
    assert found.tolist() == [0, 1, 2] + [-1] * 6


@pytest.mark.parametrize("smarts", ["C1CC1", "[$(CO)]", "[v3]", "C~C", "[CH3", "CCCCCCCCC"])
def test_what_it_cannot_ask_is_an_error(smarts):
    with pytest.raises(DataError, match="cannot be read"):
        Patterns([smarts])


@pytest.mark.skipif(not crippen.is_at_hand(), reason="no table of RDKit")
def test_contributions_are_those_of_rdkit():
    mols = [*MOLS, *map(Chem.MolFromSmiles, WATERS)]
    found = crippen.contributions(MolTables.of(mols))
    expected = [row for mol in mols for row in rd._CalcCrippenContribs(mol)]
    np.testing.assert_array_equal(found.atom, expected)
    whole = [rd.CalcCrippenDescriptors(mol) for mol in mols]
    np.testing.assert_allclose(found.whole, whole, atol=ATOL)
