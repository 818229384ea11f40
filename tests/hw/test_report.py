"""Text and HTML of a report."""

import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest
import torch

import hw
from hw.report import html, si, table


@pytest.fixture(scope="module")
def report():
    net = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.GELU(), torch.nn.Linear(64, 8))
    with torch.no_grad():
        return hw.cost(net, torch.ones(16, 64), machine="ipu_bow")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.00125, "1.25 ms"),
        (3.0, "3 s"),
        (2.5e-8, "25 ns"),
        (0.0, "0 s"),
        (1e-13, "1e-13 s"),
        (0.9996, "1 s"),
        (-999_600.0, "-1 Ms"),
        (0.9994, "999 ms"),
    ],
)
def test_si(value, text):
    assert si(value, "s") == text


def test_table_holds_the_totals_and_each_kind_of_op(report):
    text = table(report)
    assert text.startswith("Graphcore Bow (Mk2, wafer on wafer), inference\n")
    assert si(report.time_s, "s") in text
    assert f"{report.peak_tile_memory_byte:,.0f} of 638,976 byte per tile, fits" in text
    assert re.search(r"aten\.addmm +forward +2 ", text)
    assert re.search(r"aten\.gelu +forward +1 ", text)
    assert max(map(len, text.splitlines())) < 140


def test_html_is_well_formed_and_self_contained(report):
    tree = ElementTree.fromstring(html(report))
    assert tree.attrib["class"] == "hw-cost"
    rects = tree.iter("{http://www.w3.org/2000/svg}rect")
    titles = ["".join(rect.itertext()) for rect in rects]
    assert any(title.startswith("compute: ") for title in titles)
    assert any(title.startswith("aten.addmm Sequential.0 [forward]") for title in titles)
    outside = re.sub(r'xmlns="[^"]*"', "", html(report))
    assert "http" not in outside


def test_bars_fill_their_width(report):
    tree = ElementTree.fromstring(html(report))
    bars = [
        s
        for s in tree.iter("{http://www.w3.org/2000/svg}svg")
        if "by part" in s.attrib["aria-label"]
    ]
    assert len(bars) == 2
    for bar in bars:
        width = sum(float(r.attrib["width"]) for r in bar.iter("{http://www.w3.org/2000/svg}rect"))
        assert width == pytest.approx(720, abs=2)  # parts under 0.2 units are drawn 0.2 wide


def test_names_are_escaped(report):
    odd = replace(report, ops=(replace(report.ops[0], module="<b>&"), *report.ops[1:]))
    ElementTree.fromstring(html(odd))
    assert "&lt;b&gt;&amp;" in html(odd)


def test_a_long_timeline_stays_small(report):
    long = replace(report, ops=report.ops * 1000, time_s=report.time_s * 1000)
    assert len(html(long)) < 200_000
