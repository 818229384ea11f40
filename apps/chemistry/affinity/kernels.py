"""Kernels on pairs: similarity of drugs times similarity of proteins, solved on the whole grid."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy import sparse

from apps.chemistry.baselines import MixKernel
from apps.chemistry.molecules import mol_from_smiles

# Residues that often stand for each other share a letter (conjoint triads: Shen et al., PNAS 104
# (2007) 4337, here with small residues in one class and proline in its own).
_CLASSES = ("AGST", "C", "DENQ", "FWY", "HKR", "ILMV", "P")
_CLASS = {residue: str(i) for i, group in enumerate(_CLASSES) for residue in group}
_OTHER = "x"
# Shares of what every pair of drugs, every pair of proteins, and each single entry have in
# common: main effects and what neither structure nor sequence tells. Fixed, with the noise, on
# the training folds of Davis warm.
COMMON = 0.2
OWN = 0.05
NOISE = 0.05
PROFILE_SHARE = 0.5
N_ROUND = 3
_TOLERANCE, _MAX_STEP = 1e-2, 200  # of the conjugate gradients; errors are flat in both beyond


def drug_kernel(smiles: Sequence[str], others: Sequence[str] = ()) -> np.ndarray:
    """Return float32 [D + N, D]: the kernel mix of `apps.chemistry.baselines`.

    Its rows are the drugs in `smiles`, then those in `others`, which have no part in its scales.
    """
    mols, more = ([mol_from_smiles(text) for text in some] for some in (smiles, others))
    return MixKernel.of(mols).against([*mols, *more])


def sequence_kernel(sequences: Sequence[str], *, k: int = 6, reduced: bool = True) -> np.ndarray:
    """Return float64 [T, T]: cosine of the counts of words of `k` residues, 0..1.

    Parameters
    ----------
    sequences : sequence of str
        One-letter residues.
    k : int
        Length of the words.
    reduced : bool
        Spell residues by seven classes, so that words survive conservative mutations.

    Notes
    -----
    Source: the spectrum kernel, Leslie et al., Pac. Symp. Biocomput. (2002) 564.
    Sequences without any word are similar to themselves alone.
    """
    vocabulary: dict[str, int] = {}
    row, column, count = [], [], []
    for i, text in enumerate(sequences):
        letters = "".join(_CLASS.get(r, _OTHER) for r in text) if reduced else text
        words = Counter(letters[j : j + k] for j in range(len(letters) - k + 1))
        for word, n in words.items():
            row.append(i)
            column.append(vocabulary.setdefault(word, len(vocabulary)))
            count.append(float(n))
    shape = (len(sequences), max(1, len(vocabulary)))
    counts = sparse.csr_matrix((count, (row, column)), shape=shape)
    product = np.asarray((counts @ counts.T).todense())
    norm = np.sqrt(np.diag(product))
    scale = np.outer(norm, norm)
    out = np.divide(product, scale, out=np.zeros_like(product), where=scale > 0)
    np.fill_diagonal(out, 1.0)
    return out


class Spectrum(NamedTuple):
    """A kernel with its eigenvalues and eigenvectors, float32 [N, N], [N] and [N, N]."""

    kernel: np.ndarray
    value: np.ndarray
    vector: np.ndarray

    @classmethod
    def of(cls, kernel: np.ndarray) -> "Spectrum":
        """Take a kernel apart."""
        single = kernel.astype(np.float32)
        return cls(single, *np.linalg.eigh(single))


def solve_pairs(
    drug: Spectrum, target: Spectrum, value: np.ndarray, train: np.ndarray, noise: float
) -> np.ndarray:
    """Return the posterior mean of every pair, float64 [D, T]; arguments of `pair_weights`."""
    mean, weight = pair_weights(drug, target, value, train, noise)
    return mean + (drug.kernel @ weight @ target.kernel).astype(np.float64)


def pair_weights(
    drug: Spectrum, target: Spectrum, value: np.ndarray, train: np.ndarray, noise: float
) -> tuple[float, np.ndarray]:
    """Return the mean, and the weight of each pair in the posterior mean, float32 [D, T].

    What is added to the mean for any pair is the product of its drug's kernels with those of the
    table [D], the weights, and its protein's [T].

    The prior covariance of pairs (d, t) and (e, u) is ``drug[d, e] target[t, u]``; the mean of
    the training values is taken off first.

    Parameters
    ----------
    drug, target : Spectrum of [D, D] and of [T, T]
        Positive semi-definite.
    value : ndarray, float [D, T]
        Read where `train` is true.
    train : ndarray, bool [D, T]
    noise : float
        Variance of a value over that of the prior at drug[d, d] target[t, t] = 1.

    Notes
    -----
    Conjugate gradients on the pairs that were measured: a product with the covariance is two
    products of small matrices over the grid (float32), whatever the number of pairs. They start
    from the closed form of a grid without holes, by the eigenvectors of both kernels, with the
    signal scaled to the share of pairs measured.
    Source: Airola and Pahikkala, IEEE Trans. Neural Netw. Learn. Syst. 29 (2018) 3374.
    Checked against: a dense solution in float64.
    """
    (a, p, u), (b, q, v) = drug, target
    spectrum = np.outer(np.maximum(p, 0.0), np.maximum(q, 0.0))
    filtered = (1.0 / (train.mean() * spectrum + noise)).astype(np.float32)

    def closed_form(grid: np.ndarray) -> np.ndarray:
        return (u @ ((u.T @ grid @ v) * filtered) @ v.T) * train

    mean = float(value[train].mean())
    residual = np.where(train, value - mean, 0.0).astype(np.float32)
    weight, guess = np.zeros_like(residual), closed_form(residual)
    direction, along = guess, float(np.vdot(residual, guess))
    enough = _TOLERANCE * float(np.linalg.norm(residual))
    for _ in range(_MAX_STEP):
        if float(np.linalg.norm(residual)) <= enough:
            break
        image = (a @ direction @ b) * train + np.float32(noise) * direction
        step = np.float32(along / float(np.vdot(direction, image)))
        weight += step * direction
        residual -= step * image
        guess = closed_form(residual)
        along, before = float(np.vdot(residual, guess)), along
        direction = guess + np.float32(along / before) * direction
    return mean, weight


@dataclass(frozen=True)
class PairKernel:
    """The kernels of a table: of drugs [D, D] and of proteins [T, T], before additions."""

    drug: np.ndarray
    target: np.ndarray

    def ridge(self, value: np.ndarray, train: np.ndarray, *, noise: float = NOISE) -> np.ndarray:
        """Return every pair from structure and sequence alone, with main effects [D, T]."""
        return solve_pairs(*self._spectra, value, train, noise)

    @cached_property
    def _spectra(self) -> tuple[Spectrum, Spectrum]:
        return Spectrum.of(self.drug + COMMON), Spectrum.of(self._with_own(self.target))

    def answers_of(self, value: np.ndarray, drug: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Return what the values of the table say of other pairs, as `ridge` does of its own.

        Parameters
        ----------
        value : ndarray, float [D, T]
            NaN where nothing was measured.
        drug, target : ndarray, float [N, D] and [M, T]
            Similarity of other drugs and proteins to those of the table.

        Returns
        -------
        ndarray, float64 [N, M]
        """
        mean, weight = pair_weights(*self._spectra, value, np.isfinite(value), NOISE)
        return mean + (drug + COMMON) @ weight.astype(np.float64) @ (target + COMMON).T

    def with_drug_profiles(self, profile: np.ndarray) -> "PairKernel":
        """Return the kernel that also calls drugs alike whose rows of float [D, any] are close."""
        alike = _gaussian(profile @ profile.T)
        return PairKernel(_mixed(self.drug, alike), self.target)

    def profiles(self, value: np.ndarray, train: np.ndarray) -> np.ndarray:
        """Return every pair, similarity also judged by what binds alike, float64 [D, T].

        In each of `N_ROUND` rounds, half of either kernel is a Gaussian of the distance between
        profiles: the measured training values of a drug over all proteins (of a protein over all
        drugs), holes filled by the round before. Nothing but training values enters.

        Notes
        -----
        Source of interaction profiles: van Laarhoven et al., Bioinformatics 27 (2011) 3036;
        there holes are zeros and there is one round.
        """
        filled = self.ridge(value, train)
        for _ in range(N_ROUND):
            centred = np.where(train, value, filled) - value[train].mean()
            drug, target = (
                _mixed(kernel, _gaussian(rows @ rows.T))
                for kernel, rows in ((self.drug, centred), (self.target, centred.T))
            )
            spectra = Spectrum.of(drug + COMMON), Spectrum.of(self._with_own(target))
            filled = solve_pairs(*spectra, value, train, NOISE)
        return filled

    def _with_own(self, target: np.ndarray) -> np.ndarray:
        return target + COMMON + OWN * np.eye(len(target))


def _mixed(kernel: np.ndarray, profiles: np.ndarray) -> np.ndarray:
    return (1.0 - PROFILE_SHARE) * kernel + PROFILE_SHARE * profiles


def _gaussian(product: np.ndarray) -> np.ndarray:
    """Return exp(-squared distance / its median) from inner products."""
    norm = np.diag(product)
    square = np.maximum(norm[:, None] + norm[None] - 2.0 * product, 0.0)
    off_diagonal = square[~np.eye(len(square), dtype=bool)]
    scale = float(np.median(off_diagonal)) if off_diagonal.size else 1.0
    return np.exp(-square / (scale or 1.0))
