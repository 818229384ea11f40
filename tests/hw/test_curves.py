"""Figures: well formed, and each dot where its numbers say."""

import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest
import torch

import hw
from hw.curves import _Axes, density_figure, roofline
from hw.explain import DensityPoint
from hw.units import si


@pytest.mark.parametrize(
    ("value", "text"), [(2.5e12, "2.5 TB/s"), (3e3, "3 kB/s"), (1.0, "1 B/s"), (1e-6, "1 µB/s")]
)
def test_si(value, text):
    assert si(value, "B/s") == text


def test_axes_are_logarithmic():
    axes = _Axes([1, 100], [1e-6, 1e-2])
    x = [axes.at(value, 1e-4)[0] for value in (1, 10, 100)]
    y = [axes.at(1, value)[1] for value in (1e-6, 1e-4, 1e-2)]
    assert x[1] - x[0] == pytest.approx(x[2] - x[1])
    assert y[1] - y[0] == pytest.approx(y[2] - y[1])
    assert x[0] < x[1]
    assert y[0] > y[1]


@pytest.mark.parametrize("machine", ["ipu_bow", "a100", "tpu_v3"])
def test_roofline_has_every_kind_of_product_below_the_roof(machine):
    a = torch.ones(200, 300)
    report = hw.cost(lambda: (a @ a.T) @ a, machine=machine)
    tree = ElementTree.fromstring(roofline(report))
    titles = [e.text or "" for e in tree.iter("{http://www.w3.org/2000/svg}title")]
    roof, dot = titles
    assert si(report.roof_mac_per_s, "MAC/s") in roof
    assert "aten.mm [forward]" in dot
    assert si(2 * 200 * 300 * 200 / report.time_s, "MAC/s") in dot
    is_tiled = machine.startswith("ipu")
    byte = sum(op.exchange_byte if is_tiled else op.off_chip_byte for op in report.ops)
    assert f"{2 * 200 * 300 * 200 / byte:.3g} by byte" in dot
    assert 2 * 200 * 300 * 200 / report.time_s < report.roof_mac_per_s
    assert roofline(replace(report, ops=())) == ""


def test_density_figure_has_a_line_for_each_way():
    points = [DensityPoint(1.0, 3.0, 4.0, 2.0), DensityPoint(0.1, 1.0, 1.5, 2.0)]
    figure = density_figure(points, "a < b")
    svg, _, legend = figure.partition("</svg>")
    tree = ElementTree.fromstring(svg + "</svg>")
    lines = list(tree.iter("{http://www.w3.org/2000/svg}polyline"))
    assert len(lines) == 3
    dense = [tuple(map(float, p.split(","))) for p in lines[2].attrib["points"].split()]
    assert dense[0][1] == dense[1][1]
    assert dense[0][0] > dense[1][0]
    assert re.findall("static|dynamic|dense", legend) == ["static", "dynamic", "dense"]
