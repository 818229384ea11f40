"""The model pocket: an embedded set of ligands whose affinity follows a closed formula.

Each ligand is an aromatic core with three arms: an amide (site 1), a substituent on the ring
(site 2) and a branched amine (site 3, a stereocentre). Three sub-pockets receive the arms. The
affinity is a formula of the arms' volumes, lipophilicities, hydrogen bonds, charges and rotors,
with one coupling between two sites and one preference for a mirror image, so that everything
that a measured set hides is known here: the noise, the share of every atom, the best error that
any model can reach. It is **not** experimental data, and says "model pocket" wherever it shows.

The test part holds groups and a core that no training row has: a model that only remembers
groups (Free-Wilson) cannot pass it, one that sees the atoms can.
"""

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from rdkit import Chem

NOISE_SD = 0.3  # pK units; of the order of a good biochemical assay
NAME = "model pocket"
UNIT = "pK (model pocket)"

# Aromatic cores. Attachment points: 1 on the amide, 2 on the ring, 3 on the stereocentre.
CORES = {
    "benzene-135": "O=C(N[*:1])c1cc([*:2])cc(N[C@@H](C)[*:3])c1",
    "benzene-124": "O=C(N[*:1])c1ccc(N[C@@H](C)[*:3])c([*:2])c1",
    "pyridine-4": "O=C(N[*:1])c1cc([*:2])nc(N[C@@H](C)[*:3])c1",
    "pyrimidine": "O=C(N[*:1])c1cc([*:2])nc(N[C@@H](C)[*:3])n1",
    "thiophene": "O=C(N[*:1])c1cc([*:2])c(N[C@@H](C)[*:3])s1",
    "pyridine-3": "O=C(N[*:1])c1cnc([*:2])c(N[C@@H](C)[*:3])c1",
}
TEST_CORE = "pyridine-3"

# Every group joins through a carbon atom, so that CIP priorities at the stereocentre never
# swap (N > arm > CH3 > H) and the label R or S keeps one meaning throughout the set.
GROUPS = {
    "methyl": "*C",
    "ethyl": "*CC",
    "propyl": "*CCC",
    "butyl": "*CCCC",
    "isopropyl": "*C(C)C",
    "isobutyl": "*CC(C)C",
    "tert-butyl": "*C(C)(C)C",
    "neopentyl": "*CC(C)(C)C",
    "cyclopropyl": "*C1CC1",
    "cyclobutyl": "*C1CCC1",
    "cyclopentyl": "*C1CCCC1",
    "cyclohexyl": "*C1CCCCC1",
    "cyclopropylmethyl": "*CC1CC1",
    "cyclohexylmethyl": "*CC1CCCCC1",
    "difluoromethyl": "*C(F)F",
    "trifluoromethyl": "*C(F)(F)F",
    "trifluoroethyl": "*CC(F)(F)F",
    "fluoroethyl": "*CCF",
    "chloroethyl": "*CCCl",
    "vinyl": "*C=C",
    "propargyl": "*CC#C",
    "phenyl": "*c1ccccc1",
    "3-fluorophenyl": "*c1cccc(F)c1",
    "3-chlorophenyl": "*c1cccc(Cl)c1",
    "4-fluorophenyl": "*c1ccc(F)cc1",
    "4-chlorophenyl": "*c1ccc(Cl)cc1",
    "4-bromophenyl": "*c1ccc(Br)cc1",
    "4-tolyl": "*c1ccc(C)cc1",
    "4-anisyl": "*c1ccc(OC)cc1",
    "4-cyanophenyl": "*c1ccc(C#N)cc1",
    "4-hydroxyphenyl": "*c1ccc(O)cc1",
    "benzyl": "*Cc1ccccc1",
    "4-fluorobenzyl": "*Cc1ccc(F)cc1",
    "4-chlorobenzyl": "*Cc1ccc(Cl)cc1",
    "phenethyl": "*CCc1ccccc1",
    "2-pyridyl": "*c1ccccn1",
    "3-pyridyl": "*c1cccnc1",
    "4-pyridyl": "*c1ccncc1",
    "5-pyrimidinyl": "*c1cncnc1",
    "2-thienyl": "*c1cccs1",
    "2-furyl": "*c1ccco1",
    "hydroxymethyl": "*CO",
    "2-hydroxyethyl": "*CCO",
    "3-hydroxypropyl": "*CCCO",
    "methoxymethyl": "*COC",
    "2-methoxyethyl": "*CCOC",
    "3-methoxypropyl": "*CCCOC",
    "methylthioethyl": "*CCSC",
    "cyanomethyl": "*CC#N",
    "2-cyanoethyl": "*CCC#N",
    "carbamoylmethyl": "*CC(N)=O",
    "methylcarbamoylmethyl": "*CC(=O)NC",
    "2-carbamoylethyl": "*CCC(N)=O",
    "oxetanyl": "*C1COC1",
    "oxolan-3-yl": "*C1CCOC1",
    "oxan-4-yl": "*C1CCOCC1",
    "2-ammonioethyl": "*CC[NH3+]",
    "3-ammoniopropyl": "*CCC[NH3+]",
    "4-ammoniobutyl": "*CCCC[NH3+]",
    "dimethylammonioethyl": "*CC[NH+](C)C",
    "piperidinium-4-yl": "*C1CC[NH2+]CC1",
    "carboxylatomethyl": "*CC(=O)[O-]",
    "2-carboxylatoethyl": "*CCC(=O)[O-]",
    "3-carboxylatopropyl": "*CCCC(=O)[O-]",
}
# Held out whole. Each lies between relatives that stay in the training part.
VALID_GROUPS = ("isobutyl", "cyclobutyl", "3-fluorophenyl", "4-chlorobenzyl", "3-hydroxypropyl")
TEST_GROUPS = (
    "propyl",
    "cyclopentyl",
    "4-chlorophenyl",
    "4-fluorobenzyl",
    "3-pyridyl",
    "2-methoxyethyl",
    "2-carbamoylethyl",
    "3-ammoniopropyl",
)

