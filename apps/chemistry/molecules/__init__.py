"""Molecules: reading and featurising."""

from apps.chemistry.molecules.graph import (
    ATOM_FEATURES,
    EDGE_FEATURES,
    N_ATOM_FEATURE,
    N_EDGE_FEATURE,
    MolGraph,
    featurise,
    featurise_many,
)
from apps.chemistry.molecules.read import MAX_ATOM, mol_from_smiles
from apps.chemistry.molecules.standardise import standardise

__all__ = [
    "ATOM_FEATURES",
    "EDGE_FEATURES",
    "MAX_ATOM",
    "N_ATOM_FEATURE",
    "N_EDGE_FEATURE",
    "MolGraph",
    "featurise",
    "featurise_many",
    "mol_from_smiles",
    "standardise",
]
