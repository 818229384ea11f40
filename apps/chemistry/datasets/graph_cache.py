"""Graphs of large tables, kept in the user's cache folder between commands.

A file holds what `featurise_many` made of a list of texts: its name is the hash of that list and
of the version of the features, its content is checked against a hash of its own. A file that is
damaged, or that cannot be written, costs nothing but the time to make the graphs.
"""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import rdkit
import torch
from rdkit import Chem

from apps.chemistry.molecules import MolGraph, featurise_many
from apps.chemistry.molecules.graph import ATOM_FEATURES, EDGE_FEATURES
from apps.lab.checkpoint import load_checkpoint, save_checkpoint
from apps.lab.datastore import cache_dir
from core.errors import DataError

FORMAT = 1  # raise it when a feature changes its meaning without changing its name
MIN_MOLECULE = 500  # below that making graphs is as fast as reading them
MAX_FILE = 64  # the oldest go
_MASS = ATOM_FEATURES.index("mass_100_dalton")  # the one column that is not 0 or 1
_FLAGS = [i for i in range(len(ATOM_FEATURES)) if i != _MASS]


def cached_graphs(
    texts: Sequence[str], mols: Sequence[Chem.Mol], *, about: str = ""
) -> list[MolGraph]:
    """Return ``featurise_many(mols)``, read from the cache where an earlier command left it.

    `texts` are what the molecules were read from, and `about` says how: a molecule and the order
    of its atoms follow from both.
    """
    if len(mols) < MIN_MOLECULE:
        return featurise_many(mols)
    path = cache_file(texts, about)
    with suppress(DataError, KeyError, ValueError):
        graphs = _unpacked({k: v.numpy() for k, v in load_checkpoint(path)[0].items()})
        if len(graphs) == len(mols):
            return graphs
    graphs = featurise_many(mols)
    with suppress(DataError, OSError):
        save_checkpoint(path, _packed(graphs), {"format": FORMAT})
        kept = sorted(path.parent.glob("*.safetensors"), key=lambda file: file.stat().st_mtime)
        for file in kept[:-MAX_FILE]:
            file.unlink(missing_ok=True)
    return graphs


def cache_file(texts: Sequence[str], about: str = "") -> Path:
    """Return where the graphs of these molecules lie, there or not."""
    whole = [FORMAT, rdkit.__version__, ATOM_FEATURES, EDGE_FEATURES, about, list(texts)]
    name = hashlib.sha256(json.dumps(whole).encode()).hexdigest()
    return cache_dir() / "graphs" / f"{name[:32]}.safetensors"


def _packed(graphs: Sequence[MolGraph]) -> dict[str, torch.Tensor]:
    atom = np.concatenate([graph.atom_features for graph in graphs])
    edge = np.concatenate([graph.edge_features for graph in graphs])
    arrays = {
        "n_atom": np.array([graph.n_atom for graph in graphs], dtype=np.int32),
        "n_edge": np.array([graph.n_edge for graph in graphs], dtype=np.int32),
        "mass": atom[:, _MASS],
        "atom": np.packbits(atom[:, _FLAGS] > 0, axis=1),
        "edge": np.packbits(edge > 0, axis=1),
        "edge_index": np.concatenate([g.edge_index for g in graphs], axis=1).astype(np.int32),
        "reverse_edge": np.concatenate([g.reverse_edge for g in graphs]).astype(np.int32),
    }
    return {name: torch.from_numpy(np.ascontiguousarray(v)) for name, v in arrays.items()}


def _unpacked(kept: dict[str, np.ndarray]) -> list[MolGraph]:
    n_flag, n_edge_feature = len(_FLAGS), len(EDGE_FEATURES)
    atom = np.empty((len(kept["mass"]), len(ATOM_FEATURES)), dtype=np.float32)
    atom[:, _FLAGS] = np.unpackbits(kept["atom"], axis=1, count=n_flag)
    atom[:, _MASS] = kept["mass"]
    edge = np.unpackbits(kept["edge"], axis=1, count=n_edge_feature).astype(np.float32)
    index, reverse = (kept[k].astype(np.int64) for k in ("edge_index", "reverse_edge"))
    a, e = (np.concatenate([[0], np.cumsum(kept[k])]) for k in ("n_atom", "n_edge"))
    return [
        MolGraph(atom[a[i] : a[i + 1]], index[:, s], edge[s], reverse[s])
        for i, s in enumerate(map(slice, e[:-1].tolist(), e[1:].tolist()))
    ]