# van der Waals volume of one atom over that of carbon: (r / 1.70 angstrom)**3, radii of
# Bondi, J. Phys. Chem. 68 (1964) 441. Lipophilicity: round figures of this model.
_VOLUME = {6: 1.0, 7: 0.758, 8: 0.715, 9: 0.647, 16: 1.187, 17: 1.091, 35: 1.289}
_LIPOPHILICITY = {6: 0.4, 7: -0.6, 8: -0.6, 9: 0.2, 16: 0.5, 17: 0.7, 35: 0.9}


@dataclass(frozen=True)
class SubPocket:
    """What one sub-pocket rewards and refuses; energies in pK units, volumes in carbon atoms."""

    fill: float
    """Gain of a well-filled pocket."""
    capacity: float
    """Volume at which 76 % (tanh 1) of `fill` is earned."""
    limit: float
    """Volume beyond which the arm meets the wall."""
    clash: float
    """Loss per volume beyond `limit`."""
    hydrophobicity: float
    """Gain per unit of lipophilicity."""
    donor: float
    """Gain of one hydrogen-bond donor (the first only)."""
    acceptor: float
    """Gain of one hydrogen-bond acceptor (the first only)."""
    desolvation: float
    """Loss per polar atom."""
    charge: float
    """Gain per unit of positive charge."""


SUB_POCKETS = (
    SubPocket(1.0, 4.0, 8.0, 0.3, -0.10, 0.0, 0.9, 0.1, 0.5),
    SubPocket(1.6, 3.5, 6.5, 0.5, 0.35, 0.0, 0.0, 0.3, -0.3),
    SubPocket(1.2, 2.5, 4.5, 0.4, 0.10, 0.7, 0.0, 0.1, -0.6),
)
BASE_PK = 5.4
ROTOR_COST = 0.12  # pK per bond that stops turning
RING_NITROGEN_COST = 0.15  # pK per nitrogen of the core
STEREO_GAIN = 0.8  # pK, R above or S below the mean, for an arm that fills site 3
COUPLING_COST = 2.7  # pK when the arms of sites 1 and 2 are both bulky
COUPLING_VOLUME = 4.5  # carbon atoms; half-way from slim to bulky
COUPLING_WIDTH = 0.7  # carbon atoms


@dataclass(frozen=True)
class Group:
    """One arm: per-atom figures [atom] of its heavy atoms and what follows from them."""

    mol: Chem.Mol
    volume: np.ndarray
    lipophilicity: np.ndarray
    donor: np.ndarray
    acceptor: np.ndarray
    charge: np.ndarray
    n_rotor: int


