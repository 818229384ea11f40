"""Text and figures of a report made by hand: every number stands where it belongs."""

import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from hw.cost import CostReport
from hw.memory_map import memory_curve, memory_map
from hw.op_cost import OpCost
from hw.overlap import Transfer
from hw.report import html, memory_sentence, page, side_by_side, table
from hw.spill import Streaming
from hw.targets import Superstep

SVG = "{http://www.w3.org/2000/svg}"
HZ = 1e9


def op(name: str, parts_s: dict[str, float], memory: float = 100.0, **more) -> OpCost:
    energy = dict.fromkeys(("compute", "local_memory", "exchange", "off_chip"), 0.5)
    steps = tuple(
        Superstep("exchange" if part == "exchange" else "compute", s * HZ, f"{part} of {name}",
                  part, n_tile=3)  # type: ignore[arg-type]
        for part, s in parts_s.items()
    )  # fmt: skip
    fields = {
        "module": "net", "phase": "forward", "n_mac": 6, "exchange_byte": 2.0, "off_chip_byte": 0.0,
        "plan": "a plan", "binds": max(parts_s, key=lambda part: parts_s[part]), "i_op": 0,
        "supersteps": steps,
    }  # fmt: skip
    return OpCost(name=name, time_s=sum(parts_s.values()), parts_s=parts_s, energy_j=energy,
                  memory_byte=memory, **{**fields, **more})  # fmt: skip


def report(ops: tuple[OpCost, ...] | None = None, **more) -> CostReport:
    if ops is None:
        ops = (op("one", {"compute": 0.002, "exchange": 0.001}), op("two", {"move": 0.001}, 160.0))
    parts: dict[str, float] = {}
    for one in ops:
        for part, s in one.parts_s.items():
            parts[part] = parts.get(part, 0.0) + s
    fields = {
        "machine": "small", "title": "A small one", "phase": "train_step",
        "time_s": sum(parts.values()), "time_interval_s": (0.003, 0.006), "parts_s": parts,
        "energy_j": 8.0, "energy_by": {"compute": 2.0, "static": 6.0},
        "energy_interval_j": (4.0, 20.0), "peak_tile_memory_byte": max(o.memory_byte for o in ops),
        "memory_byte": 200.0, "tenants": (("weight", 90.0), ("code and exchange tables", 40.0),
                                          ("temporaries of two", 20.0)),
        "utilisation": 0.25, "clock_hz": HZ, "roof_mac_per_s": 1e6, "roof_byte_per_s": 1e5,
        "ops": ops, "n_unit": 4, "code_byte": 40.0,
    }  # fmt: skip
    return CostReport(**{**fields, **more})  # type: ignore[arg-type]


def rects(drawing: str) -> list[tuple[float, float, float, float, str]]:
    """Return x, y, width, height and title of each box."""
    tree = ElementTree.fromstring(f"<div>{drawing}</div>")
    return [
        (*(float(r.attrib[key]) for key in ("x", "y", "width", "height")), "".join(r.itertext()))
        for r in tree.iter(f"{SVG}rect")
    ]


def figure(drawing: str, label: str) -> str:
    """Return one figure of a page."""
    found = re.search(rf'<svg [^>]*aria-label="{label}".*?</svg>', drawing, re.DOTALL)
    assert found is not None, label
    return found.group()


def test_the_table_line_by_line():
    lines = table(report()).splitlines()
    assert lines[:5] == [
        "A small one, train_step",
        "  time         4 ms  (90 % interval 3 ms to 6 ms): compute 50%, exchange 25%, move 25%",
        "  energy       8 J  (4 J to 20 J by the range of its figures): static 75%, compute 25%",
        "  peak memory  160 of 200 byte per tile, fits",
        "  utilisation  25.00% of peak, 12 multiply-adds in 2 ops",
    ]
    assert lines[5] == ""
    assert lines[7].split() == ["one", "forward", "1", "3", "ms", "75.0%", "2", "J", "compute"]
    assert lines[8].split() == ["two", "forward", "1", "1", "ms", "25.0%", "2", "J", "move"]
    assert len(lines) == 9


def test_the_table_tells_what_planning_gained_and_what_was_never_measured():
    text = table(report(n_fused=7, rearranged_s=(0.004, 0.001), layers_s=(0.005, 0.002),
                        outside=0.5))  # fmt: skip
    assert "in 2 ops, 7 more fused into them" in text
    assert "rearranging  1 ms planned over the whole program, 4 ms op by op" in text
    assert "layers       2 ms with forward products and gradients spread together, 5 ms" in text
    assert "calibration  50% of the time lies outside what was measured" in text
    plain = table(report())
    assert not re.search("rearranging|layers|calibration|fused|streaming", plain)


