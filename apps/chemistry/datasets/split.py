"""Who trains and who is tested: scaffold rules and random draws.

Each rule returns a str array [molecule] of "train", "valid" and "test".
"""

from collections.abc import Sequence

import numpy as np
from rdkit import Chem
from rdkit.Chem.Scaffolds import MurckoScaffold

from core.errors import DataError

FRACTIONS = (0.8, 0.1, 0.1)
RULES = ("gem", "deepchem", "random_scaffold", "random")


def split_molecules(
    mols: Sequence[Chem.Mol], rule: str, *, seed: int = 0, fractions: Sequence[float] = FRACTIONS
) -> np.ndarray:
    """Split molecules into train, valid and test.

    Parameters
    ----------
    mols : sequence of Mol
        One per row.
    rule : str
        "gem": Bemis-Murcko scaffolds with chirality, the largest sets first, each set whole into
        the first part with room (the rule of GEM and Uni-Mol). "deepchem": the same, chirality
        ignored (the rule of DeepChem and MoleculeNet). "random_scaffold": sets in random order.
        "random": rows in random order.
    seed : int
        Used by the random rules only.
    fractions : sequence of float
        Shares of train, valid and test; sum 1.

    Returns
    -------
    ndarray, str [molecule]

    Raises
    ------
    DataError
        If the rule is unknown, or a part would stay empty.

    Notes
    -----
    Sets are ordered by (size, first row), both descending.
    Source: GEM, PaddleHelix `ScaffoldSplitter`; DeepChem `ScaffoldSplitter`.
    """
    rng = np.random.default_rng(seed)
    if rule == "random":
        sets = [[int(i)] for i in rng.permutation(len(mols))]
    elif rule == "random_scaffold":
        sets = scaffold_sets(mols, chirality=True)
        sets = [sets[i] for i in rng.permutation(len(sets))]
    elif rule in ("gem", "deepchem"):
        sets = scaffold_sets(mols, chirality=rule == "gem")
    else:
        raise DataError(f"split_molecules: rule must be one of {RULES}, got {rule!r}")
    split = _fill(sets, len(mols), fractions)
    for part in ("train", "valid", "test"):
        if not (split == part).any():
            raise DataError(
                f"split_molecules: rule {rule!r} leaves no molecule for {part!r} ({len(mols)} "
                f"molecules, {len(sets)} sets); use rule 'random' or a split column"
            )
    return split


def scaffold_sets(mols: Sequence[Chem.Mol], *, chirality: bool) -> list[list[int]]:
    """Return rows grouped by Bemis-Murcko scaffold, by (size, first row) descending."""
    sets: dict[str, list[int]] = {}
    for i, mol in enumerate(mols):
        scaffold = MurckoScaffold.MurckoScaffoldSmiles(mol=mol, includeChirality=chirality)
        sets.setdefault(scaffold, []).append(i)
    return sorted(sets.values(), key=lambda rows: (len(rows), rows[0]), reverse=True)


def _fill(sets: list[list[int]], n: int, fractions: Sequence[float]) -> np.ndarray:
    limit_train, limit_valid = fractions[0] * n, (fractions[0] + fractions[1]) * n
    n_train = n_valid = 0
    split = np.full(n, "test", dtype="U5")
    for rows in sets:
        if n_train + len(rows) <= limit_train:
            split[rows] = "train"
            n_train += len(rows)
        elif n_train + n_valid + len(rows) <= limit_valid:
            split[rows] = "valid"
            n_valid += len(rows)
    return split


def carve_valid(
    split: np.ndarray,
    target: np.ndarray,
    *,
    seed: int,
    flag: np.ndarray | None = None,
    fraction: float = 0.1,
) -> np.ndarray:
    """Move a share of the training rows to "valid", evenly over the range of the target.

    Parameters
    ----------
    split : ndarray, str [molecule]
        Parts so far.
    target : ndarray, float [molecule]
        Rows are sorted by it (and by `flag` first) and one is drawn from each run of
        1 / `fraction` neighbours.
    seed : int
        Draws the row within each run.
    flag : ndarray, bool [molecule], optional
        A second layer, such as the activity-cliff flag.
    fraction : float
        Share of the training rows.

    Returns
    -------
    ndarray, str [molecule]
        A copy with the drawn rows marked "valid".
    """
    rng = np.random.default_rng(seed)
    rows = np.nonzero(split == "train")[0]
    layer = np.zeros(len(split), dtype=bool) if flag is None else flag
    rows = rows[np.lexsort((target[rows], layer[rows]))]
    n_run = max(1, round(fraction * len(rows)))
    out = split.copy()
    for run in np.array_split(rows, n_run):
        out[run[rng.integers(len(run))]] = "valid"
    return out
