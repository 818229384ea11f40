"""Min-max similarity of rows of counts, compiled where there is a compiler."""

import ctypes
import functools
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from core.kernels.load import library

_P, _L = ctypes.c_void_p, ctypes.c_int64


def min_max(a: np.ndarray, b: np.ndarray, n_part: int) -> np.ndarray:
    """Return float32 [row of a, row of b]: mean over the parts of ``sum of min / sum of max``.

    Parameters
    ----------
    a, b : float32 [row, count]
        Not negative.
    n_part : int
        Groups of equal size that the counts of a row fall into.

    Returns
    -------
    ndarray
        1 for equal rows. A part that counts nothing is like another such alone.

    Notes
    -----
    Checked against: a loop in float64, and the torch route, in the tests.
    """
    a, b = (np.ascontiguousarray(x, dtype=np.float32) for x in (a, b))
    kernels = _library()
    return _by_torch(a, b, n_part) if kernels is None else _compiled(kernels, a, b, n_part)


@functools.cache
def _library() -> ctypes.CDLL | None:
    found = library(folder=Path(__file__).resolve().parent)
    if found is not None:
        found.tessera_min_max.argtypes = [_P, _L, _P, _L, _L, _L, _P, _P, _P]
        found.tessera_min_max.restype = None
    return found


def _compiled(kernels: ctypes.CDLL, a: np.ndarray, b: np.ndarray, n_part: int) -> np.ndarray:
    out = np.empty((len(a), len(b)), dtype=np.float32)

    def fill(rows: slice) -> None:
        x, to = a[rows], out[rows]
        totals = [np.empty((len(side), n_part), dtype=np.float32) for side in (x, b)]
        arrays = [array.ctypes.data for array in (x, b, *totals, to)]
        kernels.tessera_min_max(
            arrays[0], len(x), arrays[1], len(b), n_part, a.shape[1] // n_part, *arrays[2:]
        )

    edges = np.linspace(0, len(a), torch.get_num_threads() + 1).astype(int).tolist()
    parts = [slice(i, j) for i, j in pairwise(edges) if i < j]
    if len(parts) < 2:
        fill(slice(None))
        return out
    with ThreadPoolExecutor(len(parts)) as pool:  # the library runs without Python's lock
        list(pool.map(fill, parts))
    return out


def _by_torch(a: np.ndarray, b: np.ndarray, n_part: int) -> np.ndarray:
    out = torch.zeros(len(a), len(b))
    parts = [np.array_split(x, n_part, axis=1) for x in (a, b)]
    for one, other in zip(*parts, strict=True):
        x, y = (torch.from_numpy(np.ascontiguousarray(part)) for part in (one, other))
        total = x.sum(dim=1)[:, None] + y.sum(dim=1)[None, :]
        apart = torch.cdist(x, y, p=1.0)
        # min = (total - apart) / 2, max = (total + apart) / 2
        out += torch.where(total > 0, (total - apart) / (total + apart), 1.0)
    found: np.ndarray = (out / n_part).numpy()
    return found
