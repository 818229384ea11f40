"""Work of any size on any machine: a finite time above the ideal one, and never much less for more.

A planner searches a grid of splits, so that a larger item may find a luckier one: by a few percent
for dense work, by more for sparse work, whose static plan is ranked as the vendor's compiler ranks.
"""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw.item import joined
from hw.machine import load_machine, machine_names
from hw.occupancy import operand_byte
from hw.targets import cost_item, expanded
from hw.work import (
    Attention,
    Contraction,
    Fourier,
    Fused,
    Gather,
    Move,
    Pointwise,
    Reduction,
    Scatter,
    Softmax,
    SparseContraction,
)

#: By how much a doubled item may be quicker: the largest seen in 4,000 draws, and half again.
LUCK = {"dense": 0.01, "rows": 0.003, "sparse": 0.36}
#: The same for the kinds of `WORKS`; rows can be added into twice as many on more tiles.
LUCK_OF = {"Scatter": 0.16, "Contraction": 0.015, "Fourier": 0.025, "SparseContraction": 0.29}
#: By how much more tiles may take longer: one luckier split of k, bands of a sparse matrix.
LUCK_OF_TILES = {"Contraction": 0.23, "Attention": 0.23, "Fourier": 0.23, "SparseContraction": 0.36}
SIZES = st.sampled_from([1, 2, 3, 7, 16, 17, 31, 64, 97, 127, 256, 509, 1021, 1024, 4096, 8191])
MACHINES = st.sampled_from(machine_names()).map(load_machine)
BOW = load_machine("ipu_bow")
FORMATS = st.sampled_from(["fp16", "fp32", "bf16", "int8", "fp8_e4m3"])


HALF = st.sampled_from(["fp16", "fp32"])
KEYS = st.sampled_from([1, 3, 17, 64, 256, 1021])
FEW = st.sampled_from([1, 4, 32])


