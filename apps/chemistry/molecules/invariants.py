"""Numbers that fingerprints begin with, one per atom: what is known of it by itself.

Each is that of RDKit, worked out for many molecules at a time from `MolTables`.
"""

import numpy as np
from rdkit import Chem

from apps.chemistry.molecules.tables import MolTables

_C, _N, _O, _P, _S = 6, 7, 8, 15, 16
_HALOGEN = (9, 17, 35, 53)
_Type = Chem.BondType
_SINGLE, _DOUBLE, _TRIPLE, _AROMATIC = map(
    int, (_Type.SINGLE, _Type.DOUBLE, _Type.TRIPLE, _Type.AROMATIC)
)
# Elements that a code of atom pairs tells apart; all others share one number.
_PAIR_ELEMENTS = (5, 6, 7, 8, 9, 14, 15, 16, 17, 33, 34, 35, 51, 52, 53)
_PAIR_TYPE = np.full(256, len(_PAIR_ELEMENTS), dtype=np.uint32)
_PAIR_TYPE[list(_PAIR_ELEMENTS)] = np.arange(len(_PAIR_ELEMENTS))
_PERIODIC = Chem.GetPeriodicTable()
_GOLDEN = np.uint32(0x9E3779B9)


def connectivity(tables: MolTables) -> np.ndarray:
    """Return uint32 [atom]: element, neighbours, hydrogen, charge, isotope, in a ring or not.

    Source: Rogers and Hahn, Extended-connectivity fingerprints, doi:10.1021/ci100050t.
    Checked against: RDKit's `GetConnectivityInvariants`.
    """
    extra = np.zeros_like(tables.element)
    for i in np.nonzero(tables.isotope)[0].tolist():
        element, isotope = int(tables.element[i]), int(tables.isotope[i])
        mass = _PERIODIC.GetMassForIsotope(element, isotope) or float(isotope)
        extra[i] = int(mass - _PERIODIC.GetAtomicWeight(element))
    n_hydrogen = tables.hydrogen + tables.n_hydrogen
    parts = (tables.element, tables.degree + tables.hydrogen, n_hydrogen, tables.charge, extra)
    number = np.zeros(tables.element.size, dtype=np.uint32)
    for part in parts:
        number = _combined(number, part.astype(np.uint32))
    in_ring = tables.rings != 0
    number[in_ring] = _combined(number[in_ring], np.ones(1, dtype=np.uint32))
    return number