def test_the_table_has_twelve_kinds_of_op_and_the_rest_in_a_line():
    ops = tuple(op(f"op{i}", {"compute": 0.001 * (20 - i)}) for i in range(15))
    lines = table(report(ops)).splitlines()
    assert [line.split()[0] for line in lines[7:19]] == [f"op{i}" for i in range(12)]
    # the three last take 8, 7 and 6 ms
    assert lines[19] == "  and 3 more kinds of op, 21 ms"
    assert "more kinds" not in table(report(ops[:12]))


def test_ops_of_one_kind_are_added_up_and_long_names_cut():
    twice = (
        op("a" * 40, {"compute": 0.001}),
        op("a" * 40, {"move": 0.003}),
        op("b", {"sync": 1e-3}),
    )
    lines = table(report(twice)).splitlines()
    assert lines[7].startswith("  " + "a" * 32 + "… ")
    assert lines[7].split()[1:] == ["forward", "2", "4", "ms", "80.0%", "4", "J", "move"]
    apart = (twice[0], replace(twice[1], phase="backward"))
    assert len(table(report(apart)).splitlines()) == 9


def test_bars_are_divided_by_share():
    drawing = html(report())
    boxes = rects(figure(drawing, "time by part"))
    assert [box[:4] for box in boxes] == [(0, 0, 360, 16), (360, 0, 180, 16), (540, 0, 180, 16)]
    assert [box[4] for box in boxes] == [
        "compute: 2 ms (50.0%)", "exchange: 1 ms (25.0%)", "move: 1 ms (25.0%)"]  # fmt: skip
    boxes = rects(figure(drawing, "energy by part"))
    assert [(box[0], box[2]) for box in boxes] == [(0, 180), (180, 540)]


def test_the_timeline_has_each_phase_in_its_place():
    boxes = rects(figure(html(report()), "timeline"))
    assert [box[:4] for box in boxes] == [
        (0, 16, 720, 26), (0, 16, 360, 26), (360, 16, 180, 26), (540, 16, 180, 26)]  # fmt: skip
    assert boxes[1][4] == "one net [forward] a plan: compute of one, 2 ms"
    # boxes below one in 600 of the whole are left out
    short = (op("one", {"compute": 1.0}), op("two", {"compute": 0.001}))
    assert len(rects(figure(html(report(short)), "timeline"))) == 2
    # a long program shows parts, not phases
    many = tuple(op("one", {"compute": 1.0, "exchange": 1.0}) for _ in range(151))
    (_, first, *_) = rects(figure(html(report(many)), "timeline"))
    assert first[4].endswith(": compute, 1 s")
    few = rects(figure(html(report(many[:150])), "timeline"))
    assert few[1][4].endswith(": compute of one, 1 s")


def streaming(**more) -> Streaming:
    fields = {
        "in_byte": 3e6, "out_byte": 1e6, "transfer_s": 0.003, "hidden_s": 0.001, "n_tile_aside": 2,
        "buffer_byte": 5e5, "outside_byte": 2.5e9, "capacity_byte": 1e9,
        "owners": (("state", 7e8), ("weight", 3e8)),
        "transfers": (Transfer("weight", True, 1, 3e6, 0.001, 0.002),
                      Transfer("state", False, 1, 1e6, 0.003, 0.001)),
    }  # fmt: skip
    return Streaming(**{**fields, **more})  # type: ignore[arg-type]


def test_what_travels_lies_below_the_timeline():
    boxes = rects(figure(html(report(streaming=streaming())), "timeline"))
    assert [box[:4] for box in boxes[-2:]] == [(180, 60, 360, 16), (540, 60, 180, 16)]
    assert [box[4] for box in boxes[-2:]] == ["weight in: 3 MB, 2 ms", "state out: 1 MB, 1 ms"]


def test_the_table_says_what_travels_and_what_waits():
    text = table(report(streaming=streaming(capacity_byte=5e9)))
    assert (
        "  streaming    3 MB in and 1 MB out take 3 ms, 1 ms of it behind the work; 2 tiles "
        "(500 kB) are set aside for it\n"
        "  beside       2.5 GB of 5 GB in the memory beside the chip"
    ) in text
    on_chip = table(report(streaming=streaming(n_tile_aside=0)))
    assert "; 500 kB of the memory are set aside for it" in on_chip
    none = table(report(streaming=streaming(n_tile_aside=0, buffer_byte=0.0)))
    assert "; nothing is set aside for it" in none


