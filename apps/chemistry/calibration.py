"""Intervals that cover four in five new molecules, also those unlike the training molecules."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from rdkit import Chem

from apps.chemistry.baselines import MixKernel
from apps.chemistry.baselines.kernel import fit_gaussian_process
from apps.chemistry.datasets.split import scaffold_sets
from apps.chemistry.molecules.fingerprint import KeySets, key_sets, tanimoto
from apps.chemistry.molecules.tables import Molecules

COVERAGE = 0.8  # share of new molecules whose value should lie in its interval
MIN_CALIBRATION = 10  # values needed to speak of 80 %: nine would all have to lie inside
MIN_SCALE = 0.1  # pK units; no interval is scaled below what assays resolve
MAX_CROSS = 1500  # training molecules of the cross-fit; more cost minutes and say no more
N_FOLD = 5


def calibrate(
    train: Sequence[Chem.Mol],
    y: np.ndarray,
    valid: Sequence[Chem.Mol],
    true: np.ndarray,
    predicted: np.ndarray,
) -> np.ndarray:
    """Return (c0, c1, c2): intervals of half width (c0 + c1 distance) c2.

    Parameters
    ----------
    train, valid : sequence of Mol
        Molecules of the two parts with a value.
    y, true : ndarray, float [train], float [valid]
        The values.
    predicted : ndarray, float [valid]
        By the model that is calibrated, which has not been fitted to `valid`.

    Returns
    -------
    ndarray, float64 [3]
        NaN where `valid` has fewer than `MIN_CALIBRATION` rows.

    Notes
    -----
    How the error grows with the distance from the training molecules, and how its quantile
    compares with its mean, is learned from a thousand residuals of a stand-in, the Gaussian
    process on the kernel mix, each scaffold predicted by a fit without it: the valid part alone
    is too small for that, and a random one too easy. How the model's errors compare with the
    stand-in's is then read from the valid part, row by row against a stand-in fitted to the same
    training part, so that an easy or hard valid part cancels. On 30 scaffold splits of five sets
    this halved the scatter of the coverage against intervals from the valid part alone.
    """
    return stand_in(train, y, valid).interval(true, predicted)


class StandIn(NamedTuple):
    """What the molecules say of errors before there is a model: all of `calibrate` but its end.

    `distance`, `predicted` and `scale` are float64 [valid]: from the training molecules, what the
    stand-in says, and its expected error. The latter two and `line` are None where all training
    molecules have one scaffold: nothing can be held out, and the valid part has to do alone.
    """

    distance: np.ndarray
    line: tuple[float, float, float] | None = None
    predicted: np.ndarray | None = None
    scale: np.ndarray | None = None

    def interval(self, true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """Return (c0, c1, c2) for a model that says `predicted` of the valid part."""
        if len(true) < MIN_CALIBRATION:
            return np.full(3, np.nan)
        if self.line is None or self.scale is None or self.predicted is None:
            return np.array(fit_interval(np.abs(predicted - true), self.distance))
        base, slope, factor = self.line
        ours, theirs = (np.mean(np.abs(p - true) / self.scale) for p in (predicted, self.predicted))
        return np.array([base, slope, factor * float(ours / max(theirs, np.finfo(float).tiny))])


def stand_in(train: Sequence[Chem.Mol], y: np.ndarray, valid: Sequence[Chem.Mol]) -> StandIn:
    """Return the stand-in for a train and a valid part; see `calibrate`."""
    if len(valid) < MIN_CALIBRATION:
        return StandIn(np.empty(0))
    keep = np.random.default_rng(0).permutation(len(train))[:MAX_CROSS]
    train, y = [train[i] for i in keep], y[keep].astype(np.float64)
    mix = MixKernel.of(train)
    kernel, keys = mix.against(train), similarity_keys(train)
    distance = 1.0 - tanimoto(similarity_keys(valid), keys).max(axis=1)
    error, from_rest = _cross_errors(train, y, kernel, keys)
    if len(error) < MIN_CALIBRATION:
        return StandIn(distance)
    line = fit_interval(error, from_rest)
    predicted = fit_gaussian_process(kernel, y).predict(mix.against(valid))
    return StandIn(distance, line, predicted, line[0] + line[1] * distance)


def _cross_errors(
    mols: Sequence[Chem.Mol], y: np.ndarray, kernel: np.ndarray, keys: KeySets
) -> tuple[np.ndarray, np.ndarray]:
    """Return error and distance of each molecule, predicted without those of its scaffold.

    Empty where all have one scaffold.
    """
    fold = np.empty(len(mols), dtype=np.int64)
    sets = scaffold_sets(mols, chirality=False)
    dealt = np.random.default_rng(0).permutation(np.arange(len(sets)) % N_FOLD)
    for number, members in zip(dealt, sets, strict=True):
        fold[list(members)] = number
    near = tanimoto(keys, keys)
    error, distance = [np.zeros(0)], [np.zeros(0)]
    for i in range(N_FOLD):
        held, rest = np.nonzero(fold == i)[0], np.nonzero(fold != i)[0]
        if held.size and rest.size > 1:
            fit = fit_gaussian_process(np.ascontiguousarray(kernel[np.ix_(rest, rest)]), y[rest])
            error.append(np.abs(fit.predict(kernel[np.ix_(held, rest)]) - y[held]))
            distance.append(1.0 - near[np.ix_(held, rest)].max(axis=1))
    return np.concatenate(error), np.concatenate(distance)


def fit_interval(error: np.ndarray, distance: np.ndarray) -> tuple[float, float, float]:
    """Return (c0, c1, c2): intervals of half width (c0 + c1 distance) c2 that cover `COVERAGE`.

    Parameters
    ----------
    error : ndarray, float [calibration row]
        Size of the error of molecules that were not trained on.
    distance : ndarray, float [calibration row]

    Notes
    -----
    The expected error is a line in the distance (least squares, slope not negative, at least
    `MIN_SCALE`); c2 is the ceil((n + 1) COVERAGE)-th smallest error in units of that line, which
    covers at least `COVERAGE` of exchangeable rows for a line fixed beforehand (split conformal:
    Lei et al., J. Am. Stat. Assoc. 113 (2018) 1094, theorem 2.2). The line has two parameters of
    the same rows, and new scaffolds are not exchangeable with old ones, so the promise is
    approximate and its coverage is measured on the test part.
    """
    centred = distance - distance.mean()
    spread = float(centred @ centred)
    slope = max(0.0, float(centred @ error) / spread) if spread > 0 else 0.0
    base = max(MIN_SCALE, float(error.mean()) - slope * float(distance.mean()))
    ratio = np.sort(error / (base + slope * distance))
    rank = min(len(ratio), math.ceil((len(ratio) + 1) * COVERAGE))
    return base, slope, float(ratio[rank - 1])


def similarity_keys(mols: Molecules) -> KeySets:
    """Return the fingerprints that similarity to the training molecules is told by: ECFP4."""
    return key_sets(mols, "ecfp4", binary=True)
