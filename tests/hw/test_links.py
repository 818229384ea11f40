"""Transfers between chips: closed forms, a ring that is really run, contention."""

from dataclasses import replace

import numpy as np
import pytest

from core.errors import ConfigError
from hw.links import Group, Transfer, all_reduce, send
from hw.machine import Machine, load_machine


def machine(**changes: float) -> Machine:
    round_numbers = {
        "node_chip": 8,
        "chip_link_byte_per_s": 1e9,
        "chip_link_latency_s": 1e-6,
        "node_link_byte_per_s": 2e9,
        "node_link_latency_s": 1e-5,
    }
    return replace(load_machine("a100"), **{**round_numbers, **changes})  # type: ignore[arg-type]


def test_one_chip_exchanges_nothing():
    assert all_reduce(1e6, Group(1), machine()) == Transfer(0.0, 0.0, 0.0)
    assert send(1e6, Group(1), machine()) == Transfer(0.0, 0.0, 0.0)


@pytest.mark.parametrize("g", [2, 4, 8])
def test_closed_forms_inside_a_node(g):
    ring = all_reduce(8e6, Group(g), machine(), "ring")
    assert ring.time_s == pytest.approx(2 * (g - 1) * (8e6 / g / 1e9 + 1e-6))
    assert ring.between_byte == 0
    tree = all_reduce(8e6, Group(g), machine(), "tree")
    assert tree.time_s == pytest.approx(2 * 8e6 / 1e9 + 2 * np.log2(g) * 1e-6)


def ring_by_hand(byte: int, g: int) -> tuple[np.ndarray, int]:
    """Pass chunks around a ring of `g` chips until all hold the sum; count the bytes sent."""
    values = np.random.default_rng(0).integers(0, 99, (g, byte))
    chunks = [np.array_split(v, g) for v in values]
    sent = 0
    for final in (False, True):
        for step in range(g - 1):
            moves = []
            for chip in range(g):
                which = (chip - step + final) % g
                moves.append((chip, which, chunks[chip][which].copy()))
            for chip, which, data in moves:
                to = (chip + 1) % g
                chunks[to][which] = data if final else chunks[to][which] + data
                sent += data.size
    held = np.array([np.concatenate(c) for c in chunks])
    assert (held == values.sum(axis=0)).all()
    return held, sent


@pytest.mark.parametrize("g", [2, 3, 8])
def test_bytes_of_a_ring_that_is_run(g):
    _, sent = ring_by_hand(840, g)
    assert all_reduce(840, Group(g), machine(), "ring").in_node_byte == sent


def test_nodes_of_one_chip_are_a_ring_of_nodes():
    alone = machine(node_chip=1)
    transfer = all_reduce(8e6, Group(16), alone, "ring")
    assert transfer.time_s == pytest.approx(30 * (8e6 / 16 / 2e9 + 1e-5))
    assert transfer.in_node_byte == 0
    assert transfer.between_byte == 30 * 8e6


def test_two_levels_by_hand():
    """Sixteen chips in two nodes: 7/8 inside twice, then an eighth each between the nodes."""
    transfer = all_reduce(8e6, Group(16), machine(), "ring")
    inside = 2 * 7 * (1e6 / 1e9 + 1e-6)
    between = 2 * (8 * 1e6 / 2 / 2e9 + 1e-5)
    assert transfer.time_s == pytest.approx(inside + between)
    assert transfer.in_node_byte == 16 * 14 * 1e6
    assert transfer.between_byte == 2 * 8e6


def test_groups_contend_for_the_link_of_their_node():
    """Eight groups, one chip of each in every node: each has an eighth of the link."""
    alone = all_reduce(8e6, Group(4), machine(node_chip=1), "ring")
    shared = all_reduce(8e6, Group(4, stride=8), machine(), "ring")
    latency = 6 * 1e-5
    assert shared.time_s - latency == pytest.approx(8 * (alone.time_s - latency))


def test_best_is_the_tree_for_few_bytes_and_the_ring_for_many():
    far = machine(node_chip=1)
    few, many, group = 100.0, 1e10, Group(256)
    assert all_reduce(few, group, far) == all_reduce(few, group, far, "tree")
    assert all_reduce(many, group, far) == all_reduce(many, group, far, "ring")
    with pytest.raises(ConfigError, match="algorithm must be ring, tree or best, got 'star'"):
        all_reduce(1, group, far, "star")  # type: ignore[arg-type]


def test_sending_along_a_chain():
    inside = send(4e6, Group(4, stride=2), machine())
    assert inside.time_s == pytest.approx(2e6 / 1e9 + 1e-6)
    # two stages of eight chips fill two nodes: all eight send an eighth through one link
    between = send(4e6, Group(2, stride=8), machine())
    assert between.time_s == pytest.approx(4e6 / 2e9 + 1e-5)
    assert between.between_byte == 4e6
    # of sixteen chips in two nodes half the bytes leave each node
    wide = send(4e6, Group(2, stride=16), machine())
    assert wide.time_s == pytest.approx(2e6 / 2e9 + 1e-5)


def test_a_group_of_several_racks_is_as_slow_as_the_link_between_them():
    one = machine(rack_chip=64, rack_link_byte_per_s=5e8)
    inside, across = (all_reduce(64e6, Group(n), one, "ring") for n in (64, 128))
    same = all_reduce(64e6, Group(128), machine(rack_chip=1024), "ring")
    nodes = 128 // 8
    more_s = 2 * 64e6 * (nodes - 1) / nodes * (1 / 5e8 - 1 / 2e9)
    assert across.time_s == pytest.approx(same.time_s + more_s)
    assert across.between_byte == same.between_byte
    assert inside.time_s == all_reduce(64e6, Group(64), machine(rack_chip=1024), "ring").time_s
    # pipelines whose stages lie side by side reach the other rack too
    assert Group(2, stride=64).link_byte_per_s(one) == 5e8
    assert Group(2, stride=63).link_byte_per_s(one) == 2e9
