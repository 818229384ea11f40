"""Matched pairs: training molecules that differ from a molecule by one substituent."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rdkit import Chem
from rdkit.Chem import rdMMPA

from apps.chemistry.answers.explain import Explanation
from apps.chemistry.calibration import similarity_keys
from apps.chemistry.molecules import mol_from_smiles
from apps.chemistry.molecules.fingerprint import tanimoto
from apps.chemistry.predictor import Predictor
from apps.lab.files import write_atomic
from core.errors import DataError

N_NEAREST = 500  # training molecules looked at: a pair shares most of its atoms, so it is near
_MAX_SHARE = 0.5  # of the atoms that may differ


class MatchedPair(NamedTuple):
    """A training molecule and the one substituent that tells it from the molecule asked about."""

    here: str
    """Substituent of the molecule, SMILES with its attachment point."""
    there: str
    """Substituent of the training molecule in the same place."""
    smiles: str
    """The training molecule."""
    measured: float
    """Its value, in the unit of the data."""
    step: float
    """Prediction for the molecule minus `measured`: what the exchange is said to bring."""


def matched_pairs(
    predictor: Predictor, explanation: Explanation, *, task: int = 0
) -> list[MatchedPair]:
    """Return the matched pairs of a molecule among the training molecules, largest step first.

    Parameters
    ----------
    predictor : Predictor
        With a reference.
    explanation : Explanation
        Of the molecule.
    task : int
        Which of the predicted values.

    Notes
    -----
    Both molecules are cut at one single bond outside of rings; a pair shares the larger piece and
    differs in the smaller, at most half of the atoms. Of several ways to pair two molecules the
    smallest exchange counts. Molecules without an exact value are left out. Stereo counts: mirror
    images are different pieces.
    Source: Hussain and Rea, J. Chem. Inf. Model. 50 (2010) 339; the cutting is RDKit's rdMMPA.
    """
    known = predictor.reference
    if known is None:
        raise DataError("pairs: the model file has no reference; train it with this version")
    own = {core: (group, size) for core, group, size in _single_cuts(explanation.mol)}
    similarity = tanimoto(similarity_keys([explanation.mol]), known.keys)[0]
    near = np.argsort(-similarity, kind="stable")[:N_NEAREST]
    own_smiles = Chem.MolToSmiles(explanation.mol)
    found: dict[str, tuple[int, MatchedPair]] = {}
    for i in near.tolist():
        smiles, value = known.smiles[i], float(known.target[i, task])
        if smiles == own_smiles or not np.isfinite(value):
            continue
        for core, there, _ in _single_cuts(mol_from_smiles(smiles)):
            here, size = own.get(core, (there, 0))
            if here != there and (smiles not in found or size < found[smiles][0]):
                step = explanation.prediction - value
                found[smiles] = (size, MatchedPair(here, there, smiles, value, step))
    return sorted((pair for _, pair in found.values()), key=lambda p: -abs(p.step))


def _single_cuts(mol: Chem.Mol) -> Iterator[tuple[str, str, int]]:
    """Yield common piece, substituent and its number of atoms for each cut of one single bond."""
    for _, pieces in rdMMPA.FragmentMol(mol, maxCuts=1, resultsAsMols=False):
        first, second = pieces.split(".")
        sizes = [Chem.MolFromSmiles(p, sanitize=False).GetNumAtoms() - 1 for p in (first, second)]
        for core, group, size in ((first, second, sizes[1]), (second, first, sizes[0])):
            if size <= _MAX_SHARE * sum(sizes):
                yield core, group, size


def write_pairs(pairs: list[MatchedPair], path: Path) -> Path:
    """Write the pairs as CSV, whole or not at all."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["here", "there", "training_smiles", "measured", "predicted_minus_measured"])
    for pair in pairs:
        writer.writerow([*pair[:3], f"{pair.measured:.4g}", f"{pair.step:+.3f}"])
    return write_atomic(path, text.getvalue())