def _combined(seed: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Return boost's hash of a number and what was hashed before, uint32."""
    out: np.ndarray = seed ^ (value + _GOLDEN + (seed << np.uint32(6)) + (seed >> np.uint32(2)))
    return out


def pair_codes(tables: MolTables) -> np.ndarray:
    """Return uint32 [atom]: branches, pi electrons and element, the kind of an atom in pairs.

    Source: Carhart et al., Atom pairs as molecular features, doi:10.1021/ci00046a002.
    Checked against: RDKit's `GetAtomPairAtomCode`.
    """
    branch = (tables.degree % 8).astype(np.uint32)
    pi = (tables.pi % 4).astype(np.uint32)
    out: np.ndarray = branch | pi << np.uint32(3) | _PAIR_TYPE[tables.element] << np.uint32(5)
    return out


def path_kinds(tables: MolTables) -> np.ndarray:
    """Return uint32 [atom]: element and aromaticity."""
    kind: np.ndarray = (tables.element % 128) << 1 | tables.aromatic
    return kind.astype(np.uint32)


def features(tables: MolTables) -> np.ndarray:
    """Return uint32 [atom]: donor, acceptor, aromatic, halogen, basic, acidic, lowest bit first.

    Source: Gobbi and Poppinger, Genetic optimization of combinatorial libraries, Biotechnol.
    Bioeng. 61 (1998) 47, as RDKit has their definitions.
    Checked against: RDKit's `GetFeatureInvariants`.
    """
    at = _Neighbourhood(tables)
    h, charge, valence = at.hydrogen, tables.charge, tables.valence
    aromatic = tables.aromatic != 0
    aliphatic = ~aromatic
    nitrogen, oxygen, sulphur = (tables.element == z for z in (_N, _O, _S))
    chalcogen = oxygen | sulphur
    n, o_s, oxo = aliphatic & nitrogen, aliphatic & chalcogen, aliphatic & oxygen
    neutral = charge == 0
    pyridine = aromatic & nitrogen & (h == 0) & neutral
    donor = (
        (n & (h > 0) & ((valence == 3) | ((valence == 4) & (charge == 1))))
        | (o_s & (h == 1) & neutral)
        | (aromatic & nitrogen & (h == 1) & neutral)
    )
    ring_nitrogen = aromatic & nitrogen
    ring_carbon = aromatic & (tables.element == _C)
    in_azole = at.any(at.aromatic, ring_nitrogen) | at.any(
        at.aromatic, ring_carbon & at.any(at.aromatic, ring_nitrogen)
    )
    acceptor = (
        _aliphatic_acceptors(tables, at, at.double)
        | pyridine
        | (aromatic & chalcogen & neutral & ~in_azole)
    )
    carbon = aliphatic & (tables.element == _C)
    keto = at.any(at.double, oxo)
    plain = (carbon | aromatic) & ~(carbon & keto)
    n_plain = at.count(at.simple, plain)
    n_carbon = at.count(at.simple, carbon & ~keto)
    basic = nitrogen & (
        (charge == 1)
        | (aliphatic & neutral & (h == 2) & (n_plain > 0))
        | (aliphatic & neutral & (h == 1) & (n_plain > 1))
        | (aliphatic & neutral & (h == 0) & (n_carbon > 2))
    )
    acid_oxygen = oxo & ((h == 1) | (charge == -1))
    acid = aliphatic & ((tables.element == _C) | sulphur)
    acidic = (
        acid
        & at.any(at.double, aliphatic & np.isin(tables.element, (_O, _S, _P)))
        & at.any(at.single, acid_oxygen)
    )
    halogen = np.isin(tables.element, _HALOGEN)
    bits = (donor, acceptor, aromatic, halogen, basic, acidic)
    out = np.zeros(tables.element.size, dtype=np.uint32)
    for k, bit in enumerate(bits):
        out |= bit.astype(np.uint32) << np.uint32(k)
    return out


def acceptors(tables: MolTables) -> np.ndarray:
    """Return bool [atom]: what takes hydrogen bonds.

    Unlike the feature of that name, aromatic nitrogen with three neighbours is none of them, and
    oxygen and sulphur beside it in a ring are.
    Checked against: RDKit's `CalcNumHBA`.
    """
    at = _Neighbourhood(tables)
    neutral = (tables.aromatic != 0) & (tables.charge == 0)
    pyridine = (tables.element == _N) & (tables.degree + tables.hydrogen == 2) & (at.hydrogen == 0)
    in_chain = at.double & ~np.concatenate([tables.in_ring, tables.in_ring]).astype(bool)
    out: np.ndarray = _aliphatic_acceptors(tables, at, in_chain) | (
        neutral & (pyridine | np.isin(tables.element, (_O, _S)))
    )
    return out


def _aliphatic_acceptors(tables: MolTables, at: "_Neighbourhood", double: np.ndarray) -> np.ndarray:
    """Return bool [atom]; `double` are the bonds beside which a nitrogen takes none, bool [2 B]."""
    aliphatic = tables.aromatic == 0
    chalcogen = aliphatic & np.isin(tables.element, (_O, _S))
    nitrogen = aliphatic & (tables.element == _N)
    polar = aliphatic & np.isin(tables.element, (_O, _N, _P, _S))
    # a neighbour by a single bond bears a double bond to a polar atom
    beside, beside_amide = (
        at.any(at.single, at.any(bonds, polar)) for bonds in (at.double, double)
    )
    two, none = tables.valence == 2, at.hydrogen == 0
    out: np.ndarray = (
        (chalcogen & two & (none | ((at.hydrogen == 1) & ~beside)))
        | (chalcogen & (tables.charge == -1))
        | (nitrogen & (tables.valence == 3) & ~beside_amide)
    )
    return out


def rotatable(tables: MolTables) -> np.ndarray:
    """Return bool [bond]: single bonds outside rings that turn one part of the molecule.

    Not so bonds to atoms at an end, to CF3 and the like, to tert-butyl, beside triple bonds, and
    of amides and esters. Checked against: RDKit's `CalcNumRotatableBonds`.
    """
    at = _Neighbourhood(tables)
    aliphatic = tables.aromatic == 0
    element, inner = tables.element, tables.degree - tables.n_hydrogen > 1
    carbon = aliphatic & (element == _C)
    methyl = carbon & (at.hydrogen == 3)
    rotor = [aliphatic & (element == z) for z in (9, 17, 35)]
    blocked = np.zeros_like(carbon)
    for kind in (*rotor, methyl):
        blocked |= carbon & (at.count(at.simple, kind) > 2)
    every = np.ones_like(carbon)
    turns = inner & ~blocked & ~at.any(at.triple, every)
    # amides and esters: a carbonyl, or what is bound to one outside a ring
    polar = aliphatic & np.isin(element, (_N, _O, _S))
    carbonyl = carbon & (tables.degree == 3) & at.any(at.double, polar)
    hetero = (element == _N) | (aliphatic & (element == _O)) | (aliphatic & (element == _S) & inner)
    chain = at.single & ~np.concatenate([tables.in_ring, tables.in_ring]).astype(bool)
    stiff = (carbonyl & at.any(chain, hetero)) | (hetero & at.any(chain, carbonyl))
    n = tables.begin.size
    a, b = tables.source[:n], tables.target[:n]
    out: np.ndarray = (
        (at.simple[:n] & (tables.in_ring == 0)) & turns[a] & turns[b] & ~(stiff[a] & stiff[b])
    )
    return out


class _Neighbourhood:
    """Questions about the neighbours of atoms; bonds are told in both directions."""

    def __init__(self, tables: MolTables):
        kind = np.concatenate([tables.bond_type, tables.bond_type])
        self._source, self._target = tables.source, tables.target
        self._n = tables.element.size
        self.hydrogen = tables.hydrogen + tables.n_hydrogen
        self.single, self.double = kind == _SINGLE, kind == _DOUBLE
        self.aromatic, self.triple = kind == _AROMATIC, kind == _TRIPLE
        self.simple = self.single | self.aromatic

    def count(self, bonds: np.ndarray, atoms: np.ndarray) -> np.ndarray:
        """Return int64 [atom]: how many neighbours it has by such `bonds`, [2 B], among `atoms`."""
        kept = bonds & atoms[self._target]
        return np.bincount(self._source[kept], minlength=self._n)

    def any(self, bonds: np.ndarray, atoms: np.ndarray) -> np.ndarray:
        """Return bool [atom]: whether there is one."""
        return self.count(bonds, atoms) > 0
