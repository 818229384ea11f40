"""What the tiles did while a plan ran: entries moved, counted as they move, and cycles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from core.precision import round_to_format
from hw.item import Part, Superstep
from hw.machine import TileMachine
from hw.plan.phases import exchange_cycles

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Execution:
    """The result of a plan that was run tile by tile, and what was counted on the way.

    Attributes
    ----------
    result : NDArray, float64
        In the shape that the item gives, each entry a number of the machine's partial format.
    supersteps : tuple of Superstep
        Phases in order; cycles are those of the slowest tile, summed over serial steps.
    received_byte, sent_byte : NDArray, float64 [tile]
        Over all phases. A tile's own piece of what it holds in part is not received.
    plan : str
    """

    result: Array
    supersteps: tuple[Superstep, ...]
    received_byte: Array
    sent_byte: Array
    plan: str


@dataclass
class _Tally:
    kind: Literal["compute", "sync", "exchange"]
    part: Part
    cycles: float = 0.0
    received: float = 0.0
    sent: float = 0.0


@dataclass
class Ledger:
    """Counts of a running plan: phases by label, bytes by tile.

    A phase that serial steps repeat is entered once for each; its cycles add up.
    """

    machine: TileMachine
    received_byte: Array = field(init=False)
    sent_byte: Array = field(init=False)
    _phases: dict[str, _Tally] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.received_byte = np.zeros(self.machine.n_tile)
        self.sent_byte = np.zeros(self.machine.n_tile)

    def compute(self, label: str, cycles: Array | float, *, part: Part = "compute") -> None:
        """Enter cycles by tile; the slowest tile sets the length of the phase."""
        tally = self._phases.setdefault(label, _Tally("compute", part))
        tally.cycles += float(np.max(cycles))

    def exchange(
        self,
        label: str,
        received: Array,
        sent: Array,
        *,
        shared: float = 0.0,
        n_fragment: Array | float = 1.0,
        by_sender: bool = False,
    ) -> None:
        """Enter bytes by tile; the tile with most to receive (or to send) sets the length."""
        if not received.any():
            return
        self.received_byte += received
        self.sent_byte += sent
        sync = self._phases.setdefault(f"sync before {label}", _Tally("sync", "sync"))
        sync.cycles += self.machine.sync_cycle
        tally = self._phases.setdefault(label, _Tally("exchange", "exchange"))
        bound = sent if by_sender else received
        by_tile = exchange_cycles(
            self.machine, bound, np.asarray(shared), np.asarray(n_fragment, dtype=np.float64)
        )
        tally.cycles += float(np.max(np.where(bound > 0, by_tile, 0.0)))
        tally.received += float(received.sum())
        tally.sent += float(sent.sum())

    def execution(self, result: Array, plan: str, n_tile: int) -> Execution:
        """Close the ledger."""
        steps = tuple(
            Superstep(t.kind, t.cycles, label, t.part, t.sent, t.received, n_tile)
            for label, t in self._phases.items()
            if t.cycles
        )
        return Execution(result, steps, self.received_byte, self.sent_byte, plan)


def in_turn(done: Sequence[Execution], result: Array, plan: str) -> Execution:
    """Return what was counted while several executions ran one after another.

    The phases are those of each in turn; bytes by tile add up.
    """
    return Execution(
        result,
        tuple(step for one in done for step in one.supersteps),
        np.sum([one.received_byte for one in done], axis=0),
        np.sum([one.sent_byte for one in done], axis=0),
        plan,
    )


class Moved:
    """Bytes received and sent by each tile in one exchange."""

    def __init__(self, machine: TileMachine) -> None:
        self.received = np.zeros(machine.n_tile)
        self.sent = np.zeros(machine.n_tile)

    @property
    def counts(self) -> tuple[Array, Array]:
        """Bytes received, bytes sent."""
        return self.received, self.sent

    def move(self, source: int, target: int, byte: float) -> None:
        """Note that bytes go from one tile to another."""
        self.sent[source] += byte
        self.received[target] += byte


class Pieces:
    """A block of entries that several tiles need, each holding an equal piece of it at first."""

    def __init__(self, block: Array, n_holder: int) -> None:
        self._shape = block.shape
        self._pieces = np.array_split(block.ravel(), n_holder)

    def assemble(
        self, tiles: NDArray[np.int64], byte: float, received: Array, sent: Array
    ) -> Array:
        """Bring all pieces to all `tiles`, note who received and who sent, return the block."""
        for holder, piece in zip(tiles, self._pieces, strict=True):
            moved = piece.size * byte
            received[tiles] += moved
            received[holder] -= moved
            sent[holder] += moved * (len(tiles) - 1)
        return np.concatenate(self._pieces).reshape(self._shape)


def rounded(x: Array, *formats: str) -> Array:
    """Round float64 entries to each format in turn."""
    out = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float64))
    for format in formats:
        out = round_to_format(out, format)
    return out.numpy()
