"""What a trained model remembers of its data: neighbours, intervals, and where it may be asked."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch

from apps.chemistry.calibration import StandIn, similarity_keys, stand_in
from apps.chemistry.datasets import Table
from apps.chemistry.molecules import N_ATOM_FEATURE, MolGraph, mol_from_smiles
from apps.chemistry.molecules.fingerprint import KeyIndex, KeySets, tanimoto
from apps.chemistry.molecules.tables import Molecules
from apps.lab.memo import once_per_object

# Of the training molecules, this share is farther from its nearest fellow than the border.
EDGE_SHARE, OUT_SHARE = 0.25, 0.05


class _Known(NamedTuple):
    """What a table says before there is a model."""

    train: Table
    border: tuple[float, float]
    seen: np.ndarray
    stand_ins: list[StandIn]


@once_per_object
def _known(table: Table) -> _Known:
    train, valid = table.select("train"), table.select("valid")
    mols, valid_mols = ([mol_from_smiles(text) for text in part.smiles] for part in (train, valid))
    keys = similarity_keys(mols)
    fellow = tanimoto(keys, keys)
    np.fill_diagonal(fellow, -1.0)
    inside = np.quantile(fellow.max(axis=1), (EDGE_SHARE, OUT_SHARE))
    stand_ins = []
    for task in range(train.target.shape[1]):
        fitted, held = (np.nonzero(np.isfinite(p.exact[:, task]))[0] for p in (train, valid))
        y = train.exact[fitted, task]
        stand_ins.append(stand_in([mols[i] for i in fitted], y, [valid_mols[i] for i in held]))
    seen = np.zeros(N_ATOM_FEATURE, dtype=bool)
    for graph in train.graphs:
        seen |= (graph.atom_features != 0).any(axis=0)
    return _Known(train, (float(inside[0]), float(inside[1])), seen, stand_ins)


class Neighbours(NamedTuple):
    """The training molecules nearest to others."""

    row: np.ndarray
    """int64 [molecule]: the nearest of all."""
    similarity: np.ndarray
    """float32 [molecule]: Tanimoto similarity to it."""
    own: np.ndarray
    """float32 [molecule, T]: similarity to the nearest that has a value of the task."""


@dataclass(frozen=True)
class Reference:
    """Training molecules with their values, and the calibration on the valid part.

    Shape letters: M training molecules, T tasks.
    """

    smiles: list[str]
    """[M]"""
    target: np.ndarray
    """float32 [M, T]; NaN where there is no exact value."""
    interval: np.ndarray
    """float64 [T, 3]: half width = (c0 + c1 distance) c2 with the distance 1 - Tanimoto to the
    nearest training molecule with a value of the task; see `calibration.calibrate`."""
    border: tuple[float, float]
    """Similarities below which a molecule is at the edge of the domain, and out of it."""
    seen: np.ndarray
    """bool [N_ATOM_FEATURE]: features that some training atom has."""

    @classmethod
    def of(cls, table: Table, prediction: np.ndarray) -> "Reference":
        """Make it from a table and predictions of its valid part, float [valid row, T]."""
        valid, known = table.select("valid").exact, _known(table)
        interval = np.full((valid.shape[1], 3), np.nan)
        for task, known_errors in enumerate(known.stand_ins):
            held = np.isfinite(valid[:, task])
            interval[task] = known_errors.interval(valid[held, task], prediction[held, task])
        return cls(known.train.smiles, known.train.exact, interval, known.border, known.seen)

    @cached_property
    def keys(self) -> KeySets:
        """ECFP4 of the training molecules."""
        return similarity_keys([mol_from_smiles(text) for text in self.smiles])

    @cached_property
    def index(self) -> KeyIndex:
        """The same, to compare others with."""
        return KeyIndex.of(self.keys)

    def nearest(self, mols: Molecules) -> Neighbours:
        """Return the training molecules nearest to others."""
        similarity = self.index.similarity(similarity_keys(mols))
        best = similarity.argmax(axis=1)
        own = np.zeros((len(best), self.target.shape[1]), dtype=similarity.dtype)
        for task, known in enumerate(np.isfinite(self.target).T):
            own[:, task] = similarity[:, known].max(axis=1, initial=0.0)
        return Neighbours(best, similarity[np.arange(len(best)), best], own)

    def half_width(self, own: np.ndarray) -> np.ndarray:
        """Return float64 [molecule, T]: half the width of each interval.

        `own` is that of `Neighbours`: another task's value of a molecule tells less of this one
        than its own would, and the errors that calibrate the intervals are told by its own.
        """
        base, slope, factor = self.interval.T
        return (base + slope * (1.0 - own)) * factor

    def domain(self, graph: MolGraph, similarity: float) -> str:
        """Return "in", "edge" or "out": how much the training molecules say about this one.

        Out: farther from them than `OUT_SHARE` of them are from each other, or with an element,
        charge or bonding state that none of them has.
        """
        strange = ((graph.atom_features != 0).any(axis=0) & ~self.seen).any()
        edge, out = self.border
        return "out" if strange or similarity < out else "edge" if similarity < edge else "in"

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return what a model file keeps."""
        text = "\n".join(self.smiles).encode()
        return {
            "smiles": torch.frombuffer(bytearray(text), dtype=torch.uint8),
            "target": torch.from_numpy(self.target),
            "interval": torch.from_numpy(self.interval),
            "border": torch.tensor(self.border, dtype=torch.float64),
            "seen": torch.from_numpy(self.seen),
        }

    @classmethod
    def from_tensors(cls, kept: dict[str, torch.Tensor]) -> "Reference":
        """Read what `tensors` gave."""
        values: dict[str, Any] = {name: tensor.numpy() for name, tensor in kept.items()}
        values["smiles"] = kept["smiles"].numpy().tobytes().decode().split("\n")
        values["border"] = tuple(kept["border"].tolist())
        return cls(**values)