def test_what_does_not_fit_is_said_in_a_sentence():
    full = report(peak_tile_memory_byte=1240.0, ops=(op("a", {"move": 1.0}),
                                                     op("b", {"move": 1.0}, 1240.0)))  # fmt: skip
    # of 1,200 byte beside the code 160 go on each chip
    sentence = memory_sentence(full)
    assert sentence == (
        "memory exceeded on small: op 1 b (net) needs 1,240 byte per tile, the machine has 200; "
        "largest owners: weight 90, code and exchange tables 40, temporaries of two 20. "
        "Use a smaller batch, a narrower format, spill, or at least 8 chips"
    )
    assert " ".join(table(full).split()).count(sentence) == 1
    assert sentence in html(full)
    spilled = replace(full, streaming=streaming())
    assert "narrower format, or at least 8 chips" in memory_sentence(spilled)
    outside = report(streaming=streaming())
    assert not outside.fits
    assert memory_sentence(outside) == (
        "memory exceeded beside small: 2,500,000,000 byte have to wait there, and it holds "
        "1,000,000,000 for each chip; largest owners: state 700,000,000, weight 300,000,000. "
        "Use a smaller batch, a narrower format, or at least 3 chips"
    )
    assert report(streaming=streaming(outside_byte=1e9)).fits


def test_the_memory_map_piles_up_the_owners_below_the_limit():
    drawing = memory_map(report())
    boxes = rects(drawing)
    assert [box[4].split(":")[0] for box in boxes] == [
        "weight", "code and exchange tables", "all others", "temporaries of two"]  # fmt: skip
    # 200 byte are 130 high, the pile is 160 of them; temporaries lie on three of four tiles
    heights = [130 * byte / 200 for byte in (90, 40, 10, 20)]
    assert [box[3] for box in boxes] == pytest.approx(heights, abs=0.01)
    assert [box[2] for box in boxes] == [720, 720, 720, 540]
    top = 18 + 130
    for (_, y, _, height, _), below in zip(boxes, heights, strict=True):
        assert y == pytest.approx(top - below, abs=0.01)
        top -= height
    assert "memory of tiles 0 to 3 during two (forward), the fullest op; red: the limit of 200" in (
        drawing
    )
    assert 'y1="18.0"' in drawing
    # of tiles set aside, which wait with the others, none holds temporaries
    busy = report().ops[1]
    waits = Superstep("exchange", 5.0, "waiting for tensors", "off_chip", n_tile=9)
    waiting = report((report().ops[0], replace(busy, supersteps=(waits, *busy.supersteps))))
    assert [box[2] for box in rects(memory_map(waiting))] == [720, 720, 720, 540]
    # what is over the limit is drawn above its line
    over = memory_map(report(peak_tile_memory_byte=400.0))
    assert f'y1="{18 + 130 - 65:.1f}"' in over


def test_the_curve_is_a_step_for_each_op():
    drawing = memory_curve(report())
    (points,) = re.findall(r'polygon points="([^"]*)"', drawing)
    # 200 byte are 80 high: 100 byte over the first half, 160 over the second
    assert points == "0,98 0.0,58.0 0.0,58.0 360.0,58.0 360.0,34.0 720,34.0 720,98"
    assert 'y1="18.0"' in drawing
    assert "peak 160 byte, 80.0% of the limit" in drawing
    assert [box[:4] for box in rects(drawing)] == [(0, 18, 360, 80), (360, 18, 360, 80)]
    # far below the limit the curve is drawn to its own peak, and without a line
    small = memory_curve(report(memory_byte=1000.0))
    assert "<line" not in small
    assert f"{98 - 80 / 1.1:.1f}" in small
    assert "<line" in memory_curve(report(memory_byte=640.0))
    assert memory_curve(replace(report(), ops=())) == ""


def test_a_long_curve_answers_at_240_places():
    many = tuple(op("one", {"compute": 1.0}) for _ in range(481))
    assert len(rects(memory_curve(report(many)))) == 161
    assert len(rects(memory_curve(report(many[:240])))) == 240


def test_machines_side_by_side():
    slow = report(time_s=0.008, title="Slow", energy_j=2.0, utilisation=0.1)
    full = report(title="Full", peak_tile_memory_byte=300.0)
    rows = re.findall(r"<tr>(<td>.*?)</tr>", side_by_side([slow, full]))
    assert len(rows) == 2
    assert rows[0].startswith("<td>Full</td><td>4 ms</td><td>3 ms to 6 ms</td>")
    assert "width:5.00em" in rows[0]
    assert "<td>150.0%, does not fit</td><td>25.00%</td>" in rows[0]
    assert "width:10.00em" in rows[1]
    assert "<td>2 J</td><td>4 J to 20 J</td><td>80.0%</td><td>10.00%</td>" in rows[1]
    assert "width:0.00em" in side_by_side([report(time_s=0.0)])


def test_a_page_is_whole():
    text = page(["<p>a</p>", "<p>b</p>"], "a < b")
    assert text.startswith("<!doctype html>")
    assert "<title>a &lt; b</title>" in text
    assert "<p>a</p>\n<p>b</p>" in text
