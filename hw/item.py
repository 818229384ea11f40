"""What one item of work costs on one machine: the answer that every target gives."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Part = Literal["compute", "sync", "exchange", "move", "launch", "off_chip", "host"]
PARTS: tuple[Part, ...] = ("compute", "sync", "exchange", "move", "launch", "off_chip", "host")


@dataclass(frozen=True)
class Superstep:
    """One phase that all tiles go through together.

    Attributes
    ----------
    kind : str
        ``"compute"``, ``"sync"`` or ``"exchange"``: what the tiles do.
    cycles : float
        Length, set by the slowest tile.
    label : str
        What the phase is for, as a user reads it in a timeline.
    part : str
        The part of the total time it counts to (a rearrangement inside a tile computes, but
        counts as ``"move"``).
    sent_byte, received_byte : float
        Summed over the tiles, every delivered copy counted; equal in an exchange.
    n_tile : int
        Tiles that take part.
    """

    kind: Literal["compute", "sync", "exchange"]
    cycles: float
    label: str
    part: Part
    sent_byte: float = 0.0
    received_byte: float = 0.0
    n_tile: int = 0


@dataclass(frozen=True)
class ItemCost:
    """Time, energy and memory of one item of work.

    Attributes
    ----------
    time_s : float
        Sum of `parts_s`.
    parts_s : dict
        Seconds by part (`PARTS`), the parts that are zero left out.
    energy_j : dict
        Joule by ``"compute"``, ``"local_memory"``, ``"exchange"`` and ``"off_chip"``. Static energy
        is no item's own: it follows from the time of the whole program.
    n_mac : int
        Multiply-adds that the item asks for (padding not counted).
    exchange_byte, off_chip_byte : float
        Bytes between tiles (or through the shared cache), and to memory outside the chip.
    temporary_byte : float
        Extra bytes on the fullest tile (on the chip, for other kinds) while the item runs.
    n_tile_used : int
        Tiles, multiprocessors or arrays at work.
    plan : str
        The winning plan, and the formats that stand in for missing ones.
    binds : str
        What the time goes to: the largest part, or ``"memory"`` if the plan had to give way to it.
    fits : bool
        False if no plan keeps its temporaries within the machine's bound.
    supersteps : tuple of Superstep
        The phases in order, on a tile machine; empty elsewhere.
    runner_up : (str, float) or None
        The next best plan and its seconds, where more than one was looked at.
    """

    time_s: float
    parts_s: dict[str, float]
    energy_j: dict[str, float]
    n_mac: int
    exchange_byte: float
    off_chip_byte: float
    temporary_byte: float
    n_tile_used: int
    plan: str
    binds: str
    fits: bool = True
    supersteps: tuple[Superstep, ...] = ()
    runner_up: tuple[str, float] | None = None


def joined(costs: Sequence[ItemCost]) -> ItemCost:
    """Return the cost of items that run one after another; a single one's is its own."""
    if len(costs) == 1:
        return costs[0]
    longest = max(costs, key=lambda cost: cost.time_s)
    return ItemCost(
        time_s=sum(cost.time_s for cost in costs),
        parts_s=_sum(cost.parts_s for cost in costs),
        energy_j=_sum(cost.energy_j for cost in costs),
        n_mac=sum(cost.n_mac for cost in costs),
        exchange_byte=sum(cost.exchange_byte for cost in costs),
        off_chip_byte=sum(cost.off_chip_byte for cost in costs),
        temporary_byte=max(cost.temporary_byte for cost in costs),
        n_tile_used=max(cost.n_tile_used for cost in costs),
        plan="; ".join(cost.plan for cost in costs),
        binds=longest.binds,
        fits=all(cost.fits for cost in costs),
        supersteps=tuple(step for cost in costs for step in cost.supersteps),
    )


def _sum(tables: Iterable[dict[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for table in tables:
        for part, value in table.items():
            total[part] = total.get(part, 0.0) + value
    return total
