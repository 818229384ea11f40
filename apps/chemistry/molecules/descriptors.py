"""Whole-molecule figures that take microseconds: size, shape, polarity, surface by property."""

from collections.abc import Iterable

import numpy as np
from rdkit import Chem
from rdkit.Chem import rdMolDescriptors as rd

_SCALARS = (
    rd.CalcExactMolWt,
    rd.CalcTPSA,
    rd.CalcLabuteASA,
    rd.CalcNumHBD,
    rd.CalcNumHBA,
    rd.CalcNumRotatableBonds,
    rd.CalcNumRings,
    rd.CalcNumAromaticRings,
    rd.CalcNumAliphaticRings,
    rd.CalcNumHeteroatoms,
    rd.CalcNumAmideBonds,
    rd.CalcNumAtomStereoCenters,
    rd.CalcNumBridgeheadAtoms,
    rd.CalcNumSpiroAtoms,
    rd.CalcFractionCSP3,
    rd.CalcHallKierAlpha,
    rd.CalcKappa1,
    rd.CalcKappa2,
    rd.CalcKappa3,
    rd.CalcChi0v,
    rd.CalcChi1v,
    rd.CalcChi2v,
    rd.CalcChi3v,
    rd.CalcChi4v,
)
_VECTORS = (rd.SlogP_VSA_, rd.SMR_VSA_, rd.PEOE_VSA_)


def descriptors(mols: Iterable[Chem.Mol]) -> np.ndarray:
    """Return float64 [molecule, descriptor]: RDKit's fast two-dimensional descriptors.

    Logarithm of the partition coefficient and molar refraction (Crippen), 24 counts, shape and
    connectivity indices, and van der Waals surface by atomic logP, refraction and charge. Figures
    that RDKit cannot work out (charges of metals) are 0.
    """
    rows = [
        [
            *rd.CalcCrippenDescriptors(mol),
            *(function(mol) for function in _SCALARS),
            *(figure for function in _VECTORS for figure in function(mol)),
        ]
        for mol in mols
    ]
    return np.nan_to_num(np.array(rows, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)