def _sparse(product, m, k, n, block, density, mode):
    n_block = max(1, round(density * -(-m // block) * -(-k // block)))
    f = "fp16"
    return SparseContraction(product, m, k, n, (block, block), n_block, f, f, f, mode)


POINTWISE = st.builds(
    lambda n, kind, f, n_input, flop: Pointwise(n, kind, f, f, n_input, flop),
    st.builds(lambda a, b: a * b, SIZES, SIZES),
    *(st.sampled_from(["arithmetic", "divide", "transcendental"]), FORMATS),
    *(st.integers(1, 3), st.sampled_from([1, 2, 5])),
)
#: An item of each kind, and the sizes of it that may grow.
WORKS = {
    "pointwise": (POINTWISE, ["n_element"]),
    "chain": (
        POINTWISE.map(lambda one: Fused((one, replace(one, n_input=0, kind="divide")))),
        ["steps"],
    ),
    "reduction": (
        st.builds(lambda a, b, f: Reduction(a, b, f, f), SIZES, SIZES, FORMATS),
        ["n_out", "n_reduced"],
    ),
    "rows": (
        st.builds(Softmax, SIZES, SIZES, HALF, st.sampled_from(["softmax", "layer_norm"])),
        ["n_row", "n_col"],
    ),
    "gather": (st.builds(Gather, SIZES, SIZES, SIZES, FORMATS), ["n_row", "row_element"]),
    "scatter": (
        st.builds(Scatter, SIZES, SIZES, SIZES, FORMATS),
        ["n_row", "row_element", "n_target"],
    ),
    "fourier": (st.builds(Fourier, SIZES, SIZES, HALF), ["batch", "length"]),
    "move": (
        st.builds(Move, SIZES, st.sampled_from(["copy", "rearrange", "reorder", "fill"])),
        ["n_byte"],
    ),
    "attention": (
        st.builds(Attention, FEW, KEYS, KEYS, KEYS, KEYS, HALF, st.booleans()),
        ["batch", "n_query", "n_key", "d"],
    ),
    "convolution": (
        st.builds(
            lambda batch, m, k, n, f, window: Contraction(batch, m, k, n, f, f, f, batch, window),
            *(FEW, KEYS, KEYS, SIZES, HALF, st.sampled_from([1.0, 2.5])),
        ),
        ["m", "k", "n"],
    ),
    "sparse": (
        st.builds(
            *(_sparse, st.sampled_from(["spmm", "spmm_t", "sddmm"]), SIZES, SIZES, SIZES),
            *(st.sampled_from([1, 4, 16]), st.sampled_from([0.001, 0.1, 1.0])),
            st.sampled_from(["static", "dynamic"]),
        ),
        ["n"],
    ),
}


def doubled(item, side):
    if side == "steps":
        return Fused(tuple(replace(s, n_element=2 * s.n_element) for s in item.steps))
    return replace(item, **{side: 2 * getattr(item, side)})


def whole(item, machine):
    return joined([cost_item(part, machine) for part in expanded((item,), machine)])


def luck(table, item):
    return table.get(type(item).__name__, 0.003)


@pytest.mark.parametrize("kind", WORKS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_bytes_conserve_and_more_work_takes_longer(kind, data):
    """What is sent is received, phase by phase; no operand is read for nothing."""
    works, sides = WORKS[kind]
    item, machine = data.draw(works), data.draw(MACHINES)
    cost = whole(item, machine)
    assert 0 <= cost.time_s < math.inf
    assert all(0 <= joule < math.inf for joule in cost.energy_j.values())
    assert math.isclose(sum(cost.parts_s.values()), cost.time_s, rel_tol=1e-9)
    for step in cost.supersteps:
        assert step.cycles >= 0
        assert math.isclose(step.sent_byte, step.received_byte, rel_tol=1e-9)
        assert step.sent_byte == 0 or step.kind == "exchange"
    if machine.kind == "tile":
        sent = sum(step.sent_byte for step in cost.supersteps)
        assert math.isclose(sent, cost.exchange_byte, rel_tol=1e-9, abs_tol=1e-6)
        cycles = sum(step.cycles for step in cost.supersteps)
        assert math.isclose(cycles / machine.clock_hz, cost.time_s, rel_tol=1e-9)
        assert max(step.n_tile for step in cost.supersteps) <= machine.n_tile
    elif isinstance(item, Contraction):
        assert cost.off_chip_byte >= operand_byte(item) * (1 - 1e-9)
    joule = cost.exchange_byte * machine.exchange_pj_per_byte * 1e-12
    assert math.isclose(cost.energy_j["exchange"], joule, rel_tol=1e-9, abs_tol=1e-18)
    larger = whole(doubled(item, data.draw(st.sampled_from(sides))), machine)
    if cost.fits and larger.fits:  # else the plan of the smallest temporaries, not the quickest
        assert larger.time_s >= cost.time_s / (1 + luck(LUCK_OF, item))


@pytest.mark.parametrize("kind", WORKS)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_more_tiles_are_no_slower_whatever_the_work(kind, data):
    item = data.draw(WORKS[kind][0])
    few, many = sorted(data.draw(st.lists(st.sampled_from([2, 16, 64, 256, 1472]), min_size=2,
                                          max_size=2)))  # fmt: skip
    slow, quick = (whole(item, replace(BOW, n_tile=n)) for n in (few, many))
    assert quick.n_tile_used <= many
    if slow.fits == quick.fits:
        assert quick.time_s <= slow.time_s * (1 + luck(LUCK_OF_TILES, item))


def grows(item, larger, machine, kind):
    one, two = cost_item(item, machine), cost_item(larger, machine)
    assert 0 < one.time_s < math.inf
    assert all(joule >= 0 for joule in one.energy_j.values())
    assert math.isclose(sum(one.parts_s.values()), one.time_s, rel_tol=1e-9)
    if one.fits == two.fits:
        assert two.time_s >= one.time_s / (1 + LUCK[kind])
    return one


@settings(max_examples=60, deadline=None)
@given(machine=MACHINES, m=SIZES, k=SIZES, n=SIZES, batch=st.sampled_from([1, 4, 32]), f=FORMATS,
       side=st.sampled_from(["m", "k", "n"]))  # fmt: skip
def test_dense_products(machine, m, k, n, batch, f, side):
    item = Contraction(batch, m, k, n, f, f, f)
    cost = grows(item, replace(item, **{side: 2 * getattr(item, side)}), machine, "dense")
    assert cost.time_s >= item.n_mac / machine.mac_per_s(f) * (1 - 1e-9)


@settings(max_examples=40, deadline=None)
@given(machine=MACHINES, m=SIZES, k=SIZES, n=SIZES, block=st.sampled_from([1, 4, 5, 16, 32]),
       density=st.sampled_from([0.0, 1e-3, 0.1, 1.0]), mode=st.sampled_from(["static", "dynamic"]),
       product=st.sampled_from(["spmm", "spmm_t", "sddmm"]))  # fmt: skip
def test_sparse_products(machine, m, k, n, block, density, mode, product):
    n_block = max(1, round(density * -(-m // block) * -(-k // block)))
    f = "fp16"
    item = SparseContraction(product, m, k, n, (block, block), n_block, f, f, f, mode)
    grows(item, replace(item, n=2 * n), machine, "sparse")


@settings(max_examples=25, deadline=None)
@given(m=SIZES, k=SIZES, n=SIZES)
def test_more_tiles_take_no_longer(m, k, n):
    f = ("fp16",) * 3
    bow = load_machine("ipu_bow")

    def spread(n_tile):
        cost = cost_item(Contraction(1, m, k, n, *f), replace(bow, n_tile=n_tile))
        return cost.n_tile_used, cost.time_s

    (few, slow), (many, quick) = spread(16), spread(1472)
    assert few <= 16
    assert many <= 1472
    # neighbours in the grid of splits, see tests/hw/plan/test_dense.py
    assert quick <= 1.23 * slow
