"""Which atoms a prediction rests on: shares that sum to prediction minus baseline.

The model is asked about the molecule with branches cut back and with heteroatoms made carbon.
A branch is replaced by hydrogen, or by methyl where hydrogen would make an atom environment
(radius 2) that neither the molecule nor any training molecule has: there the model would have to
guess, and the guess would be taken for an effect. What a branch adds is its Shapley value among
all branches; within it each polar group has what it adds over carbon in its place, and the rest,
which is due to the bulk of the whole branch, is shared evenly. The baseline is what the model
says of the molecule with all its branches cut back: the scaffold, which it cannot take apart.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rdkit import Chem
from rdkit.Chem.Draw import rdMolDraw2D

from apps.chemistry.answers.edit import Branch, as_carbon, branches, polar_groups, shorten
from apps.chemistry.molecules import featurise_many, standardise
from apps.chemistry.molecules.fingerprint import key_sets
from apps.chemistry.predictor import Predictor
from apps.lab.files import write_atomic
from core.errors import DataError

SIZE_PIXEL = (560, 420)
LARGE = 10  # atoms; a larger branch is taken apart further
_HELPS, _HARMS = (0.25, 0.45, 0.95), (0.9, 0.35, 0.2)


class Explanation(NamedTuple):
    """One prediction, atom by atom; `baseline` + sum of `share` = `prediction`."""

    mol: Chem.Mol
    """As predicted, after standardisation."""
    prediction: float
    """In the unit of the data."""
    baseline: float
    """What the model says of the scaffold, its branches cut back."""
    share: np.ndarray
    """float64 [atom]: heavy atoms in the order of `mol`."""
    n_cut: int
    """Branches at which the model could be asked."""
    is_guess: bool
    """Whether no branch could be cut without leaving what the training molecules show."""


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
    With B branches the Shapley value is taken from 2 B + 2 questions (each branch cut alone, and
    kept alone), which is exact where at most two branches act on each other. The first atom of a
    branch that methyl stands for is worth half of what one more carbon there would be.
    Source: Shapley, Ann. Math. Stud. 28 (1953) 307. On the model pocket, where the true shares
    are known, their correlation over the atoms of the test part was .88 for one network
    (tests/apps/chemistry/answers/test_explain.py).
    """
    if predictor.reference is None:
        raise DataError("explain: the model file has no reference; train it with this version")
    mol, _ = standardise(smiles, predictor.level)
    ask = _Questions(predictor, mol, task)
    cuts = _cuts(mol, ask.is_known)
    is_guess = not cuts
    if is_guess:
        cuts = _cuts(mol, lambda mols: [True] * len(mols))
    share = np.zeros(mol.GetNumAtoms())
    outer = _outermost(cuts, frozenset(range(mol.GetNumAtoms())))
    worth, baseline = _worth(ask, outer)
    for cut, value in zip(outer, worth, strict=True):
        _divide(ask, cut.branch.atoms, value, cuts, share)
    scaffold = set(range(mol.GetNumAtoms())).difference(*(cut.branch.atoms for cut in outer))
    for i, value in _polar_worth(ask, scaffold, only_known=True).items():
        share[i] = value
        baseline -= value
    return Explanation(mol, ask.whole, baseline, share, len(cuts), is_guess and bool(cuts))


class _Cut(NamedTuple):
    branch: Branch
    is_methyl: bool
    """Whether methyl stands in its place, not hydrogen."""
    short: Chem.Mol


class _Questions:
    """The model, asked once about each molecule, and what it has seen."""

    def __init__(self, predictor: Predictor, mol: Chem.Mol, task: int) -> None:
        assert predictor.reference is not None
        self.mol, self._predictor, self._task = mol, predictor, task
        own = key_sets([mol], "ecfp4", binary=True).key
        self._seen = np.union1d(predictor.reference.keys.key, own)
        self._answer: dict[str, float] = {}
        self.whole = float(self([mol])[0])

    def __call__(self, mols: Sequence[Chem.Mol]) -> np.ndarray:
        """Return float64 [molecule]: predictions."""
        names = [Chem.MolToSmiles(mol) for mol in mols]
        new = {n: m for n, m in zip(names, mols, strict=True) if n not in self._answer}
        if new:
            graph = self._predictor.predict(featurise_many(list(new.values())))
            answer = self._predictor.answer(list(new.values()), graph)[:, self._task]
            self._answer |= dict(zip(new, answer.astype(float).tolist(), strict=True))
        return np.array([self._answer[name] for name in names])

    def is_known(self, mols: Sequence[Chem.Mol]) -> list[bool]:
        """Whether each has only environments of the molecule or of training molecules."""
        if not mols:
            return []
        keys = key_sets(mols, "ecfp4", binary=True)
        seen = np.isin(keys.key, self._seen)
        return [bool(seen[a:b].all()) for a, b in zip(keys.start[:-1], keys.start[1:], strict=True)]


