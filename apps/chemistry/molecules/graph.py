"""A molecule as a graph of heavy atoms: the waist between chemistry and the network.

Features are read in one pass over the atoms; everything else (degree, aromaticity, rings, bonds)
comes from two array-valued calls, because a Python call per atom and property costs more than
parsing does.
"""

from typing import NamedTuple

import numpy as np
from rdkit import Chem
from rdkit.Chem import rdchem

from apps.chemistry.molecules.read import mol_from_smiles

ELEMENTS = (6, 7, 8, 9, 16, 17, 35, 53, 15, 5, 14, 34)  # C N O F S Cl Br I P B Si Se
RING_SIZES = (3, 4, 5, 6, 7)  # larger rings share one flag

# Names of the columns, in order; their number is the width that a network asks for.
ATOM_FEATURES = (
    *(f"element_{z}" for z in ELEMENTS),
    "element_other",
    *(f"degree_{d}" for d in range(6)),  # 5 means 5 or more
    "charge_negative",
    "charge_zero",
    "charge_positive",
    *(f"hydrogen_{h}" for h in range(5)),  # 4 means 4 or more
    "hybridisation_sp",
    "hybridisation_sp2",
    "hybridisation_sp3",
    "hybridisation_other",
    "aromatic",
    "ring",
    *(f"ring_size_{s}" for s in RING_SIZES),
    "ring_size_large",
    "cip_r",
    "cip_s",
    "donor",
    "acceptor",
    "mass_100_dalton",
)
EDGE_FEATURES = (
    "single",
    "aromatic",
    "double",
    "triple",
    "other",
    "conjugated",
    "ring",
    "stereo_e",
    "stereo_z",
)
N_ATOM_FEATURE = len(ATOM_FEATURES)
N_EDGE_FEATURE = len(EDGE_FEATURES)

_ATOM = {name: i for i, name in enumerate(ATOM_FEATURES)}
_EDGE = {name: i for i, name in enumerate(EDGE_FEATURES)}
_NITROGEN, _OXYGEN = 7, 8
_AROMATIC_ORDER, _DOUBLE_ORDER = 3, 4  # bond order times two


def _lookup(n: int, known: dict[int, int], other: int) -> np.ndarray:
    """Return int64 [n]: `known[i]` where there is one, else `other`."""
    return np.array([known.get(i, other) for i in range(n)], dtype=np.int64)


_N_ELEMENT = 119
_ELEMENT_COLUMN = _lookup(
    _N_ELEMENT, {z: _ATOM[f"element_{z}"] for z in ELEMENTS}, _ATOM["element_other"]
)
_Hybridisation = rdchem.HybridizationType
_HYBRIDISATION_COLUMN = _lookup(
    16,
    {
        int(_Hybridisation.SP): _ATOM["hybridisation_sp"],
        int(_Hybridisation.SP2): _ATOM["hybridisation_sp2"],
        int(_Hybridisation.SP3): _ATOM["hybridisation_sp3"],
    },
    _ATOM["hybridisation_other"],
)
_IS_PLANAR = np.array([i in (_Hybridisation.SP, _Hybridisation.SP2) for i in range(16)])
_LARGE_RING = max(RING_SIZES) + 1
_RING_COLUMN = {s: _ATOM[f"ring_size_{s}"] for s in RING_SIZES} | {
    _LARGE_RING: _ATOM["ring_size_large"]
}
_ORDER_COLUMN = _lookup(
    16,
    {
        2: _EDGE["single"],
        _AROMATIC_ORDER: _EDGE["aromatic"],
        _DOUBLE_ORDER: _EDGE["double"],
        6: _EDGE["triple"],
    },
    _EDGE["other"],
)
_STEREO_COLUMN = {
    rdchem.BondStereo.STEREOE: _EDGE["stereo_e"],
    rdchem.BondStereo.STEREOZ: _EDGE["stereo_z"],
}
_PERIODIC = Chem.GetPeriodicTable()
_MASS = np.array([0.0] + [_PERIODIC.GetAtomicWeight(z) for z in range(1, _N_ELEMENT)]) / 100.0


class MolGraph(NamedTuple):
    """One molecule, heavy atoms as nodes, each bond as two directed edges.

    All members are NumPy arrays. Edges are sorted by (source, target).
    """

    atom_features: np.ndarray
    """float32 [atom, feature], columns `ATOM_FEATURES`; invariant under renumbering of atoms."""
    edge_index: np.ndarray
    """int64 [2, edge]: row 0 the source atom, row 1 the target atom."""
    edge_features: np.ndarray
    """float32 [edge, feature], columns `EDGE_FEATURES`; equal in both directions of a bond."""
    reverse_edge: np.ndarray
    """int64 [edge]: number of the edge that runs the other way."""

    @property
    def n_atom(self) -> int:
        """Number of heavy atoms."""
        return self.atom_features.shape[0]

    @property
    def n_edge(self) -> int:
        """Number of directed edges, twice the number of bonds."""
        return self.edge_index.shape[1]


