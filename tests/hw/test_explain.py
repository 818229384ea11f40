"""Explanations: every term is named, the next best is not better, break-even by hand."""

import re

import numpy as np
import pytest

import hw
from hw.explain import DensityPoint, break_even, density_curve, density_table, explain
from hw.machine import load_machine
from hw.plan.dense import dense_candidates
from hw.single import parse_op
from hw.targets import cost_item
from hw.work import Contraction, SparseContraction

#: Three significant digits of the shares in the text, summed over at most fifteen terms.
SHARE = 0.15 * 5


@pytest.mark.parametrize("name", hw.machine_names())
@pytest.mark.parametrize(
    "op",
    [
        "matmul m=256 k=256 n=64 dtype=fp16",
        "spmm m=256 k=256 n=64 block=16 density=0.2 dtype=fp16",
        "spmm m=256 k=256 n=64 block=16 density=0.2 dtype=fp16 mode=dynamic",
        "softmax m=64 n=64",
    ],
)
def test_terms_add_up_and_the_next_best_is_not_better(name, op):
    machine, item = load_machine(name), parse_op(op)
    cost = cost_item(item, machine)
    text = explain(item, machine)
    assert cost.plan in text
    assert f"binds       {cost.binds}" in text
    shares = [float(share) for share in re.findall(r"(\d+\.\d)%(?= *[\d,]* ?B?$)", text, re.M)]
    terms = shares[-max(len(cost.supersteps), len(cost.parts_s)) :]
    assert sum(terms) == pytest.approx(100, abs=SHARE)
    if cost.runner_up is not None:
        assert cost.runner_up[0] in text
        if item == parse_op("matmul m=256 k=256 n=64 dtype=fp16"):
            assert cost.runner_up[1] >= cost.time_s


def test_runner_up_of_a_dense_product_is_the_second_of_all_candidates():
    machine, item = load_machine("ipu_bow"), Contraction(1, 500, 64, 40, *["fp16"] * 3)
    c, _ = dense_candidates(item, machine, swapped=False)
    inside = c.temporary_byte <= c.memory_bound()
    cycles = np.sort(c.cycles()[inside])
    best = cost_item(item, machine)
    assert best.time_s == pytest.approx(cycles[0] / machine.clock_hz)
    assert best.runner_up is not None
    assert best.runner_up[1] == pytest.approx(cycles[1] / machine.clock_hz)


def point(density: float, static: float, dynamic: float) -> DensityPoint:
    return DensityPoint(density, static, dynamic, 1.0)


def test_break_even_by_hand():
    # static: 4 at 1, 1/4 at 1/16: equal to dense half way between, in logarithms
    points = [point(1, 4, 5), point(1 / 16, 0.25, 2)]
    assert break_even(points, "static") == pytest.approx(0.25)
    assert break_even(points, "dynamic") is None
    assert break_even([point(1, 0.5, 0.9), point(0.1, 0.1, 0.2)], "dynamic") == 1
    text = density_table(points)
    assert "static beats dense below 0.25" in text
    assert "dynamic beats dense at none of these densities" in text


@pytest.mark.parametrize("product", ["spmm", "spmm_t", "sddmm"])
def test_curve_has_the_costs_of_its_points(product):
    machine = load_machine("ipu_bow")
    item = SparseContraction(product, 512, 256, 64, (16, 16), 99, "fp16", "fp16", "fp16")
    dense = {
        "spmm": Contraction(1, 512, 256, 64, *["fp16"] * 3),
        "spmm_t": Contraction(1, 256, 512, 64, *["fp16"] * 3),
        "sddmm": Contraction(1, 512, 64, 256, *["fp16"] * 3),
    }[product]
    (half,) = density_curve(item, machine, [0.5])
    assert half.dense_s == cost_item(dense, machine).time_s
    at_half = SparseContraction(product, 512, 256, 64, (16, 16), 256, "fp16", "fp16", "fp16")
    assert half.static_s == cost_item(at_half, machine).time_s
    assert dense.n_mac == 2 * at_half.n_mac
