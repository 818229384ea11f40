"""Words between training processes of one machine, through memory that they share.

A sum over TCP costs a millisecond or more where waking a process is slow, whatever its size; a
training step of a small network has some twenty. Here every process writes into its own slot and
reads the slots of the others where they lie; who is waited for is watched, so that a dead
neighbour is an error and not a wait without end. Order of writing is what x86 keeps by itself;
elsewhere, on several machines and where there is no shared memory, `neighbours` gives None and the
backend of torch.distributed is used.
"""

from __future__ import annotations

import mmap
import os
import platform
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")

N_BYTE_SLOT = 1 << 20  # what goes from one process to the others at once, if not told otherwise
PLACE = Path("/dev/shm")
WAIT_S = 1800.0  # as long as the gloo backend waits by default
_N_BYTE_LINE = 64  # a counter has a cache line to itself
_N_BYTE_NAME = 128
_N_SPIN = 3000


class NeighbourError(RuntimeError):
    """Another process of the training has ended, or has been silent for too long."""


class Neighbours:
    """The processes of a training, all on this machine.

    Parameters
    ----------
    file : Path
        Shared file of `n_byte(n_rank, n_byte_slot)` bytes, zeros at first.
    rank, n_rank : int
        This process among all.
    n_byte_slot : int
        Longer messages go in parts; a multiple of 8.

    Two slots a process are written in turn: who writes message k + 2 has seen that all others
    have sent message k + 1, hence that they have read message k.
    """

    def __init__(self, file: Path, rank: int, n_rank: int, n_byte_slot: int = N_BYTE_SLOT) -> None:
        with file.open("r+b") as handle:
            self._memory = mmap.mmap(handle.fileno(), n_byte(n_rank, n_byte_slot))
        whole = np.frombuffer(self._memory, dtype=np.uint8)
        head = whole[: n_rank * _N_BYTE_LINE].view(np.int64).reshape(n_rank, -1)
        self._sent, self._pid = head[:, 0], head[:, 1]
        self._slot = torch.from_numpy(whole[n_rank * _N_BYTE_LINE :]).view(2, n_rank, n_byte_slot)
        self.rank, self.n_rank, self.n_byte_slot = rank, n_rank, n_byte_slot
        self._n_message = 0
        self._known: dict[tuple[int, int, torch.dtype], tuple[Tensor, Tensor]] = {}
        self._others = [r for r in range(n_rank) if r != rank]
        self._pid[rank] = os.getpid()

    def gather(self, *parts: Tensor) -> Tensor:
        """Give `parts` of every process, end to end: [n_rank, n], in the order of ranks.

        All processes call it alike, with parts of one dtype. What it gives is the shared memory
        itself, and stays until the next call.

        Raises
        ------
        NeighbourError
            If another process has ended, or is silent for half an hour.
        """
        flat = [part if part.dim() == 1 else part.reshape(-1) for part in parts]
        n_most = self.n_byte_slot // flat[0].element_size()
        if sum(map(len, flat)) <= n_most:
            return self._exchange(flat)
        pieces = torch.cat(flat).split(n_most)
        return torch.cat([self._exchange([piece]).clone() for piece in pieces], dim=1)

    def add_up(self, x: Tensor, meanwhile: Callable[[], T]) -> T:
        """Replace `x` [n] by its sum over all processes, the same bits on each.

        Gives what `meanwhile` does, which is called before the others are waited for. Called, and
        fails, as `gather`.
        """
        pieces = x.split(self.n_byte_slot // x.element_size())
        slots = self._send([pieces[0]])
        done = meanwhile()
        for i, piece in enumerate(pieces):
            if i:
                slots = self._send([piece])
            self._wait()
            torch.add(slots[0], slots[1], out=piece)  # in the order of ranks
            for more in slots[2:]:
                piece += more
        return done

    def _exchange(self, parts: Sequence[Tensor]) -> Tensor:
        """Send `parts` [n] that fit into a slot; give the slots of all processes [n_rank, n]."""
        slots = self._send(parts)
        self._wait()
        return slots

    def _send(self, parts: Sequence[Tensor]) -> Tensor:
        """Give what `_exchange` does, to be read after `_wait`."""
        mine, slots = self._slots(sum(map(len, parts)), parts[0].dtype)
        torch.cat(list(parts), out=mine)
        self._n_message += 1
        self._sent[self.rank] = self._n_message
        return slots

    def _slots(self, n: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Give the place of the next message, of this process [n] and of all [n_rank, n].

        Kept for the next step, which sends the same: making them takes longer than a message.
        """
        key = self._n_message % 2, n, dtype
        if key not in self._known:
            slots = self._slot[key[0], :, : n * dtype.itemsize].view(dtype)
            self._known[key] = slots[self.rank], slots
        return self._known[key]

    def _wait(self) -> None:
        """Return once all others have sent as many messages as this process."""
        sent, want = self._sent, self._n_message
        for other in self._others:
            n_turn, began, looked = 0, 0.0, 0.0
            while sent[other] < want:
                n_turn += 1
                if n_turn < _N_SPIN:
                    continue
                now = time.monotonic()
                began, looked = began or now, looked or now
                if now - looked > 0.2:
                    looked = now
                    self._check(other, now - began)
                time.sleep(0 if now - began < 0.05 else 1e-4)

    def _check(self, other: int, waited_s: float) -> None:
        if not _lives(int(self._pid[other])):
            raise NeighbourError(
                f"training in several processes: process {other} has ended; see its own message, "
                "then start all again with --resume"
            )
        if waited_s > WAIT_S:
            raise NeighbourError(
                f"training in several processes: process {other} has been silent for "
                f"{waited_s:.0f} s; stop all and start again with --resume"
            )


def n_byte(n_rank: int, n_byte_slot: int = N_BYTE_SLOT) -> int:
    """Bytes of the shared file of `n_rank` processes."""
    return n_rank * (_N_BYTE_LINE + 2 * n_byte_slot)


def neighbours(n_byte_slot: int = N_BYTE_SLOT) -> Neighbours | None:
    """Meet the other processes of the group, or give None where they share no memory.

    Called by all processes of a group of torch.distributed at once, on its gloo backend.
    """
    rank, n_rank = dist.get_rank(), dist.get_world_size()
    file = PLACE / f"tessera-{secrets.token_hex(16)}"
    is_fit = platform.machine() in ("x86_64", "AMD64") and PLACE.is_dir()
    name = torch.zeros(_N_BYTE_NAME, dtype=torch.uint8)
    made = False
    try:
        if rank == 0 and is_fit:
            made = _make(file, n_byte(n_rank, n_byte_slot))
            text = file.name.encode() if made else b""
            name[: len(text)] = torch.tensor(list(text), dtype=torch.uint8)
        dist.broadcast(name, 0)
        file = PLACE / bytes(name.tolist()).rstrip(b"\0").decode()
        met = None
        if is_fit and file.is_file():  # on another machine the name leads nowhere
            met = Neighbours(file, rank, n_rank, n_byte_slot)
        all_met = torch.tensor([met is not None], dtype=torch.int64)
        dist.all_reduce(all_met, dist.ReduceOp.MIN)
        seen = torch.tensor(
            [bool(all_met) and met is not None and all(map(_lives, met._pid.tolist()))],
            dtype=torch.int64,
        )
        dist.all_reduce(seen, dist.ReduceOp.MIN)
    finally:
        if made:
            file.unlink()  # the memory lives as long as who holds it: a kill leaves nothing
    return met if bool(seen) else None


def _make(file: Path, size: int) -> bool:
    """Make a file of zeros that only this user can read; False where there is no room."""
    try:
        handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError:
        return False
    try:
        os.posix_fallocate(handle, 0, size)
    except OSError:
        file.unlink()
        return False
    finally:
        os.close(handle)
    return True


def _lives(pid: int) -> bool:
    """Whether a process of this number is there: zero is nobody's."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
