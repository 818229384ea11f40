"""The map of the fullest moment adds up, and stays away from machines without tiles."""

import re

import pytest
import torch
from torch import nn

import hw
from hw.memory_map import memory_curve, memory_map
from hw.report import side_by_side

NET, X = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 8)), torch.randn(32, 64)


@pytest.fixture(scope="module")
def report():
    return hw.cost(lambda: NET(X).sum().backward(), machine="ipu_bow", phase="train_step")


def test_owners_on_the_map_add_up_to_the_peak(report):
    drawing = memory_map(report)
    byte = [float(n.replace(",", "")) for n in re.findall(r": ([\d,]+) byte on each", drawing)]
    # each of at most seven owners is rounded to a byte
    assert sum(byte) == pytest.approx(report.peak_tile_memory_byte, abs=7)
    assert "of tiles 0 to 1,471" in drawing
    at_work = re.search(r"temporaries of .*? on each of ([\d,]+) tiles", drawing)
    assert at_work is None or int(at_work.group(1).replace(",", "")) <= 1472


def test_the_curve_answers_for_each_op(report):
    drawing = memory_curve(report)
    assert drawing.count("<title>") == len(report.ops)
    assert f"{report.peak_tile_memory_byte:,.0f} byte" in drawing


def test_a_machine_without_tiles_has_no_map():
    report = hw.cost(NET, X, machine="a100")
    assert memory_map(report) == ""
    assert memory_curve(report).startswith("<svg")


def test_machines_stand_side_by_side_the_quickest_first():
    reports = [hw.cost(NET, X, machine=name) for name in ("tpu_v3", "ipu_bow", "a100")]
    rows = re.findall(r"<tr><td>(.*?)</td>", side_by_side(reports))
    assert rows == [r.title for r in sorted(reports, key=lambda r: r.time_s)]