@cache
def group(name: str) -> Group:
    """Return the arm `name` with its figures; the dummy atom is not counted."""
    mol = Chem.MolFromSmiles(GROUPS[name])
    atoms = [a for a in mol.GetAtoms() if a.GetAtomicNum()]
    element = [a.GetAtomicNum() for a in atoms]
    charge = np.array([a.GetFormalCharge() for a in atoms], dtype=float)
    polar = np.isin(element, (7, 8))
    hydrogen = np.array([a.GetTotalNumHs() for a in atoms])
    is_amide = [_is_amide_nitrogen(a) for a in atoms]
    turning = sum(
        not b.IsInRing()
        and b.GetBondType() == Chem.BondType.SINGLE
        and all(
            a.GetAtomicNum() == 0 or a.GetDegree() > 1 for a in (b.GetBeginAtom(), b.GetEndAtom())
        )
        for b in mol.GetBonds()
    )
    return Group(
        mol=mol,
        volume=np.array([_VOLUME[z] for z in element]),
        lipophilicity=np.array([_LIPOPHILICITY[z] for z in element]) - 0.5 * np.abs(charge),
        donor=(polar & (hydrogen > 0)).astype(float),
        acceptor=(polar & (charge <= 0) & ~np.array(is_amide)).astype(float),
        charge=charge,
        n_rotor=turning,
    )


def _is_amide_nitrogen(atom: Chem.Atom) -> bool:
    return atom.GetAtomicNum() == 7 and any(
        b.GetBondType() == Chem.BondType.DOUBLE
        for carbon in atom.GetNeighbors()
        for b in carbon.GetBonds()
        if not atom.GetIsAromatic()
    )


def site_energy(name: str, site: int) -> np.ndarray:
    """Return float64 [atom]: pK that each heavy atom of arm `name` adds in sub-pocket `site` 0..2.

    Volume terms are shared by volume, hydrogen bonds by their atoms, rotors evenly. The mirror
    preference and the coupling of sites 1 and 2 are not part of it.
    """
    arm, pocket = group(name), SUB_POCKETS[site]
    volume = arm.volume.sum()
    filling = pocket.fill * np.tanh(volume / pocket.capacity)
    clash = pocket.clash * np.logaddexp(0.0, volume - pocket.limit)
    return (
        (filling - clash) * arm.volume / volume
        + pocket.hydrophobicity * arm.lipophilicity
        + pocket.donor * arm.donor / max(1.0, arm.donor.sum())
        + pocket.acceptor * arm.acceptor / max(1.0, arm.acceptor.sum())
        - pocket.desolvation * np.maximum(arm.donor, arm.acceptor)
        + pocket.charge * arm.charge
        - ROTOR_COST * arm.n_rotor / arm.volume.size
    )


def coupling_energy(name_1: str, name_2: str) -> float:
    """Return the pK lost because arms 1 and 2 are both bulky (the one non-additive pair)."""
    bulk = [
        1.0 / (1.0 + np.exp((COUPLING_VOLUME - group(name).volume.sum()) / COUPLING_WIDTH))
        for name in (name_1, name_2)
    ]
    return -COUPLING_COST * bulk[0] * bulk[1]


def stereo_energy(name_3: str, label: str) -> float:
    """Return the pK that the mirror image adds: `label` "R", "S" or "" (no stereocentre)."""
    sign = {"R": 1.0, "S": -1.0, "": 0.0}[label]
    return sign * STEREO_GAIN * np.tanh(group(name_3).volume.sum() / SUB_POCKETS[2].capacity)


@dataclass(frozen=True)
class Ligand:
    """One ligand of the model pocket."""

    smiles: str
    """Canonical SMILES."""
    core: str
    """Key of `CORES`."""
    groups: tuple[str, str, str]
    """Keys of `GROUPS` at sites 1, 2, 3."""
    stereo: str
    """"R", "S" or "" where the arm leaves no stereocentre."""
    atom_pk: np.ndarray
    """float64 [atom]: share of each heavy atom, in the atom order of `smiles`."""

    @property
    def pk(self) -> float:
        """Affinity without noise: `BASE_PK` plus the shares of all atoms."""
        return BASE_PK + float(self.atom_pk.sum())


