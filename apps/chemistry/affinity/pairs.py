"""Measured affinities of drugs with proteins: the matrix, and how it is parted for a test."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from apps.lab.datastore import DataFile, fetch
from core.errors import ConfigError, DataError

SUITES = ("davis", "kiba")
SPLITS = ("warm", "cold-drug", "cold-target", "cold-both")
Kind = Literal["warm", "cold-drug", "cold-target", "cold-both"]
N_FOLD = 5
_BOTH_FOLD = 3  # groups on either side inside the training part of cold-both: nine held blocks
# Measured value above which a pair counts as a hit: DeepDTA section 3.2 (arXiv:1801.10193).
HIT = {"davis": 7.0, "kiba": 12.1}
DAVIS_FLOOR = 5.0  # 10,000 nM: no binding was seen at the highest concentration


@dataclass(frozen=True)
class PairTable:
    """Drugs by proteins. Shape letters: D drugs, T proteins.

    Proteins are entries of the assay: several may have one sequence (mutants, phosphorylated
    forms), which is why cold splits group them by sequence.
    """

    name: str
    source: str
    sha256: str
    unit: str
    smiles: list[str]
    """[D]"""
    target: list[str]
    """[T]: names."""
    sequence: list[str]
    """[T]"""
    value: np.ndarray
    """float64 [D, T]; NaN where nothing was measured."""
    fold: np.ndarray
    """int8 [D, T]: 0..4 the published training folds, 5 the published test part, -1 no value."""
    floor: float | None
    """Values at the floor mean "at most this"; None where there is none."""
    hit: float
    """Values above are hits."""

    @property
    def known(self) -> np.ndarray:
        """Where a value was measured, bool [D, T]."""
        return np.isfinite(self.value)


class Part(NamedTuple):
    """Pairs to learn from and pairs held out; bool [D, T] each."""

    train: np.ndarray
    held: np.ndarray


class Split(NamedTuple):
    """One test: `outer` is judged, `inner` parts its training pairs in the same manner."""

    inner: list[Part]
    outer: Part


def read_pairs(name: str) -> PairTable:
    """Return Davis (pKd) or KIBA from the text files of the DeepDTA repository.

    Raises
    ------
    DataError
        If the set is unknown, a file is missing, or the files do not fit together.

    Notes
    -----
    Only text is read: the pickled matrix beside these files could run code and is never opened.
    The folds of Davis number the whole matrix, row by row, those of KIBA its measured entries.
    """
    if name not in SUITES:
        raise DataError(f"affinity: no set is named {name!r}; there are {', '.join(SUITES)}")
    files = {
        key: fetch(f"{name}/{key}")
        for key in ("affinity", "ligands_iso", "proteins", "train_fold_setting1",
                    "test_fold_setting1")
    }  # fmt: skip
    value = _matrix(files["affinity"])
    drugs, proteins = (_names(files[key]) for key in ("ligands_iso", "proteins"))
    if value.shape != (len(drugs), len(proteins)):
        raise DataError(
            f"{files['affinity'].path}: the matrix is {list(value.shape)}, but there are "
            f"{len(drugs)} drugs and {len(proteins)} proteins; fetch the set again"
        )
    known = np.argwhere(np.isfinite(value))
    fold = np.full(value.shape, -1, dtype=np.int8)
    parts = [*_json(files["train_fold_setting1"]), _json(files["test_fold_setting1"])]
    for number, part in enumerate(parts):
        if max(part) >= len(known):
            raise DataError(f"{name}: fold {number} names pair {max(part)} of {len(known)}")
        fold[tuple(known[part].T)] = number
    is_davis = name == "davis"
    return PairTable(
        name=name,
        source=files["affinity"].source,
        sha256=files["affinity"].sha256,
        unit="pKd" if is_davis else "KIBA score",
        smiles=list(drugs.values()),
        target=list(proteins),
        sequence=list(proteins.values()),
        value=9.0 - np.log10(value) if is_davis else value,
        fold=fold,
        floor=DAVIS_FLOOR if is_davis else None,
        hit=HIT[name],
    )


def draw_splits(table: PairTable, kind: Kind, *, seed: int = 0) -> list[Split]:
    """Return the tests of one kind: the published fold for "warm", else `N_FOLD` of them.

    Parameters
    ----------
    table : PairTable
    kind : str
        "warm": single pairs are held out; "cold-drug": all pairs of a fifth of the drugs;
        "cold-target": those of a fifth of the sequences, with every entry that has one of them;
        "cold-both": pairs of held drugs with held sequences, trained on pairs with neither.
    seed : int
        Draws the groups; the published fold is what it is.
    """
    known, fold = table.known, table.fold
    if kind == "warm":
        train = known & (fold < N_FOLD)
        inner = [Part(train & (fold != i), train & (fold == i)) for i in range(N_FOLD)]
        return [Split(inner, Part(train, fold == N_FOLD))]
    if kind not in SPLITS:
        raise ConfigError(f"affinity: split must be one of {', '.join(SPLITS)}, got {kind!r}")
    rng = np.random.default_rng(seed)
    number = np.unique(table.sequence, return_inverse=True)[1]
    axes: dict[str, np.ndarray] = {"cold-drug": np.arange(len(table.smiles)), "cold-target": number}
    used = [axes[kind]] if kind in axes else list(axes.values())
    sides = [_deal(members, N_FOLD, rng) for members in used]
    splits = []
    for i in range(N_FOLD):
        held = [side == i for side in sides]
        outer = _part(known, held, kind)
        n_inner = N_FOLD if kind in axes else _BOTH_FOLD
        groups = [_deal(members, n_inner, rng) for members in used]
        inner = [
            _part(outer.train, [g == k for g, k in zip(groups, place, strict=True)], kind)
            for place in np.ndindex(*[n_inner] * len(groups))
        ]
        splits.append(Split([p for p in inner if p.train.any() and p.held.any()], outer))
    return splits


def _part(known: np.ndarray, held: list[np.ndarray], kind: Kind) -> Part:
    """Part `known` pairs by held drugs, held proteins, or both (then mixed pairs are unused)."""
    if kind == "cold-drug":
        rows = np.broadcast_to(held[0][:, None], known.shape)
        return Part(known & ~rows, known & rows)
    if kind == "cold-target":
        return Part(known & ~held[0], known & held[0])
    drug, target = held[0][:, None], held[1][None]
    return Part(known & ~drug & ~target, known & drug & target)


def _deal(group: np.ndarray, n_fold: int, rng: np.random.Generator) -> np.ndarray:
    """Return the fold of each member; members of one group share theirs."""
    n_group = int(group.max()) + 1
    return rng.permutation(np.arange(n_group) % n_fold)[group]


def _matrix(file: DataFile) -> np.ndarray:
    return _checked(file, lambda path: np.loadtxt(path, ndmin=2))


def _json(file: DataFile) -> list[Any]:
    return _checked(file, lambda path: json.loads(path.read_text(encoding="utf-8")))


def _names(file: DataFile) -> dict[str, str]:
    names = _checked(file, lambda path: json.loads(path.read_text(encoding="utf-8")))
    if not isinstance(names, dict):
        raise DataError(f"{file.path}: expected names with their texts; fetch the set again")
    return names


def _checked(file: DataFile, read: Callable[[Path], Any]) -> Any:
    try:
        return read(file.path)
    except (ValueError, OSError) as error:
        raise DataError(f"{file.path} cannot be read ({error}); fetch the set again") from error
