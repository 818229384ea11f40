"""Which atoms a prediction rests on: shares that sum to prediction minus baseline.

The molecule is cut short, one branch at a time, at every single bond outside of rings, and the
model is asked again: what the branch was worth is the difference. A branch is replaced by
hydrogen, or by methyl where hydrogen would make an atom environment (radius 2) that neither the
molecule nor any training molecule has: there the model would have to guess, and the guess would
be taken for an effect. Where neither will do, the bond is not cut and its two sides share.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rdkit import Chem
from rdkit.Chem.Draw import rdMolDraw2D

from apps.chemistry.molecules import featurise_many, standardise
from apps.chemistry.molecules.fingerprint import key_sets
from apps.chemistry.predictor import Predictor
from apps.chemistry.reference import Reference
from apps.lab.files import write_atomic
from core.errors import DataError

SIZE_PIXEL = (560, 420)
_HELPS, _HARMS = (0.25, 0.45, 0.95), (0.9, 0.35, 0.2)


class Explanation(NamedTuple):
    """One prediction, atom by atom; `baseline` + sum of `share` = `prediction`."""

    mol: Chem.Mol
    """As predicted, after standardisation."""
    prediction: float
    """In the unit of the data."""
    baseline: float
    """Mean of the training values: what would be said without looking at the molecule."""
    share: np.ndarray
    """float64 [atom]: heavy atoms in the order of `mol`."""
    n_cut: int
    """Bonds at which the model could be asked."""


def explain(predictor: Predictor, smiles: str, *, task: int = 0) -> Explanation:
    """Share a prediction among the atoms.

    Parameters
    ----------
    predictor : Predictor
        With a reference, as every run leaves it.
    smiles : str
    task : int
        Which of the predicted values.

    Raises
    ------
    DataError
        If the SMILES cannot be read, or the model file has no reference.

    Notes
    -----
    The worth of a branch less that of the branches on it is the worth of the atoms between,
    shared evenly; what no branch explains falls to the atoms around the central ring. The sum is
    exact by construction. On the model pocket, where the true shares are known, the correlation
    over the atoms of the test part is between .5 and .6; leaving out atoms reaches .26,
    integrated gradients .2 (tests/apps/chemistry/answers/test_explain.py).
    """
    if predictor.reference is None:
        raise DataError("explain: the model file has no reference; train it with this version")
    mol, _ = standardise(smiles, predictor.level)
    cuts = list(_cuts(mol))
    candidates = [short for cut in cuts for short in cut.shortened]
    mols = [mol, *candidates]
    answer = predictor.answer(mols, predictor.predict(featurise_many(mols)))
    asked = answer[:, task].astype(float)
    usable = _is_known(candidates, mol, predictor.reference)
    worth: dict[tuple[int, int], float] = {}
    first = 0
    for cut in cuts:
        places = range(first, first + len(cut.shortened))
        place = next((i for i in places if usable[i]), None)
        if place is not None:
            worth[cut.inner, cut.outer] = asked[0] - asked[place + 1]
        first += len(cut.shortened)
    baseline = float(predictor.members[0].target_mean[task])
    unit, root = _units(mol, set(worth))
    total = {unit[root]: asked[0] - baseline}
    for (inner, outer), value in worth.items():
        total[unit[outer]] = total.get(unit[outer], 0.0) + value
        total[unit[inner]] = total.get(unit[inner], 0.0) - value
    size = {u: unit.count(u) for u in set(unit)}
    share = np.array([total.get(u, 0.0) / size[u] for u in unit])  # loose parts: 0
    return Explanation(mol, float(asked[0]), baseline, share, len(worth))


class _Cut(NamedTuple):
    inner: int
    """Atom that stays."""
    outer: int
    """First atom of the branch."""
    shortened: list[Chem.Mol]
    """The molecule with hydrogen, then with methyl, in place of the branch."""


def _centre(mol: Chem.Mol) -> int:
    """Return the ring atom (any atom, without rings) nearest to all others."""
    distance = Chem.GetDistanceMatrix(mol).sum(axis=1)
    ring = [atom.GetIdx() for atom in mol.GetAtoms() if atom.IsInRing()]
    return min(ring or range(mol.GetNumAtoms()), key=lambda i: distance[i])


def _cuts(mol: Chem.Mol) -> Iterator[_Cut]:
    from_centre = Chem.GetDistanceMatrix(mol)[_centre(mol)]
    for bond in mol.GetBonds():
        if bond.IsInRing() or bond.GetBondType() != Chem.BondType.SINGLE:
            continue
        ends = (bond.GetBeginAtomIdx(), bond.GetEndAtomIdx())
        inner, outer = sorted(ends, key=lambda i: from_centre[i])
        branch = _branch(mol, outer, inner)
        shortened = [_without(mol, branch, None), _without(mol, branch, outer)]
        yield _Cut(inner, outer, [short for short in shortened if short is not None])


def _branch(mol: Chem.Mol, start: int, behind: int) -> set[int]:
    """Return the atoms beyond the bond from `behind` to `start`."""
    seen, waiting = {start}, [start]
    while waiting:
        for atom in mol.GetAtomWithIdx(waiting.pop()).GetNeighbors():
            i = atom.GetIdx()
            if i != behind and i not in seen:
                seen.add(i)
                waiting.append(i)
    return seen


def _without(mol: Chem.Mol, branch: set[int], methyl: int | None) -> Chem.Mol | None:
    """Return the molecule without a branch, its atom `methyl` made a carbon and kept if given."""
    out = Chem.RWMol(mol)
    if methyl is not None:
        out.ReplaceAtom(methyl, Chem.Atom(6))
    gone = branch - {methyl}
    for i in gone:
        for atom in out.GetAtomWithIdx(i).GetNeighbors():
            needs_hydrogen = atom.GetNoImplicit() or atom.GetIsAromatic()
            if atom.GetIdx() not in branch and needs_hydrogen and atom.GetAtomicNum() != 6:
                atom.SetNumExplicitHs(atom.GetNumExplicitHs() + 1)
            elif atom.GetIdx() not in branch and atom.GetNoImplicit():
                atom.SetNoImplicit(False)
    out.BeginBatchEdit()
    for i in gone:
        out.RemoveAtom(i)
    out.CommitBatchEdit()
    short = Chem.MolFromSmiles(Chem.MolToSmiles(out))
    return short if short is not None and short.GetNumAtoms() else None


def _is_known(mols: Sequence[Chem.Mol], whole: Chem.Mol, known: Reference) -> list[bool]:
    """Whether each has no environment that neither `whole` nor the training part has."""
    own = key_sets([whole], "ecfp4", binary=True).key
    keys = key_sets(mols, "ecfp4", binary=True)
    seen = np.isin(keys.key, np.concatenate([known.keys.key, own]))
    return [bool(seen[a:b].all()) for a, b in zip(keys.start[:-1], keys.start[1:], strict=True)]


def _units(mol: Chem.Mol, cut: set[tuple[int, int]]) -> tuple[list[int], int]:
    """Return a number per atom, equal for atoms not parted by a cut, and the central atom."""
    rest = Chem.RWMol(mol)
    for inner, outer in cut:
        rest.RemoveBond(inner, outer)
    unit = [0] * mol.GetNumAtoms()
    for number, atoms in enumerate(Chem.GetMolFrags(rest, sanitizeFrags=False)):
        for i in atoms:
            unit[i] = number
    return unit, _centre(mol)


def draw(explanation: Explanation, path: Path) -> Path:
    """Draw the atoms in colour, blue raises and red lowers the value; SVG or PNG by suffix.

    The depth of a colour is the share over the largest share of the molecule; each atom with at
    least a tenth of it bears its share as a number.
    """
    makers = {".svg": rdMolDraw2D.MolDraw2DSVG, ".png": rdMolDraw2D.MolDraw2DCairo}
    if path.suffix not in makers:
        raise DataError(f"explain: cannot draw {path.name}; end it in .svg or .png")
    mol, share = Chem.Mol(explanation.mol), explanation.share
    largest = max(float(np.abs(share).max()), np.finfo(float).tiny)
    colours = {}
    for i, value in enumerate(share.tolist()):
        depth = min(1.0, abs(value) / largest)
        full = _HELPS if value > 0 else _HARMS
        colours[i] = tuple(1.0 - depth * (1.0 - c) for c in full)
        if depth >= 0.1:
            mol.GetAtomWithIdx(i).SetProp("atomNote", f"{value:+.2f}")
    canvas = makers[path.suffix](*SIZE_PIXEL)
    legend = f"{explanation.prediction:.2f} = {explanation.baseline:.2f} {share.sum():+.2f}"
    rdMolDraw2D.PrepareAndDrawMolecule(
        canvas, mol, legend=legend, highlightAtoms=list(colours), highlightAtomColors=colours
    )
    canvas.FinishDrawing()
    return write_atomic(path, canvas.GetDrawingText())