def featurise(molecule: str | Chem.Mol) -> MolGraph:
    """Return the graph of a molecule.

    Parameters
    ----------
    molecule : str or rdkit.Chem.Mol
        A SMILES or a sanitised molecule without explicit hydrogen atoms.

    Returns
    -------
    MolGraph
        Atoms in the order of the molecule.

    Raises
    ------
    core.errors.DataError
        If the SMILES cannot be read; the sentence gives the reason.

    Notes
    -----
    Stereo enters as CIP labels (R/S on atoms, E/Z on bonds). RDKit's own tag (clockwise or
    counter-clockwise) is never used: it depends on the order of the atoms, so that two SMILES
    of one molecule would get different features.
    `conjugated` means that both ends are sp or sp2 (RDKit counts an amide nitrogen as sp2).
    Donor: N or O that carries hydrogen. Acceptor: N or O that is neither positive nor has its
    lone pair in a ring or beside a double bond (pyrrole, amide and aniline nitrogen).
    """
    mol = mol_from_smiles(molecule) if isinstance(molecule, str) else molecule
    if not mol.HasProp("_StereochemDone"):
        mol = Chem.Mol(mol)
        Chem.AssignStereochemistry(mol)
    records = [
        (a.GetAtomicNum(), a.GetFormalCharge(), a.GetTotalNumHs(), a.GetHybridization())
        for a in mol.GetAtoms()
    ]
    element, charge, hydrogen, hybridisation = np.array(records, dtype=np.int64).T
    order = np.rint(2.0 * Chem.GetAdjacencyMatrix(mol, useBO=True)).astype(np.int64)
    order = np.maximum(order, order.T)  # a dative bond has an order in one direction only
    neighbour = Chem.GetAdjacencyMatrix(mol)
    source, target = np.nonzero(neighbour)
    degree = neighbour.sum(axis=1)
    planar = _IS_PLANAR[hybridisation]

    atom = np.zeros((element.size, N_ATOM_FEATURE), dtype=np.float32)
    row = np.arange(element.size)
    atom[row, _ELEMENT_COLUMN[element]] = 1.0
    atom[row, _ATOM["degree_0"] + np.minimum(degree, 5)] = 1.0
    atom[row, _ATOM["charge_zero"] + np.sign(charge)] = 1.0
    atom[row, _ATOM["hydrogen_0"] + np.minimum(hydrogen, 4)] = 1.0
    atom[row, _HYBRIDISATION_COLUMN[hybridisation]] = 1.0
    atom[:, _ATOM["aromatic"]] = (order == _AROMATIC_ORDER).any(axis=1)
    polar = (element == _NITROGEN) | (element == _OXYGEN)
    lone_pair_used = (element == _NITROGEN) & planar & (degree + hydrogen > 2)
    atom[:, _ATOM["donor"]] = polar & (hydrogen > 0)
    atom[:, _ATOM["acceptor"]] = polar & (charge <= 0) & ~lone_pair_used
    atom[:, _ATOM["mass_100_dalton"]] = _MASS[element]

    edge = np.zeros((source.size, N_EDGE_FEATURE), dtype=np.float32)
    edge[np.arange(source.size), _ORDER_COLUMN[order[source, target]]] = 1.0
    edge[:, _EDGE["conjugated"]] = planar[source] & planar[target]
    rings = mol.GetRingInfo().AtomRings()
    if rings:
        in_ring = np.zeros_like(neighbour, dtype=np.float32)
        for ring in map(list, rings):
            atom[ring, _RING_COLUMN[min(len(ring), _LARGE_RING)]] = 1.0
            in_ring[ring, ring[1:] + ring[:1]] = 1.0
        atom[:, _ATOM["ring"]] = in_ring.any(axis=1)
        edge[:, _EDGE["ring"]] = np.maximum(in_ring, in_ring.T)[source, target]

    for i in np.nonzero((degree + hydrogen > 2) & ~planar)[0]:
        label = mol.GetAtomWithIdx(int(i))
        if label.HasProp("_CIPCode"):
            atom[i, _ATOM["cip_" + label.GetProp("_CIPCode").lower()]] = 1.0
    can_be_stereo = (order[source, target] == _DOUBLE_ORDER) & (degree[source] > 1)
    for k in np.nonzero(can_be_stereo & (degree[target] > 1))[0]:
        bond = mol.GetBondBetweenAtoms(int(source[k]), int(target[k]))
        column = _STEREO_COLUMN.get(bond.GetStereo())
        if column is not None:
            edge[k, column] = 1.0
    # edges are sorted by source, so the stable sort by target visits each edge's reverse in turn
    reverse_edge = np.argsort(target, kind="stable")
    return MolGraph(atom, np.stack([source, target]), edge, reverse_edge)
