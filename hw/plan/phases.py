"""The phases of many candidate plans at once, and the choice among them.

A planner lists, for every candidate spread of an operation over the tiles, the cycles of each
phase as one array over the candidates. The same arrays rank the candidates and become the
supersteps of the winner, so that the search and the answer cannot disagree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hw.item import ItemCost, Part, Superstep
from hw.machine import TileMachine

Array = NDArray[np.float64]
#: Plans by memory may take this many times as long as the quickest.
MEMORY_SLOWDOWN = 2.0


@dataclass(frozen=True)
class Phase:
    """One phase over all candidates: cycles, bytes delivered to all tiles and to the fullest."""

    label: str
    kind: str
    part: Part
    cycles: Array
    byte: Array
    tile_byte: Array


@dataclass
class Candidates:
    """Phases of `n` candidate plans on one tile machine; filled by a planner, then `choose`n from.

    Attributes
    ----------
    machine : TileMachine
    n : int
        Number of candidates.
    """

    machine: TileMachine
    n: int
    phases: list[Phase] = field(default_factory=list)
    temporary_byte: Array = field(init=False)
    local_byte: Array = field(init=False)
    arithmetic_pj: Array = field(init=False)
    n_tile: Array = field(init=False)

    def __post_init__(self) -> None:
        self.temporary_byte = np.zeros(self.n)
        self.local_byte = np.zeros(self.n)
        self.arithmetic_pj = np.zeros(self.n)
        self.n_tile = np.ones(self.n)

    def compute(
        self,
        label: str,
        cycles: ArrayLike,
        *,
        local_byte: ArrayLike = 0.0,
        pj: ArrayLike = 0.0,
        part: Part = "compute",
    ) -> None:
        """Add a phase of arithmetic or of copies inside the tiles, `cycles` on the slowest one.

        `local_byte` (tile memory traffic) and `pj` (arithmetic) are sums over all tiles.
        """
        zero = np.zeros(self.n)
        self.phases.append(Phase(label, "compute", part, self._full(cycles), zero, zero))
        self.local_byte = self.local_byte + self._full(local_byte)
        self.arithmetic_pj = self.arithmetic_pj + self._full(pj)

    def exchange(
        self,
        label: str,
        tile_byte: ArrayLike,
        total_byte: ArrayLike,
        *,
        shared: ArrayLike = 0.0,
        n_fragment: ArrayLike = 1.0,
        n_phase: ArrayLike = 1.0,
    ) -> None:
        """Add a sync and an exchange in which the fullest tile receives `tile_byte`.

        Parameters
        ----------
        tile_byte : array
            Received by the fullest tile, over all `n_phase` repeats.
        total_byte : array
            Delivered to all tiles together.
        shared : array, 0..1
            Share of the bytes that both tiles of a pair receive at once over their common bus.
        n_fragment : array
            Separate pieces per tile and phase, each with its own control cost.
        n_phase : array
            How often sync and exchange are repeated (serial splits).
        """
        tile_byte, shared = self._full(tile_byte), self._full(shared)
        happens = tile_byte > 0
        n_phase = np.where(happens, self._full(n_phase), 0.0)
        cycles = exchange_cycles(self.machine, tile_byte, shared, n_phase * self._full(n_fragment))
        zero = np.zeros(self.n)
        sync = n_phase * self.machine.sync_cycle
        self.phases.append(Phase(f"sync before {label}", "sync", "sync", sync, zero, zero))
        delivered = np.where(happens, self._full(total_byte), 0.0)
        self.phases.append(Phase(label, "exchange", "exchange", cycles, delivered, tile_byte))

    def of_tiles(self) -> Candidates:
        """Take the candidates for the tiles of one plan: the slowest sets each phase, bytes add up.

        Arithmetic and memory traffic are taken from the tile that counts most.
        """
        one = Candidates(self.machine, 1)
        for phase in self.phases:
            cycles, byte = phase.cycles.max(keepdims=True), phase.tile_byte.sum(keepdims=True)
            most = phase.tile_byte.max(keepdims=True)
            one.phases.append(Phase(phase.label, phase.kind, phase.part, cycles, byte, most))
        one.temporary_byte = self.temporary_byte.max(keepdims=True)
        one.local_byte = self.local_byte.max(keepdims=True)
        one.arithmetic_pj = self.arithmetic_pj.max(keepdims=True)
        one.n_tile = self.n_tile.max(keepdims=True)
        return one

    def cycles(self) -> Array:
        """Return the cycles of each candidate."""
        total = np.zeros(self.n)
        for phase in self.phases:
            total = total + phase.cycles
        return total

    def energy_pj(self) -> Array:
        """Return the picojoule of each candidate, those of waiting included."""
        machine = self.machine
        moved = np.zeros(self.n)
        for phase in self.phases:
            moved = moved + phase.byte
        dynamic = self.arithmetic_pj + self.local_byte * machine.local_pj_per_byte
        idle = self.cycles() / machine.clock_hz * machine.static_w * 1e12
        total: Array = dynamic + moved * machine.exchange_pj_per_byte + idle
        return total

    def rank(self) -> Array:
        """Return what the machine's plans are chosen by, of each candidate."""
        if self.machine.objective == "energy":
            return self.energy_pj()
        if self.machine.objective == "memory":
            cycles = self.cycles()
            slow = cycles > MEMORY_SLOWDOWN * cycles.min()
            # of equal temporaries the quicker plan
            return np.where(slow, np.inf, self.temporary_byte) + cycles / cycles.max()
        return self.cycles()

    def memory_bound(self) -> float:
        """Return the bytes that the temporaries of one operation may take on a tile."""
        return self.machine.temporary_fraction * self.machine.tile_memory_byte

    def choose(self, rank: Array | None = None) -> tuple[int, bool, bool]:
        """Return the best candidate within the memory bound, if it fits, if memory binds.

        Best is the one with the smallest `rank`, by the machine's objective if not given. When
        none fits, the one with the smallest temporaries is returned and does not fit.
        """
        rank = self.rank() if rank is None else rank
        inside = self.temporary_byte <= self.memory_bound()
        if not inside.any():
            return int(np.argmin(self.temporary_byte)), False, True
        if not np.isfinite(rank[inside]).any():
            rank = self.cycles()
        winner = int(np.argmin(np.where(inside, rank, np.inf)))
        return winner, True, bool(rank.min() < rank[winner])

    def second(self, winner: int, rank: Array | None = None) -> int | None:
        """Return the next best candidate within the memory bound, if there is one."""
        rank = self.rank() if rank is None else rank
        rank = np.where(self.temporary_byte <= self.memory_bound(), rank, np.inf)
        rank[winner] = np.inf
        return int(np.argmin(rank)) if np.isfinite(rank).any() else None

    def best_cost(self, words: Callable[[int], str], *, n_mac: int = 0) -> ItemCost:
        """Return the cost of the best candidate, the next one named beside it by `words`."""
        winner, fits, memory_binds = self.choose()
        second = self.second(winner)
        return self.item_cost(
            winner,
            n_mac=n_mac,
            plan=words(winner),
            fits=fits,
            memory_binds=memory_binds,
            runner_up=None if second is None else (words(second), float(self.cycles()[second])),
        )

    def item_cost(
        self,
        winner: int,
        *,
        n_mac: int,
        plan: str,
        fits: bool = True,
        memory_binds: bool = False,
        runner_up: tuple[str, float] | None = None,
    ) -> ItemCost:
        """Turn candidate `winner` into supersteps, seconds and joule.

        `runner_up` is the next best plan and its cycles.
        """
        machine = self.machine
        n_tile = int(self.n_tile[winner])
        supersteps: list[Superstep] = []
        parts: dict[str, float] = {}
        moved = 0.0
        for phase in self.phases:
            cycles = float(phase.cycles[winner])
            if cycles == 0.0:
                continue
            byte = float(phase.byte[winner])
            moved += byte
            parts[phase.part] = parts.get(phase.part, 0.0) + cycles / machine.clock_hz
            supersteps.append(
                Superstep(
                    phase.kind,  # type: ignore[arg-type]
                    cycles,
                    phase.label,
                    phase.part,
                    sent_byte=byte,
                    received_byte=byte,
                    n_tile=n_tile,
                )
            )
        energy = {
            "compute": float(self.arithmetic_pj[winner]) * 1e-12,
            "local_memory": float(self.local_byte[winner]) * machine.local_pj_per_byte * 1e-12,
            "exchange": moved * machine.exchange_pj_per_byte * 1e-12,
            "off_chip": 0.0,
        }
        largest = max(parts, key=lambda part: parts[part]) if parts else "nothing"
        return ItemCost(
            time_s=sum(parts.values()),
            parts_s=parts,
            energy_j=energy,
            n_mac=n_mac,
            exchange_byte=moved,
            off_chip_byte=0.0,
            temporary_byte=float(self.temporary_byte[winner]),
            n_tile_used=n_tile,
            plan=plan if fits else f"{plan}; does not fit in tile memory",
            binds="memory" if memory_binds else largest,
            fits=fits,
            supersteps=tuple(supersteps),
            runner_up=None
            if runner_up is None
            else (runner_up[0], runner_up[1] / machine.clock_hz),
        )

    def _full(self, values: ArrayLike) -> Array:
        return np.broadcast_to(np.asarray(values, dtype=np.float64), (self.n,))


def exchange_cycles(
    machine: TileMachine, tile_byte: Array, shared: Array, n_fragment: Array
) -> Array:
    """Return the cycles in which a tile receives bytes in `n_fragment` separate pieces."""
    per_byte = (1 - shared) / machine.exchange_byte_per_cycle
    per_byte = per_byte + shared / machine.exchange_pair_byte_per_cycle
    cycles: Array = tile_byte * per_byte + n_fragment * machine.exchange_fragment_cycle
    return cycles
