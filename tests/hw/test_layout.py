"""Rearrangements over a program, spreads that a layer's products share, objectives: by hand."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import hw
from core.errors import MachineError
from hw.explain import explain_program
from hw.layout import common_splits, lay_out
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


def test_copies_have_places_of_their_own_and_live_to_their_last_use():
    x, w = torch.randn(64, 32), torch.randn(64, 16)
    tall = torch.randn(48, 16)

    def step():
        y, z = x * 2, torch.cat([x, x])[:48] * 2
        return y.t() @ w, z.t() @ tall, y.t() @ (w + 1), z.t() @ (tall + 1)

    program = hw.trace(step)
    laid = lay_out(program, tasks_of(program), BOW, whole=True).program
    copies = {key: s for key, s in laid.storages.items() if key not in program.storages}
    assert sorted(copies) == [-2, -1]
    products = [i for i, op in enumerate(program.ops) if op.name == "aten.mm"]
    assert [(copies[k].first_op, copies[k].last_op) for k in (-1, -2)] == [
        (products[0], products[2]), (products[1], products[3])]  # fmt: skip
    assert [copies[k].byte for k in (-1, -2)] == [64 * 32 * 4, 48 * 32 * 4]
    assert all("in another order" in s.name for s in copies.values())


def test_what_rearranging_takes_is_what_its_moves_cost():
    x, w = torch.randn(64, 32), torch.randn(64, 16)

    def step():
        y = x * 2
        return y.t() @ w, y.t() @ (w + 1)

    program = hw.trace(step)
    layout = lay_out(program, tasks_of(program), BOW, whole=True)
    once = cost_item(Move(64 * 32 * 4, "reorder"), BOW).time_s
    assert layout.apart_s == pytest.approx(2 * once)
    assert layout.planned_s == pytest.approx(once)
    assert layout.own_s == layout.shared_s == 0


def test_common_splits_stem_from_each_product_and_agree():
    tokens, inner, outer = 96, 64, 160
    forward = Contraction(1, tokens, inner, outer, "fp32", "fp32", "fp32")
    inward = Contraction(1, tokens, outer, inner, "fp32", "fp32", "fp32")
    for grad in (Contraction(1, outer, tokens, inner, "fp32", "fp32", "fp32"),
                 Contraction(1, inner, tokens, outer, "fp32", "fp32", "fp32")):  # fmt: skip
        splits = common_splits((forward, inward, grad), BOW, 3)
        assert len(splits) == len(set(splits)) > 3
        for (m, n, k), back, weight in splits:
            assert back == (m, k, n)
            assert weight == ((n, k, m) if grad.m == outer else (k, n, m))
            assert m <= tokens
            assert n <= outer
            assert k <= inner
