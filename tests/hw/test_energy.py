"""Ranges of energies: read, carried through by hand, wide enough for what is published all-in."""

from dataclasses import replace

import pytest
import torch

import hw
from hw.energy import ENERGY_PARTS, energy_interval, spans
from hw.explain import explain
from hw.item import ItemCost
from hw.machine import Machine, load_machine, machine_names
from hw.targets import cost_item
from hw.work import Contraction, Move


@pytest.mark.parametrize("name", machine_names())
def test_every_energy_of_a_shipped_machine_has_a_range_around_it(name):
    machine = load_machine(name)
    fields = ("mac_pj", "vector_pj")
    wanted = {f"{field}.{f}" for field in fields for f in machine.mac_per_cycle}
    wanted |= {"local_pj_per_byte", "exchange_pj_per_byte", "off_chip_pj_per_byte", "static_w"}
    assert set(machine.ranges) == wanted
    for label, (low, high) in machine.ranges.items():
        field, _, f = label.partition(".")
        value = getattr(machine, field)[f] if f else getattr(machine, field)
        assert low <= value <= high
        assert "range: " in machine.sources[label].text


def test_the_interval_by_hand():
    machine = replace(
        load_machine("ipu_bow"),
        mac_pj={"fp16": 1.0}, vector_pj={"fp16": 1.0}, local_pj_per_byte=2.0, static_w=10.0,
        ranges={"mac_pj.fp16": (0.5, 3.0), "vector_pj.fp16": (0.9, 1.1),
                "local_pj_per_byte": (1.0, 2.0), "static_w": (10.0, 20.0)},
    )  # fmt: skip
    assert spans(machine)["compute"] == (0.5, 3.0)
    assert spans(machine)["off_chip"] == (1.0, 1.0)
    energy = {"compute": 2.0, "local_memory": 4.0, "static": 8.0, "off_chip": 1.0}
    assert energy_interval(energy, machine) == (1.0 + 2.0 + 8.0 + 1.0, 6.0 + 4.0 + 16.0 + 1.0)


def power_w(machine: Machine, cost: ItemCost) -> tuple[float, float]:
    energy = {**cost.energy_j, "static": machine.static_w * cost.time_s}
    low, high = energy_interval(energy, machine)
    return low / cost.time_s, high / cost.time_s


@pytest.mark.parametrize("name", ["ipu_c600", "ipu_gc200", "ipu_bow", "a100", "tpu_v3"])
def test_rated_power_lies_in_the_interval_of_a_large_product(name):
    machine = load_machine(name)
    f = "bf16" if name == "tpu_v3" else "fp16"
    side = 2048 if machine.kind == "tile" else 8192
    cost = cost_item(Contraction(1, side, side, side, f, f, f), machine)
    low, high = power_w(machine, cost)
    # a product leaves part of the chip idle: the rating is the upper end of what it may draw
    assert low < machine.board_w
    assert high > 0.6 * machine.board_w


def test_the_all_in_figure_of_an_ipu_lies_in_the_interval():
    """1.3 pJ per fp16 multiply-add, Knowles, Hot Chips 33: operands, control and idle included."""
    c600 = load_machine("ipu_c600")
    mac_per_s = c600.mac_per_s("fp16")
    byte = (c600.load_interleaved_byte_per_cycle + c600.store_byte_per_cycle) / 64  # type: ignore[attr-defined]
    one = {"compute": c600.mac_pj["fp16"], "local_memory": byte * c600.local_pj_per_byte,
           "static": c600.static_w / mac_per_s * 1e12}  # fmt: skip
    low, high = energy_interval(one, c600)
    assert low < 1.3 < high
    assert sum(one.values()) == pytest.approx(1.3, rel=0.03)


def test_reports_and_records_carry_it():
    model = torch.nn.Linear(64, 64)
    report = hw.cost(model, torch.randn(16, 64), machine="ipu_bow")
    low, high = report.energy_interval_j
    assert 0 < low < report.energy_j < high
    assert report.entry("dense")["energy_interval_j"] == [low, high]
    assert "by the range of its figures" in str(report)
    assert set(report.energy_by) == set(ENERGY_PARTS)
    text = explain(Move(1 << 20, "copy"), load_machine("a100"))
    assert " to " in next(line for line in text.splitlines() if line.startswith("  energy"))
