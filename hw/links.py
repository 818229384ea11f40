"""Bytes between chips: fast links inside a node, one shared link from each node to the others.

Nodes stand in racks; from one rack to the next a node's link may be slower, and a ring or tree that
passes through several racks is as slow as that link. Chips are numbered node by node. A group is
`size` chips whose numbers lie `stride` apart; all groups of the same kind are busy at once, so that
they contend for the link of their node. What arrives equals what is sent: both directions of a link
are used alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from core.errors import ConfigError
from hw.machine import Machine

Algorithm = Literal["ring", "tree", "best"]


@dataclass(frozen=True)
class Transfer:
    """Time, and the bytes that a whole group sends (and receives) inside and between nodes."""

    time_s: float = 0.0
    in_node_byte: float = 0.0
    between_byte: float = 0.0


@dataclass(frozen=True)
class Group:
    """Chips that exchange with one another."""

    size: int
    stride: int = 1

    def in_node(self, machine: Machine) -> int:
        """Return how many members share a node."""
        return max(1, min(self.size, machine.node_chip // self.stride))

    def n_node(self, machine: Machine) -> int:
        """Return how many nodes the group spans."""
        return math.ceil(self.size / self.in_node(machine))

    def link_byte_per_s(self, machine: Machine) -> float:
        """Return the rate of a node's link to the next one, the slowest on the group's way."""
        if 1 + (self.size - 1) * self.stride > machine.rack_chip:
            return min(machine.node_link_byte_per_s, machine.rack_link_byte_per_s)
        return machine.node_link_byte_per_s

    def n_sharing(self, machine: Machine) -> int:
        """Return how many such groups send over the same node's link."""
        return max(1, machine.node_chip // self.in_node(machine))


def all_reduce(
    byte: float, group: Group, machine: Machine, algorithm: Algorithm = "best"
) -> Transfer:
    """Return what it takes until every chip of a group holds the sum of `byte` bytes from each.

    Parameters
    ----------
    byte : float
        Size of one chip's summand.
    group : Group
    machine : Machine
    algorithm : str
        ``"ring"``: 2 (g - 1) steps of byte / g inside the nodes, then each chip its share of the
        bytes around the ring of nodes. ``"tree"``: the bytes stream up and down a binary tree of
        the node's chips, then of the nodes. ``"best"``: the quicker one.

    Raises
    ------
    ConfigError
        If the algorithm is none of these.

    Notes
    -----
    Inside one node the ring takes 2 (g - 1) (byte / g / rate + latency), its closed form (Thakur
    et al. 2005, doi 10.1177/1094342005051521), the tree 2 byte / rate + 2 log2(g) latency.
    """
    if algorithm not in ("ring", "tree", "best"):
        raise ConfigError(f"all_reduce: algorithm must be ring, tree or best, got {algorithm!r}")
    if group.size <= 1 or byte == 0:
        return Transfer()
    if algorithm == "best":
        both = (all_reduce(byte, group, machine, "ring"), all_reduce(byte, group, machine, "tree"))
        return min(both, key=lambda transfer: transfer.time_s)
    local, n_node = group.in_node(machine), group.n_node(machine)
    if algorithm == "ring":
        inside, n_inside = 2 * byte * (local - 1) / local, 2 * (local - 1)
        outside, n_outside = 2 * byte * (n_node - 1) / n_node, 2 * (n_node - 1)
        sent_inside, sent_outside = inside * local * n_node, outside * n_node
    else:
        inside, n_inside = 2 * byte * (local > 1), 2 * math.ceil(math.log2(local))
        outside, n_outside = 2 * byte * (n_node > 1), 2 * math.ceil(math.log2(n_node))
        sent_inside = 2 * byte * (local - 1) * n_node
        sent_outside = 2 * byte * (n_node - 1)
    time_s = inside / machine.chip_link_byte_per_s + n_inside * machine.chip_link_latency_s
    time_s += outside * group.n_sharing(machine) / group.link_byte_per_s(machine)
    time_s += n_outside * machine.node_link_latency_s
    return Transfer(time_s, sent_inside, sent_outside)


def send(byte: float, group: Group, machine: Machine) -> Transfer:
    """Return what it takes to hand `byte` bytes from one member of a chain to the next.

    The chain's `stride` chips hold an equal part of them each and send it at once; the slowest
    neighbours of the chain, those in two nodes if there are any, set the time.
    """
    if group.size <= 1 or byte == 0:
        return Transfer()
    if group.n_node(machine) == 1:
        time_s = byte / group.stride / machine.chip_link_byte_per_s + machine.chip_link_latency_s
        return Transfer(time_s, in_node_byte=byte)
    share = min(1.0, machine.node_chip / group.stride)
    time_s = byte * share / group.link_byte_per_s(machine) + machine.node_link_latency_s
    return Transfer(time_s, between_byte=byte)
