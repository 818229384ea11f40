"""Whole-molecule figures that take microseconds: size, shape, polarity, surface by property."""

from collections.abc import Sequence

import numpy as np
from rdkit import Chem
from rdkit.Chem import rdMolDescriptors as rd

from apps.chemistry.molecules.crippen import contributions, is_at_hand
from apps.chemistry.molecules.invariants import acceptors, features, rotatable
from apps.chemistry.molecules.tables import Molecules, MolTables, compiled

# In the order of the columns: two figures of Crippen, these, and surfaces by property.
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
_PATHS = _SCALARS[-7:]
_COUNTS = (rd.CalcNumHBD, rd.CalcNumHBA, rd.CalcNumRotatableBonds)
_ASKED = tuple(f for f in _SCALARS if f not in _PATHS + _COUNTS)
_OUTER = np.array([0] + [Chem.GetPeriodicTable().GetNOuterElecs(z) for z in range(1, 119)])
# Borders of the classes that atoms are sorted into by their contribution to logP and refraction.
_LOGP_BORDER = np.array([-0.4, -0.2, 0.0, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6])
_REFRACTION_BORDER = np.array([1.29, 1.82, 2.24, 2.45, 2.75, 3.05, 3.63, 3.8, 4.0])


def descriptors(mols: Molecules) -> np.ndarray:
    """Return float64 [molecule, descriptor]: RDKit's fast two-dimensional descriptors.

    Logarithm of the partition coefficient and molar refraction (Crippen), 24 counts, shape and
    connectivity indices, and van der Waals surface by atomic logP, refraction and charge. Figures
    that RDKit cannot work out (charges of metals) are 0.

    Notes
    -----
    What searches for patterns and paths is worked out for many molecules at a time where there is
    a compiler, and by RDKit elsewhere; checked against each other in the tests.
    """
    each = mols.mols if isinstance(mols, MolTables) else mols
    if not len(each):
        return np.empty((0, 0))
    out = _by_rdkit(each) if not is_at_hand() else _by_tables(MolTables.among(mols))
    return np.nan_to_num(out, nan=0.0, posinf=0.0, neginf=0.0)


def _by_rdkit(mols: Sequence[Chem.Mol]) -> np.ndarray:
    vectors = (rd.SlogP_VSA_, rd.SMR_VSA_, rd.PEOE_VSA_)
    rows = [
        [
            *rd.CalcCrippenDescriptors(mol),
            *(function(mol) for function in _SCALARS),
            *(figure for function in vectors for figure in function(mol)),
        ]
        for mol in mols
    ]
    return np.array(rows, dtype=np.float64)


def _by_tables(tables: MolTables) -> np.ndarray:
    scalars = {f: np.array([f(mol) for mol in tables.mols], dtype=np.float64) for f in _ASKED}
    scalars |= zip(_PATHS, _paths(tables, scalars[rd.CalcHallKierAlpha]).T, strict=True)
    scalars |= zip(_COUNTS, _counts(tables), strict=True)
    crippen = contributions(tables)
    surface = np.concatenate([rd._CalcLabuteASAContribs(mol)[0] for mol in tables.mols])
    parts = [
        crippen.whole,
        np.stack([scalars[function] for function in _SCALARS], axis=1),
        _by_class(tables, surface, crippen.atom[:, 0], _LOGP_BORDER),
        _by_class(tables, surface, crippen.atom[:, 1], _REFRACTION_BORDER),
        np.array([rd.PEOE_VSA_(mol) for mol in tables.mols]),
    ]
    return np.concatenate(parts, axis=1)


def _by_class(
    tables: MolTables, surface: np.ndarray, figure: np.ndarray, border: np.ndarray
) -> np.ndarray:
    """Return float64 [molecule, class]: surface of the atoms whose figure lies in each class.

    Source: Labute, A widely applicable set of descriptors, J. Mol. Graph. Model. 18 (2000) 464.
    """
    n = len(border) + 1
    place = tables.owner * n + np.searchsorted(border, figure, side="right")
    return np.bincount(place, surface, tables.n_mol * n).reshape(tables.n_mol, n)


def _counts(tables: MolTables) -> list[np.ndarray]:
    """Return int64 [molecule] of each of `_COUNTS`."""
    donates = features(tables) & np.uint32(1)
    of_bond = tables.owner[tables.source[: tables.begin.size]]
    return [
        np.bincount(tables.owner, donates, tables.n_mol),
        np.bincount(tables.owner, acceptors(tables), tables.n_mol),
        np.bincount(of_bond, rotatable(tables), tables.n_mol),
    ]


def _paths(tables: MolTables, alpha: np.ndarray) -> np.ndarray:
    """Return float64 [molecule, 7]: see `_PATHS`.

    Source: Hall and Kier, The molecular connectivity chi indexes and kappa shape indexes in
    structure-property modeling, Rev. Comput. Chem. 2 (1991) 367.
    """
    kernels = compiled()
    assert kernels is not None
    delta, first = _delta(tables), tables.first_atom
    sums = np.empty((tables.n_mol, 5))
    kernels.tessera_sum_paths(*tables.pointers, delta.ctypes.data, sums.ctypes.data)
    n_bond = tables.begin.size
    source, target = tables.source[:n_bond], tables.target[:n_bond]
    chi = (
        np.bincount(tables.owner, delta, tables.n_mol),
        np.bincount(tables.owner[source], delta[source] * delta[target], tables.n_mol),
    )
    heavy = np.add.reduceat(tables.element > 1, first[:-1]).astype(float)
    # kappa 3 of an odd number of atoms, and of an even one
    less = np.where(heavy % 2 == 1, 1.0, 2.0)
    kappa = (
        _ratio(heavy + alpha - 1, heavy + alpha - 2, sums[:, 0] + alpha),
        _ratio(heavy + alpha - less, heavy + alpha - 3, sums[:, 1] + alpha),
    )
    return np.stack([*kappa, *chi, *sums[:, 2:].T], axis=1)


def _ratio(a: np.ndarray, b: np.ndarray, root: np.ndarray) -> np.ndarray:
    """Return a b^2 / root^2, 0 where the root is."""
    square = root * root
    return np.divide(a * b * b, square, out=np.zeros_like(square), where=square != 0)


def _delta(tables: MolTables) -> np.ndarray:
    """Return float64 [atom]: one over the root of Kier and Hall's valence delta."""
    outer = _OUTER[np.minimum(tables.element, len(_OUTER) - 1)]
    delta = (outer - tables.hydrogen).astype(float)
    heavy = tables.element > 10
    delta[heavy] /= (tables.element - outer - 1)[heavy]
    delta[tables.element <= 1] = 0.0
    return np.divide(1.0, np.sqrt(delta), out=np.zeros_like(delta), where=delta != 0)
