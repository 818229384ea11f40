"""Rearrangements over a program, spreads that a layer's products share, objectives: by hand."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import hw
from core.errors import MachineError
from hw.explain import explain_program
from hw.layout import lay_out
from hw.machine import load_machine, planned_for
from hw.rules import tasks_of
from hw.targets import cost_item
from hw.work import Contraction, Move

BOW = load_machine("ipu_bow")


def moves_of(program, *, whole, machine=BOW):
    layout = lay_out(program, tasks_of(program), machine, whole=whole)
    return [
        (task.op.name, item.n_byte)
        for task in layout.tasks
        for item in task.items
        if isinstance(item, Move) and item.kind == "reorder"
    ]


def test_a_copy_in_another_order_serves_two_products():
    x, w = torch.randn(64, 32), torch.randn(64, 16)

    def step():
        y = x * 2  # an activation
        return y.t() @ w, y.t() @ (w + 1)

    program = hw.trace(step)
    byte = 64 * 32 * 4
    assert moves_of(program, whole=False) == [("aten.mm", byte)] * 2
    assert moves_of(program, whole=True) == [("aten.mm", byte)]
    # kept while it serves: the fullest moment holds it
    laid = lay_out(program, tasks_of(program), BOW, whole=True).program
    assert sum(s.byte for s in laid.storages.values()) == byte + sum(
        s.byte for s in program.storages.values()
    )
    by_memory = planned_for(BOW, "memory")
    assert moves_of(program, whole=True, machine=by_memory) == [("aten.mm", byte)] * 2


def test_a_copy_is_stale_once_its_entries_are_written():
    x, w = torch.randn(64, 32), torch.randn(64, 16)

    def step():
        y = x * 2
        first = y.t() @ w
        y.add_(1)
        return first, y.t() @ w

    assert len(moves_of(hw.trace(step), whole=True)) == 2


def test_parameters_and_other_machines_have_nothing_to_rearrange():
    layer, x = nn.Linear(32, 16), torch.randn(64, 32)
    assert moves_of(hw.trace(layer, x), whole=False) == []
    program = hw.trace(lambda: (x * 2).t() @ x)
    assert lay_out(program, tasks_of(program), load_machine("a100"), whole=True).apart_s == 0


def test_a_weight_gradient_brings_its_smaller_operand_in_order():
    layer, x = nn.Linear(32, 256, bias=False), torch.randn(64, 32)
    program = hw.trace(lambda: F.relu(layer(x * 2)).sum().backward())
    gradient, activation = 64 * 256 * 4, 64 * 32 * 4
    assert moves_of(program, whole=False) == [("aten.mm", gradient)]
    assert moves_of(program, whole=True) == [("aten.mm", activation)]


def test_products_of_a_layer_share_a_spread_or_send_the_weights():
    first, second = nn.Linear(256, 512, bias=False), nn.Linear(512, 256, bias=False)
    x = torch.randn(128, 256)
    program = hw.trace(lambda: second(F.relu(first(x))).sum().backward())
    layout = lay_out(program, tasks_of(program), BOW, whole=True)
    assert 0 < layout.shared_s <= layout.own_s
    products = [
        item
        for task in layout.tasks
        for item in task.items
        if isinstance(item, Contraction) and item.split is not None
    ]
    # the second layer alone has all three; the first one's input wants no gradient
    assert len(products) == 3
    forward = next(i for i in products if (i.m, i.k) == (128, 512))
    inward = next(i for i in products if (i.m, i.k) == (128, 256))
    gradient = next(i for i in products if i.k == 128)
    token, outer, inner = forward.split
    assert inward.split == (token, inner, outer)
    assert gradient.split in ((outer, inner, token), (inner, outer, token))
    assert token * outer * inner <= BOW.n_tile
    time_s = sum(cost_item(item, BOW).time_s for item in products)
    assert layout.shared_s == pytest.approx(time_s)


def test_the_whole_program_is_never_slower_and_says_what_it_gained():
    encoder = nn.TransformerEncoderLayer(64, 4, 128, 0.0, batch_first=True)
    x = torch.randn(8, 32, 64)
    program = hw.trace(lambda: encoder(x).sum().backward())
    apart, planned = (hw.cost_program(program, BOW, whole=whole) for whole in (False, True))
    assert planned.time_s < apart.time_s
    assert planned.rearranged_s[1] < planned.rearranged_s[0]
    gain = planned.rearranged_s[0] - planned.rearranged_s[1]
    assert apart.time_s - planned.time_s == pytest.approx(gain, rel=1e-6)
    assert "planned over the whole program" in str(planned)
    assert "next best" in explain_program(planned)


@pytest.mark.parametrize("machine", ["ipu_bow", "a100", "tpu_v3"])
def test_each_objective_is_best_at_its_own(machine):
    item = Contraction(1, 2048, 2048, 512, "fp16", "fp16", "fp16")
    loaded = load_machine(machine)
    by = {o: cost_item(item, planned_for(loaded, o)) for o in ("time", "energy", "memory")}
    watt = loaded.static_w

    def joule(cost):
        return sum(cost.energy_j.values()) + watt * cost.time_s

    assert by["time"].time_s == min(cost.time_s for cost in by.values())
    assert joule(by["energy"]) == min(joule(cost) for cost in by.values())
    assert by["memory"].temporary_byte == min(cost.temporary_byte for cost in by.values())


def test_unknown_objective():
    with pytest.raises(MachineError, match="must be time, energy or memory, got 'beauty'"):
        hw.cost_program(hw.trace(torch.add, torch.ones(2), 1), BOW, objective="beauty")
