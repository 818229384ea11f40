"""Molecules cut short or with heteroatoms made carbon: the questions that explanations ask."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rdkit import Chem

_CARBON, _NITROGEN = 6, 7
_SINGLE = Chem.BondType.SINGLE
_MULTIPLE = (Chem.BondType.DOUBLE, Chem.BondType.TRIPLE)


class Branch(NamedTuple):
    """Atoms on the far side of a single bond outside of rings."""

    inner: int
    """Atom that stays."""
    outer: int
    """First atom of the branch."""
    atoms: frozenset[int]


def branches(mol: Chem.Mol) -> list[Branch]:
    """Return the branches of a molecule seen from its central ring, nearest bonds first."""
    distance = Chem.GetDistanceMatrix(mol)
    from_centre = distance[centre(mol)]
    out = []
    for bond in mol.GetBonds():
        if bond.IsInRing() or bond.GetBondType() != _SINGLE:
            continue
        ends = (bond.GetBeginAtomIdx(), bond.GetEndAtomIdx())
        inner, outer = sorted(ends, key=lambda i: from_centre[i])
        out.append(Branch(inner, outer, _beyond(mol, outer, inner)))
    return sorted(out, key=lambda b: (from_centre[b.inner], b.outer))


def centre(mol: Chem.Mol) -> int:
    """Return the ring atom (any atom, without rings) nearest to all others."""
    distance = Chem.GetDistanceMatrix(mol).sum(axis=1)
    ring = [atom.GetIdx() for atom in mol.GetAtoms() if atom.IsInRing()]
    rank = Chem.CanonicalRankAtoms(mol)  # ties must not depend on the order of the atoms
    return min(ring or range(mol.GetNumAtoms()), key=lambda i: (distance[i], rank[i]))


def _beyond(mol: Chem.Mol, start: int, behind: int) -> frozenset[int]:
    seen, waiting = {start}, [start]
    while waiting:
        for atom in mol.GetAtomWithIdx(waiting.pop()).GetNeighbors():
            i = atom.GetIdx()
            if i != behind and i not in seen:
                seen.add(i)
                waiting.append(i)
    return frozenset(seen)


def shorten(
    mol: Chem.Mol,
    gone: Iterable[Branch],
    *,
    methyl: Iterable[Branch] = (),
    ethyl: Branch | None = None,
    mirror: bool = False,
) -> Chem.Mol | None:
    """Return the molecule with branches replaced.

    Parameters
    ----------
    mol : Mol
    gone : iterable of Branch
        Replaced by hydrogen.
    methyl : iterable of Branch
        Replaced by methyl.
    ethyl : Branch, optional
        Replaced by ethyl.
    mirror : bool
        Turn the stereocentre that bears `ethyl` around.

    Returns
    -------
    Mol or None
        None where no valid molecule is left.
    """
    out = Chem.RWMol(mol)
    kept = [*methyl]
    if ethyl is not None:
        kept.append(ethyl)
        out.AddBond(ethyl.outer, out.AddAtom(Chem.Atom(_CARBON)), _SINGLE)
        if mirror:
            out.GetAtomWithIdx(ethyl.inner).InvertChirality()
    _cut_back(out, gone, kept)
    return _valid(out)


def _cut_back(out: Chem.RWMol, gone: Iterable[Branch], kept: Iterable[Branch]) -> None:
    """Cut branches off, in place; of those that are kept, the first atom stays, made carbon."""
    removed: set[int] = set()
    for branch in kept:
        out.ReplaceAtom(branch.outer, Chem.Atom(_CARBON))
        removed |= branch.atoms - {branch.outer}
    for branch in gone:
        removed |= branch.atoms
        atom = out.GetAtomWithIdx(branch.inner)
        if (atom.GetNoImplicit() or atom.GetIsAromatic()) and atom.GetAtomicNum() != _CARBON:
            atom.SetNumExplicitHs(atom.GetNumExplicitHs() + 1)
        elif atom.GetNoImplicit():
            atom.SetNoImplicit(False)
    out.BeginBatchEdit()
    for i in removed:
        out.RemoveAtom(i)
    out.CommitBatchEdit()


def as_carbon(
    mol: Chem.Mol,
    atoms: Sequence[int],
    *,
    saturate: bool,
    gone: Iterable[Branch] = (),
    methyl: Iterable[Branch] = (),
) -> Chem.Mol | None:
    """Return the molecule with atoms made carbon, or None where that is no valid molecule.

    Parameters
    ----------
    mol : Mol
    atoms : sequence of int
    saturate : bool
        Make their double and triple bonds single: a carboxylate becomes isopropyl, not isopropenyl.
    gone, methyl : iterable of Branch
        Branches replaced as well, see `shorten`; none of them holds any of `atoms`.

    Notes
    -----
    The O, S or NH of an aromatic ring of five becomes CH=CH: furan turns into benzene
    (`becomes_two`).
    """
    out = Chem.RWMol(mol)
    for i in atoms:
        atom = out.GetAtomWithIdx(i)
        atom.SetAtomicNum(_CARBON)
        atom.SetFormalCharge(0)
        atom.SetNumExplicitHs(0)
        atom.SetNoImplicit(False)
        for bond in atom.GetBonds():
            if saturate and bond.GetBondType() in _MULTIPLE:
                bond.SetBondType(_SINGLE)
        if becomes_two(mol, i):
            _widen(out, i)
    _cut_back(out, gone, methyl)
    return _valid(out)


def becomes_two(mol: Chem.Mol, i: int) -> bool:
    """Return whether two carbons stand for atom `i`: the O, S or NH of a furan or its kin."""
    atom = mol.GetAtomWithIdx(i)
    pair = atom.GetAtomicNum() != _NITROGEN or atom.GetTotalNumHs() > 0
    return bool(atom.GetIsAromatic() and atom.GetDegree() == 2 and pair and atom.IsInRingSize(5))


def _widen(out: Chem.RWMol, i: int) -> None:
    """Put one more aromatic carbon beside atom `i`: CH=CH stands for O, S and NH in a ring."""
    neighbour = out.GetAtomWithIdx(i).GetNeighbors()[0].GetIdx()
    new = out.AddAtom(Chem.Atom(_CARBON))
    out.GetAtomWithIdx(new).SetIsAromatic(True)
    out.RemoveBond(i, neighbour)
    for j in (i, neighbour):
        out.AddBond(new, j, Chem.BondType.AROMATIC)


def polar_groups(mol: Chem.Mol, atoms: Iterable[int]) -> list[list[int]]:
    """Return the heteroatoms among `atoms`; those on one unsaturated carbon stand together."""
    groups: list[list[int]] = []
    for i in sorted(atoms):
        atom = mol.GetAtomWithIdx(i)
        if atom.GetAtomicNum() == _CARBON:
            continue
        fellows = {
            far.GetIdx()
            for near in atom.GetNeighbors()
            if _is_unsaturated_carbon(near)
            for far in near.GetNeighbors()
        }
        group = next((g for g in groups if fellows & set(g)), None)
        if group is None:
            groups.append([i])
        else:
            group.append(i)
    return groups


def n_stereocentre(mol: Chem.Mol) -> int:
    """Return how many atoms bear a stated arrangement."""
    return sum(a.GetChiralTag() != Chem.ChiralType.CHI_UNSPECIFIED for a in mol.GetAtoms())


def _is_unsaturated_carbon(atom: Chem.Atom) -> bool:
    return (
        atom.GetAtomicNum() == _CARBON
        and not atom.GetIsAromatic()
        and any(bond.GetBondType() in _MULTIPLE for bond in atom.GetBonds())
    )


def _valid(mol: Chem.RWMol) -> Chem.Mol | None:
    from rdkit import rdBase

    with rdBase.BlockLogs():
        out = Chem.MolFromSmiles(Chem.MolToSmiles(mol))
    return out if out is not None and out.GetNumAtoms() else None