def build_ligand(core: str, groups: tuple[str, str, str], tag: str = "@@") -> Ligand:
    """Join a core and three arms, and work out the share of each atom.

    Parameters
    ----------
    core : str
        Key of `CORES`.
    groups : tuple of str
        Keys of `GROUPS` at sites 1, 2, 3.
    tag : str
        "@" or "@@": which of the two mirror images.
    """
    whole = Chem.MolFromSmiles(CORES[core].replace("@@", tag))
    for atom in whole.GetAtoms():
        atom.SetIntProp("site", 0)
    for site, name in enumerate(groups, start=1):
        arm = Chem.Mol(group(name).mol)
        for i, atom in enumerate(arm.GetAtoms()):
            atom.SetIntProp("site", site)
            atom.SetIntProp("place", i - 1)  # the dummy comes first in every entry of GROUPS
        arm.GetAtomWithIdx(0).SetAtomMapNum(site)
        whole = Chem.CombineMols(whole, arm)
    mol = Chem.molzip(whole)
    Chem.SanitizeMol(mol)
    Chem.AssignStereochemistry(mol, cleanIt=True, force=True)
    labels = [a.GetProp("_CIPCode") for a in mol.GetAtoms() if a.HasProp("_CIPCode")]
    stereo = labels[0] if labels else ""

    shares = [site_energy(name, site) for site, name in enumerate(groups)]
    volumes = [group(name).volume for name in groups]
    for site in (0, 1):
        half = 0.5 * coupling_energy(groups[0], groups[1])
        shares[site] = shares[site] + half * volumes[site] / volumes[site].sum()
    mirror = stereo_energy(groups[2], stereo)
    shares[2] = shares[2] + mirror * volumes[2] / volumes[2].sum()

    smiles = Chem.MolToSmiles(mol)
    order = mol.GetPropsAsDict(True, True)["_smilesAtomOutputOrder"]
    atom_pk = np.zeros(mol.GetNumAtoms())
    for i, i_atom in enumerate(order):
        atom = mol.GetAtomWithIdx(i_atom)
        site = atom.GetIntProp("site")
        if site:
            atom_pk[i] = shares[site - 1][atom.GetIntProp("place")]
        elif atom.GetAtomicNum() == 7 and atom.GetIsAromatic():
            atom_pk[i] = -RING_NITROGEN_COST
    return Ligand(smiles, core, groups, stereo, atom_pk)


class PocketSet(NamedTuple):
    """The ligands of the set, in the order train, valid, test."""

    ligands: list[Ligand]
    """[ligand]"""
    split: np.ndarray
    """str [ligand]: "train", "valid" or "test"."""
    held_out: np.ndarray
    """str [ligand]: "r_group" or "core", what no training row has; "" for training rows."""
    pk: np.ndarray
    """float64 [ligand]: affinity with noise of standard deviation `NOISE_SD`, four decimals."""

    def csv_text(self) -> str:
        """Return the set as comma-separated text with a header."""
        lines = ["smiles,core,group_1,group_2,group_3,stereo,pk,pk_true,split,held_out"]
        for ligand, part, held_out, pk in zip(*self, strict=True):
            cells = [ligand.smiles, ligand.core, *ligand.groups, ligand.stereo]
            lines.append(",".join([*cells, f"{pk:.4f}", f"{ligand.pk:.4f}", part, held_out]))
        return "\n".join(lines) + "\n"


def generate(
    n_train: int = 1800, n_valid: int = 250, n_test: int = 550, *, seed: int = 0
) -> PocketSet:
    """Draw the ligands of the set.

    Parameters
    ----------
    n_train, n_valid, n_test : int
        Rows of each part. Training rows hold neither the groups of `VALID_GROUPS` and
        `TEST_GROUPS` nor `TEST_CORE`. Each validation row holds one group of `VALID_GROUPS`; of
        the test rows three in four hold one of `TEST_GROUPS` and one in four `TEST_CORE`.
    seed : int
        Draws the combinations and the noise; the same seed gives the same text.
    """
    rng = np.random.default_rng(seed)
    cores = [core for core in CORES if core != TEST_CORE]
    common = [name for name in GROUPS if name not in VALID_GROUPS + TEST_GROUPS]
    no_group: tuple[str, ...] = ()
    n_core = n_test // 4
    parts = (
        ("train", "", no_group, n_train),
        ("valid", "r_group", VALID_GROUPS, n_valid),
        ("test", "r_group", TEST_GROUPS, n_test - n_core),
        ("test", "core", no_group, n_core),
    )
    rows: list[tuple[Ligand, str, str]] = []
    seen: set[str] = set()
    for part, held_out, special, n in parts:
        n_row = len(rows) + n
        while len(rows) < n_row:
            core = TEST_CORE if held_out == "core" else cores[rng.integers(len(cores))]
            arms = [common[rng.integers(len(common))] for _ in range(3)]
            if special:
                arms[rng.integers(3)] = special[rng.integers(len(special))]
            tag = ("@", "@@")[rng.integers(2)]
            ligand = build_ligand(core, (arms[0], arms[1], arms[2]), tag)
            if ligand.smiles not in seen:
                seen.add(ligand.smiles)
                rows.append((ligand, part, held_out))
    ligands = [ligand for ligand, _, _ in rows]
    truth = np.array([ligand.pk for ligand in ligands])
    pk = np.round(truth + NOISE_SD * rng.standard_normal(len(rows)), 4)
    split, held_out_by_row = (np.array([row[i] for row in rows]) for i in (1, 2))
    return PocketSet(ligands, split, held_out_by_row, pk)