def _cuts(mol: Chem.Mol, is_known: Callable[[Sequence[Chem.Mol]], list[bool]]) -> list[_Cut]:
    """Return one cut for each branch that can be cut back, hydrogen before methyl."""
    options = [
        _Cut(branch, is_methyl, short)
        for branch in branches(mol)
        for is_methyl, short in (
            (False, shorten(mol, [branch])),
            (True, shorten(mol, [], methyl=[branch])),
        )
        if short is not None
    ]
    chosen: dict[Branch, _Cut] = {}
    for cut, known in zip(options, is_known([cut.short for cut in options]), strict=True):
        if known:
            chosen.setdefault(cut.branch, cut)
    return list(chosen.values())


def _outermost(cuts: Iterable[_Cut], region: frozenset[int]) -> list[_Cut]:
    """Return the cuts inside `region` that lie on no branch of another one there."""
    out: list[_Cut] = []
    for cut in cuts:  # nearest to the centre first
        atoms = cut.branch.atoms
        if atoms < region and not any(atoms <= other.branch.atoms for other in out):
            out.append(cut)
    return out


def _worth(ask: _Questions, cuts: list[_Cut]) -> tuple[np.ndarray, float]:
    """Return float64 [cut], what each branch adds, and what is said without all of them."""
    if not cuts:
        return np.zeros(0), ask.whole
    cut_alone = ask.whole - ask([cut.short for cut in cuts])
    kept_alone = [_back(ask.mol, [c for c in cuts if c is not cut]) for cut in cuts]
    without = [m for m in (_back(ask.mol, cuts), *kept_alone) if m is not None]
    if len(without) == len(cuts) + 1:
        bare, *alone = ask(without).tolist()
        worth = 0.5 * (cut_alone + np.array(alone) - bare)
        worth += (ask.whole - bare - worth.sum()) / len(cuts)
    else:  # one of them is no molecule
        worth = cut_alone
    for i, cut in enumerate(cuts):
        longer = shorten(ask.mol, [], ethyl=cut.branch) if cut.is_methyl else None
        if longer is not None and ask.is_known([longer])[0]:
            worth[i] += 0.5 * float(ask([longer])[0] - ask([cut.short])[0])
    return worth, ask.whole - float(worth.sum())


def _back(mol: Chem.Mol, cuts: Sequence[_Cut]) -> Chem.Mol | None:
    return shorten(
        mol,
        [cut.branch for cut in cuts if not cut.is_methyl],
        methyl=[cut.branch for cut in cuts if cut.is_methyl],
    )


def _divide(
    ask: _Questions, atoms: frozenset[int], value: float, cuts: list[_Cut], share: np.ndarray
) -> None:
    """Share `value` among the atoms of a branch, in place."""
    inside = _outermost(cuts, atoms) if len(atoms) > LARGE else []
    own = sorted(atoms.difference(*(cut.branch.atoms for cut in inside)))
    worth = ask.whole - ask([cut.short for cut in inside]) if inside else np.zeros(0)
    polar = _polar_worth(ask, own)
    share[own] = (value - float(worth.sum()) - sum(polar.values())) / len(own)
    for i, added in polar.items():
        share[i] += added
    for cut, one in zip(inside, worth.tolist(), strict=True):
        _divide(ask, cut.branch.atoms, one, cuts, share)


def _polar_worth(
    ask: _Questions, atoms: Iterable[int], *, only_known: bool = False
) -> dict[int, float]:
    """Return by heteroatom what it adds over carbon in its place.

    Atom by atom where such molecules are known, otherwise the polar group at once (unless
    `only_known`), its atoms alike.
    """
    out: dict[int, float] = {}
    for group in polar_groups(ask.mol, atoms):
        alone = {i: _known_carbon(ask, i) for i in group}
        known = {i: mol for i, mol in alone.items() if mol is not None}
        if len(known) == len(group) or only_known:
            out |= {i: ask.whole - float(ask([mol])[0]) for i, mol in known.items()}
            continue
        together = (as_carbon(ask.mol, group, saturate=s) for s in (True, False))
        instead = next((mol for mol in together if mol is not None), None)
        if instead is not None:
            added = (ask.whole - float(ask([instead])[0])) / len(group)
            out |= dict.fromkeys(group, added)
    return out


def _known_carbon(ask: _Questions, atom: int) -> Chem.Mol | None:
    for saturate in (False, True):
        mol = as_carbon(ask.mol, [atom], saturate=saturate)
        if mol is not None and ask.is_known([mol])[0]:
            return mol
    return None


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
