import numpy as np
import pytest

from apps.chemistry.molecules import descriptors as module
from apps.chemistry.molecules.crippen import is_at_hand
from apps.chemistry.molecules.descriptors import descriptors
from apps.chemistry.molecules.tables import MolTables
from tests.apps.chemistry.molecules.odd import molecules

# RDKit takes seconds for the paths of a long chain
MOLS = [mol for mol in molecules() if mol.GetNumAtoms() < 100]
# Sums run in RDKit's order: of numbers of order 100 at most the last digits may differ.
ATOL = 1e-11


@pytest.mark.skipif(not is_at_hand(), reason="no compiler, or no table of RDKit")
def test_figures_are_those_of_rdkit(monkeypatch):
    found = descriptors(MOLS)
    monkeypatch.setattr(module, "is_at_hand", lambda: False)
    np.testing.assert_allclose(found, descriptors(MOLS), atol=ATOL, rtol=0)
    np.testing.assert_array_equal(found[::50], module._by_tables(MolTables.of(MOLS[::50])))


def test_of_no_molecule():
    assert len(descriptors([])) == 0
