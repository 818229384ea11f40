"""Molecules that nobody has measured, made of measured ones: two exchange a branch."""

from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from rdkit import Chem
from rdkit.rdBase import BlockLogs

from apps.chemistry.molecules.read import mol_from_smiles

MAX_BRANCH = 12  # heavy atoms of a branch that is exchanged; at most half of the molecule
_N_TRY = 6  # draws for each molecule that is wanted, then fewer are given
_CUT = [(1, 1)]  # isotope of the stubs on both sides of a cut bond
_ZIP = Chem.MolzipParams()
_ZIP.label = Chem.MolzipLabel.Isotope

Site = tuple[int, bool, int]
"""Where a branch hangs: element of the atom, aromatic, number of its neighbours."""


class Analogues(NamedTuple):
    """New molecules and what they are made of. Shape letter: N analogues."""

    smiles: list[str]
    """[N]: canonical, each once."""
    parent: np.ndarray
    """int64 [N]: row that gave all but the branch."""
    donor: np.ndarray
    """int64 [N]: row that gave the branch."""


def make_analogues(
    smiles: Sequence[str],
    series: Sequence[np.ndarray],
    n: int,
    *,
    known: Collection[str] = (),
    seed: int,
) -> Analogues:
    """Return up to `n` molecules, each a row with one branch replaced by that of another row.

    Parameters
    ----------
    smiles : sequence of str
        Parents and donors.
    series : sequence of ndarray, int64 [row]
        Rows that belong together (measured for one task): parent and donor are of one series, and
        all series have the same chance per row.
    n : int
    known : collection of str
        Canonical SMILES that are not wanted.
    seed : int

    Notes
    -----
    A branch hangs on a ring by a single bond outside of rings, and goes to a site alike: same
    element, aromaticity and number of neighbours. Chemists explore a series in this way, so that
    what a series will hold next lies near what is made here.
    """
    rng = np.random.default_rng(seed)
    taken = set(known)
    out: list[str] = []
    parents, donors = [], []
    parts = _Parts(smiles)
    share = np.array([rows.size for rows in series], dtype=np.float64)
    share /= share.sum()
    with BlockLogs():
        for number in rng.choice(len(series), size=_N_TRY * n, p=share):
            if len(out) == n:
                break
            parent, donor = (int(i) for i in rng.choice(series[number], size=2))
            made = _exchange(parts.of(parent), parts.of(donor), rng)
            if made is not None and made not in taken:
                taken.add(made)
                out.append(made)
                parents.append(parent)
                donors.append(donor)
    return Analogues(out, np.array(parents, dtype=np.int64), np.array(donors, dtype=np.int64))


class _Piece(NamedTuple):
    core: Chem.Mol
    branch: Chem.Mol
    site: Site


class _Parts:
    """The ways to cut each molecule, found when asked for."""

    def __init__(self, smiles: Sequence[str]):
        self.of = lru_cache(maxsize=None)(lambda row: list(_pieces(mol_from_smiles(smiles[row]))))


def _pieces(mol: Chem.Mol) -> Iterator[_Piece]:
    """Yield core and branch of each bond that may be cut."""
    for bond in mol.GetBonds():
        ends = bond.GetBeginAtom(), bond.GetEndAtom()
        is_single = bond.GetBondType() == Chem.BondType.SINGLE and not bond.IsInRing()
        if not is_single or not any(end.IsInRing() for end in ends):
            continue
        cut = Chem.FragmentOnBonds(mol, [bond.GetIdx()], dummyLabels=_CUT)
        found = Chem.GetMolFrags(cut, asMols=True, sanitizeFrags=False)
        if len(found) != 2:
            continue
        branch, core = sorted(found, key=lambda part: part.GetNumAtoms())
        stub = next(a for a in core.GetAtoms() if a.GetAtomicNum() == 0 and a.GetIsotope() == 1)
        atom = stub.GetNeighbors()[0]
        if branch.GetNumAtoms() - 1 <= MAX_BRANCH and atom.IsInRing():
            yield _Piece(
                core, branch, (atom.GetAtomicNum(), atom.GetIsAromatic(), atom.GetDegree())
            )


def _exchange(
    parent: Sequence[_Piece], donor: Sequence[_Piece], rng: np.random.Generator
) -> str | None:
    """Return the SMILES of a core of `parent` with a branch of `donor`, None where none fits."""
    pairs = [(a.core, b.branch) for a in parent for b in donor if a.site == b.site]
    if not pairs:
        return None
    core, branch = pairs[int(rng.integers(len(pairs)))]
    try:
        mol = Chem.molzip(core, branch, _ZIP)
        Chem.SanitizeMol(mol)
        return str(Chem.MolToSmiles(mol))
    except (ValueError, RuntimeError):  # a valence or a ring system that RDKit refuses
        return None
