"""A molecule as a graph of heavy atoms: the waist between chemistry and the network.

Features are worked out from the arrays of many molecules at a time (`tables`), because a Python
call per atom and property, or a NumPy call per molecule and feature, would cost more than parsing.
"""

from typing import NamedTuple

import numpy as np
from rdkit import Chem
from rdkit.Chem import rdchem

from apps.chemistry.molecules.read import mol_from_smiles
from apps.chemistry.molecules.tables import LARGE_RING, Molecules, MolTables

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
_CHUNK = 256  # molecules worked on at a time; fits the cache
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
_RING_COLUMN = {size: _ATOM[f"ring_size_{size}"] for size in RING_SIZES}
_RING_COLUMN[LARGE_RING] = _ATOM["ring_size_large"]
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
_Bond = rdchem.BondType
_TWICE_ORDER = _lookup(
    256,
    {
        int(kind): order
        for kind, order in (
            (_Bond.SINGLE, 2),
            (_Bond.DATIVE, 2),
            (_Bond.ONEANDAHALF, _AROMATIC_ORDER),
            (_Bond.AROMATIC, _AROMATIC_ORDER),
            (_Bond.DOUBLE, _DOUBLE_ORDER),
            (_Bond.TRIPLE, 6),
        )
    },
    0,
)
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
    """Return the graph of one molecule; see `featurise_many`.

    Parameters
    ----------
    molecule : str or rdkit.Chem.Mol
        A SMILES or a sanitised molecule without explicit hydrogen atoms.

    Raises
    ------
    core.errors.DataError
        If the SMILES cannot be read; the sentence gives the reason.
    """
    if isinstance(molecule, str):
        molecule = mol_from_smiles(molecule)
    else:
        # RDKit's other calls (RenumberAtoms) leave a quick ring search that depends on atom order
        Chem.GetSymmSSSR(molecule)
    return featurise_many([molecule])[0]


def featurise_many(mols: Molecules) -> list[MolGraph]:
    """Return the graphs of molecules, in order.

    Parameters
    ----------
    mols : sequence of rdkit.Chem.Mol, or MolTables
        Molecules without explicit hydrogen atoms, with the rings that sanitisation finds.

    Returns
    -------
    list of MolGraph
        Atoms in the order of each molecule.

    Notes
    -----
    Stereo enters as CIP labels (R/S on atoms, E/Z on bonds). RDKit's own tag (clockwise or
    counter-clockwise) is never used: it depends on the order of the atoms, so that two SMILES
    of one molecule would get different features.
    `conjugated` means that both ends are sp or sp2 (RDKit counts an amide nitrogen as sp2).
    Donor: N or O that carries hydrogen. Acceptor: N or O that is not positive, except a planar
    nitrogen with three neighbours, hydrogen included (pyrrole, amide, aniline).
    """
    if isinstance(mols, MolTables):
        return _featurise_chunk(mols)
    graphs: list[MolGraph] = []
    for start in range(0, len(mols), _CHUNK):
        graphs += _featurise_chunk(MolTables.of(mols[start : start + _CHUNK]))
    return graphs


def _featurise_chunk(tables: MolTables) -> list[MolGraph]:
    """Featurise molecules as one large graph, then cut it apart.

    Atoms and edges of all molecules are numbered through; edges are sorted by (source, target).
    """
    mols = tables.mols
    if not mols:
        return []
    for mol in mols:
        if not mol.HasProp("_StereochemDone"):
            Chem.AssignStereochemistry(mol)
    element, hydrogen, degree = tables.element, tables.hydrogen, tables.degree
    order = np.argsort(tables.source * element.size + tables.target)
    source, target = tables.source[order], tables.target[order]
    bond_order, in_ring = (
        np.concatenate([of_bond, of_bond])[order]
        for of_bond in (_TWICE_ORDER[tables.bond_type], tables.in_ring)
    )
    n_atom, n_edge = np.diff(tables.first_atom), 2 * np.diff(tables.first_bond)
    first_atom, first_edge = tables.first_atom, 2 * tables.first_bond
    offset = np.repeat(first_atom[:-1], n_edge)
    local_source, local_target = source - offset, target - offset
    planar = _IS_PLANAR[tables.hybridisation]

    atom = np.zeros((element.size, N_ATOM_FEATURE), dtype=np.float32)
    row = np.arange(element.size)
    atom[row, _ELEMENT_COLUMN[element]] = 1.0
    atom[row, _ATOM["degree_0"] + np.minimum(degree, 5)] = 1.0
    atom[row, _ATOM["charge_zero"] + np.sign(tables.charge)] = 1.0
    atom[row, _ATOM["hydrogen_0"] + np.minimum(hydrogen, 4)] = 1.0
    atom[row, _HYBRIDISATION_COLUMN[tables.hybridisation]] = 1.0
    atom[source[bond_order == _AROMATIC_ORDER], _ATOM["aromatic"]] = 1.0
    polar = (element == _NITROGEN) | (element == _OXYGEN)
    lone_pair_used = (element == _NITROGEN) & planar & (degree + hydrogen > 2)
    atom[:, _ATOM["donor"]] = polar & (hydrogen > 0)
    atom[:, _ATOM["acceptor"]] = polar & (tables.charge <= 0) & ~lone_pair_used
    atom[:, _ATOM["mass_100_dalton"]] = _MASS[element]
    atom[:, _ATOM["ring"]] = tables.rings != 0
    for size, column in _RING_COLUMN.items():
        atom[:, column] = tables.rings >> size & 1

    edge = np.zeros((source.size, N_EDGE_FEATURE), dtype=np.float32)
    edge[np.arange(source.size), _ORDER_COLUMN[bond_order]] = 1.0
    edge[:, _EDGE["conjugated"]] = planar[source] & planar[target]
    edge[:, _EDGE["ring"]] = in_ring
    # a pair (i, j) comes in the order of i among the edges, and of i among the stable sort by
    # target: the latter lists, edge for edge, the one that runs the other way
    reverse_edge = np.argsort(target, kind="stable")

    mol_of_atom = np.repeat(np.arange(n_atom.size), n_atom)
    for i in np.nonzero((degree >= 3) & (hydrogen <= 1) & ~planar)[0].tolist():
        of = mol_of_atom[i]
        label = mols[of].GetAtomWithIdx(int(i - first_atom[of]))
        if label.HasProp("_CIPCode"):
            atom[i, _ATOM["cip_" + label.GetProp("_CIPCode").lower()]] = 1.0
    inner = (degree[source] > 1) & (degree[target] > 1)
    for k in np.nonzero(inner & (bond_order == _DOUBLE_ORDER))[0].tolist():
        mol = mols[mol_of_atom[source[k]]]
        bond = mol.GetBondBetweenAtoms(int(local_source[k]), int(local_target[k]))
        stereo = _STEREO_COLUMN.get(bond.GetStereo())
        if stereo is not None:
            edge[k, stereo] = 1.0

    local = np.stack([local_source, local_target])
    reverse_edge -= np.repeat(first_edge[:-1], n_edge)
    return [
        MolGraph(atom[a:b], local[:, e:f], edge[e:f], reverse_edge[e:f])
        for a, b, e, f in zip(
            first_atom[:-1], first_atom[1:], first_edge[:-1], first_edge[1:], strict=True
        )
    ]
