"""When tensors travel between a chip and the memory beside it, and how much of it the work hides.

One tensor travels at a time, one way or the other, in a fixed order. What an op needs may come
while earlier ops run, as far as half of the buffer holds it; it leaves the buffer when its op
starts. What makes room for an op is put into the other half and leaves while later ops run. What
the buffer cannot hold travels while the work waits. Every start is the latest of a few ends, so
that with a quicker link, or shorter work, nothing ends later; the whole takes at least as long as
the work, and as the transfers, and at most as long as both together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

#: Parts of one tensor add up to it to this share.
ROUNDING = 1e-12


@dataclass(frozen=True)
class Piece:
    """A tensor, or part of one, that travels.

    `i_task` is the task that it made room for, from whose start on it may come again (-1: it is
    outside from the beginning); of what leaves, the task that it makes room for.
    """

    byte: float
    i_task: int
    name: str


@dataclass(frozen=True)
class Transfer:
    """A piece on its way; `i_task` is the task it comes for, or makes room for."""

    name: str
    comes: bool
    i_task: int
    byte: float
    start_s: float
    length_s: float


@dataclass(frozen=True)
class Timeline:
    """Work and transfers in time.

    Attributes
    ----------
    wait_s : tuple of float
        How long the work stands still before each task.
    tail_s : float
        From the end of the last task to that of the last transfer.
    time_s : float
        Work, waits and tail together.
    transfers : tuple of Transfer
        In order; no two overlap.
    """

    wait_s: tuple[float, ...]
    tail_s: float
    time_s: float
    transfers: tuple[Transfer, ...]


def timeline(
    work_s: Sequence[float],
    comes: Sequence[Sequence[Piece]],
    leaves: Sequence[Sequence[Piece]],
    byte_per_s: float,
    buffer_byte: float,
) -> Timeline:
    """Return when each task runs and each tensor travels.

    Parameters
    ----------
    work_s : sequence of float
        Length of each task.
    comes, leaves : sequence of sequence of Piece
        What each task needs from outside, and what has to leave before it starts.
    byte_per_s : float
        Of the link, one way at a time.
    buffer_byte : float
        Half of it for what comes, half for what leaves. Without any the work waits for each
        transfer.

    Examples
    --------
    >>> from hw.overlap import Piece, timeline
    >>> weight = Piece(byte=8.0, i_task=-1, name="weight")
    >>> timeline([3.0, 1.0], [(), (weight,)], [(), ()], 4.0, buffer_byte=0.0).time_s
    6.0
    >>> timeline([3.0, 1.0], [(), (weight,)], [(), ()], 4.0, buffer_byte=16.0).time_s
    4.0
    """
    half, link_s, clock_s = buffer_byte / 2, 0.0, 0.0
    starts: list[float] = []
    ends: list[float] = [0.0]  # of the task before each one
    waits: list[float] = []
    transfers: list[Transfer] = []
    arrived: deque[tuple[int, float]] = deque()  # task and bytes in the one half
    leaving: deque[tuple[float, float]] = deque()  # end and bytes in the other
    stored: list[tuple[Piece, int]] = []  # in the other half, still to be sent

    def send(piece: Piece, i: int, earliest_s: float, *, comes: bool) -> float:
        nonlocal link_s
        start_s, length_s = max(link_s, earliest_s), piece.byte / byte_per_s
        transfers.append(Transfer(piece.name, comes, i, piece.byte, start_s, length_s))
        link_s = start_s + length_s
        return link_s

    def empty() -> None:
        for piece, i in stored:
            leaving.append((send(piece, i, ends[i], comes=False), piece.byte))
        stored.clear()

    for i, length_s in enumerate(work_s):
        ready_s = clock_s
        ahead, late = _split(comes[i], half)
        for piece in ahead:
            if piece.i_task == i - 1:
                empty()  # it may be among what the task before put there
            earliest_s = starts[piece.i_task] if piece.i_task >= 0 else 0.0
            while sum(b for _, b in arrived) + piece.byte > half * (1 + ROUNDING):
                earliest_s = max(earliest_s, starts[arrived.popleft()[0]])
            ready_s = max(ready_s, send(piece, i, earliest_s, comes=True))
            arrived.append((i, piece.byte))
        empty()
        kept, now = _split(leaves[i], half)
        byte = sum(piece.byte for piece in kept)
        while leaving and sum(b for _, b in leaving) + byte > half * (1 + ROUNDING):
            ready_s = max(ready_s, leaving.popleft()[0])
        for piece in now:
            ready_s = max(ready_s, send(piece, i, clock_s, comes=False))
        for piece in late:
            ready_s = max(ready_s, send(piece, i, clock_s, comes=True))
        stored.extend((piece, i) for piece in kept)
        starts.append(ready_s)
        waits.append(ready_s - clock_s)
        clock_s = ready_s + length_s
        ends.append(clock_s)
    empty()
    end_s = max(clock_s, link_s)
    return Timeline(tuple(waits), end_s - clock_s, end_s, tuple(transfers))


def _split(pieces: Sequence[Piece], half: float) -> tuple[list[Piece], list[Piece]]:
    """Return what the half of a buffer holds, and the rest; a piece across is cut in two."""
    first: list[Piece] = []
    rest: list[Piece] = []
    left = half
    for piece in pieces:
        fitting = min(left, piece.byte)
        left -= fitting
        for target, byte in ((first, fitting), (rest, piece.byte - fitting)):
            if byte > 0:
                target.append(Piece(byte, piece.i_task, piece.name))
    return first, rest
