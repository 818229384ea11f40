"""Shape, dtype and index checks whose messages say what to do next."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from core.errors import DtypeError, IndexRangeError, ShapeError


def check_shape(who: str, name: str, x: Tensor, expected: tuple[int | None, ...], why: str) -> None:
    """Raise ShapeError unless `x` has the `expected` shape (None: any length on that axis)."""
    shape = x.shape
    if len(shape) != len(expected) or any(
        e is not None and s != e for s, e in zip(shape, expected, strict=True)
    ):
        wanted = ", ".join("any" if e is None else str(e) for e in expected)
        raise ShapeError(f"{who}: {name} must have shape [{wanted}], got {list(x.shape)}; {why}")


def check_dtype(who: str, name: str, x: Tensor, allowed: Collection[torch.dtype]) -> None:
    """Raise DtypeError unless the dtype of `x` is one of `allowed`."""
    if x.dtype not in allowed:
        wanted = " or ".join(str(d).removeprefix("torch.") for d in allowed)
        got = str(x.dtype).removeprefix("torch.")
        first = str(next(iter(allowed))).removeprefix("torch.")
        raise DtypeError(
            f"{who}: {name} must be {wanted}, got {got}; convert it, .to(torch.{first})"
        )


def check_index(who: str, name: str, index: Tensor, n: int, what: str) -> None:
    """Raise IndexRangeError unless each entry of the 1-D `index` lies in 0..n-1.

    Parameters
    ----------
    who, name : str
        The function that checks and the argument that is checked.
    index : Tensor, integer [...]
        On a real device; reading it costs one host transfer on an accelerator.
    n : int
        Number of valid targets.
    what : str
        What a target is, singular, for the message.
    """
    if index.numel() == 0:
        return
    low, high = (int(v) for v in torch.aminmax(index))
    if low >= 0 and high < n:
        return
    flat = index.reshape(-1)
    i = int(((flat < 0) | (flat >= n)).nonzero()[0])
    allowed = f"indices must lie in 0..{n - 1}" if n else f"there is no {what} to point at"
    raise IndexRangeError(
        f"{who}: {name}[{i}] = {int(flat[i])} but there are {n} {what}s; {allowed}"
    )
