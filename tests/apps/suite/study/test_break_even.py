"""The break-even map, against speeds written by hand and against the machine model itself."""

import math

import pytest

import hw
from apps.suite.study.break_even import BreakEven
from apps.suite.study.map_rows import MapRows
from apps.suite.study.spec import BreakEvenConfig
from hw.single import parse_op
from hw.targets import cost_item

CONFIG = BreakEvenConfig(width=(64,), block=(4, 16), density=(0.5, 0.25, 0.125))


def made(speeds):
    """Give a map whose speeds by (block, density) are those."""
    found = BreakEven(CONFIG, ["ipu_gc200"])
    found.speed = {("ipu_gc200", b, 64, d): speed for (b, d), speed in speeds.items()}
    return found


def test_the_break_even_density_is_where_a_power_law_crosses_one():
    # speed = 0.36 / density at blocks of 16: one at density 0.36, between 0.25 and 0.5
    power = {(16, d): 0.36 / d for d in CONFIG.density}
    found = made({**power, **{(4, d): 0.9 for d in CONFIG.density}})
    assert found.densest("ipu_gc200", 16, 64) == pytest.approx(0.36, rel=1e-12)
    assert found.densest("ipu_gc200", 4, 64) is None
    always = made({(16, d): 2.0 for d in CONFIG.density})
    assert always.densest("ipu_gc200", 16, 64) == 0.5


def test_the_smallest_block_is_one_that_is_nearly_as_fast_as_any():
    found = made({(4, 0.5): 0.8, (16, 0.5): 0.9, (4, 0.25): 1.9, (16, 0.25): 2.0, (4, 0.125): 2.0,
                  (16, 0.125): 4.0})  # fmt: skip
    smallest = [found.smallest_block("ipu_gc200", 64, d) for d in CONFIG.density]
    assert smallest == [None, 4, 16]
    (answer,) = MapRows(found, {"ipu_gc200": "GC200"}).answers()
    assert answer == (
        "GC200: sparse is faster at 2 of 3 widths and densities; "
        "in 1 of those a block smaller than 16 by 16 is as fast."
    )


def test_speeds_are_ratios_of_modelled_times():
    config = BreakEvenConfig(width=(8, 256), block=(16,), density=(0.0625,), n_row=32)
    found = BreakEven(config, ["ipu_gc200", "tpu_v3"])
    assert set(found.speed) == {(m, 16, 256, 0.0625) for m in ("ipu_gc200", "tpu_v3")}
    machine = hw.load_machine("ipu_gc200")
    dense = cost_item(parse_op("matmul m=256 k=256 n=32 dtype=fp32"), machine).time_s
    text = "spmm m=256 k=256 n=32 dtype=fp32 block=16 density=0.0625"
    sparse = cost_item(parse_op(text), machine).time_s
    assert math.isclose(found.speed["ipu_gc200", 16, 256, 0.0625], dense / sparse)
    rows = MapRows(found, {}).densest_rows("ipu_gc200")
    assert [row.label for row in rows] == ["8", "256"]
    assert rows[0].cells[0].text == "\N{EN DASH}"  # the block is wider than the layer
