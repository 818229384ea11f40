"""A `CostReport` for people: a table, a sentence when memory is short, an HTML fragment."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from html import escape
from math import ceil
from textwrap import wrap
from typing import TYPE_CHECKING

from hw.curves import roofline
from hw.memory_map import memory_curve, memory_map
from hw.svg import legend, svg
from hw.units import si

if TYPE_CHECKING:
    from hw.cost import CostReport
    from hw.op_cost import OpCost
    from hw.spill import Streaming

N_ROW = 12
#: A longer timeline is joined down to this many boxes.
N_BOX = 600
_WIDTH, _BAR, _TRACK = 720, 16, 26
_COLOUR = {
    "compute": "#2a6f97",
    "local_memory": "#61a5c2",
    "sync": "#9aa5b1",
    "exchange": "#e07a5f",
    "move": "#b56576",
    "launch": "#8d99ae",
    "off_chip": "#6d597a",
    "host": "#f2cc8f",
    "static": "#ced4da",
}

#: Colours of tensors that come to the chip, and of those that leave it.
_WAY = {True: "off_chip", False: "exchange"}


def memory_sentence(report: CostReport) -> str:
    """Say where the memory is exceeded, by how much, who owns it, and how many chips would do."""
    advice = "Use a smaller batch, a narrower format, "
    beside = report.streaming
    if report.peak_tile_memory_byte <= report.memory_byte and beside is not None:
        owners = ", ".join(f"{name} {byte:,.0f}" for name, byte in beside.owners)
        return (
            f"memory exceeded beside {report.machine}: {beside.outside_byte:,.0f} byte have to "
            f"wait there, and it holds {beside.capacity_byte:,.0f} for each chip; "
            f"largest owners: {owners}. "
            f"{advice}or at least {ceil(beside.outside_byte / beside.capacity_byte)} chips"
        )
    i_peak = max(range(len(report.ops)), key=lambda i: report.ops[i].memory_byte)
    op = report.ops[i_peak]
    owners = ", ".join(f"{name} {byte:,.0f}" for name, byte in report.tenants)
    # code lies on every tile of every chip
    n_chip = ceil((op.memory_byte - report.code_byte) / (report.memory_byte - report.code_byte))
    return (
        f"memory exceeded on {report.machine}: op {i_peak} {op.name}"
        f"{f' ({op.module})' if op.module else ''} needs {op.memory_byte:,.0f} byte"
        f"{' per tile' if _is_tiled(report) else ''}, "
        f"the machine has {report.memory_byte:,.0f}; largest owners: {owners}. "
        f"{advice}{'spill, ' if beside is None else ''}or at least {n_chip} chips"
    )


def table(report: CostReport) -> str:
    """Return the totals and the costliest kinds of op, as text."""
    low, high = report.time_interval_s
    verdict = "fits" if report.fits else "DOES NOT FIT"
    lines = [
        f"{report.title}, {report.phase}",
        f"  time         {si(report.time_s, 's')}  (90 % interval {si(low, 's')} to "
        f"{si(high, 's')}): {_shares(report.parts_s)}",
        f"  energy       {si(report.energy_j, 'J')}  ({_energy_range(report)} by the range of its "
        f"figures): {_shares(report.energy_by)}",
        f"  peak memory  {report.peak_tile_memory_byte:,.0f} of {report.memory_byte:,.0f} byte"
        f"{' per tile' if _is_tiled(report) else ''}, {verdict}",
        *([] if report.fits else _indented(memory_sentence(report))),
        f"  utilisation  {report.utilisation:.2%} of peak, {report.n_mac:,} multiply-adds "
        f"in {len(report.ops):,} ops"
        + (f", {report.n_fused:,} more fused into them" if report.n_fused else ""),
        *_planned(report),
        "",
        f"  {'op':<34}{'phase':<11}{'calls':>6}{'time':>11}{'share':>7}{'energy':>11}  binds",
    ]
    groups = _by_kind(report)
    for (name, phase), ops in groups[:N_ROW]:
        time_s = sum(op.time_s for op in ops)
        energy_j = sum(sum(op.energy_j.values()) for op in ops)
        short = name if len(name) < 34 else name[:32] + "…"
        lines.append(
            f"  {short:<34}{phase:<11}{len(ops):>6}{si(time_s, 's'):>11}"
            f"{time_s / max(report.time_s, 1e-30):>7.1%}{si(energy_j, 'J'):>11}  "
            f"{max(ops, key=lambda op: op.time_s).binds}"
        )
    if len(groups) > N_ROW:
        rest = sum(op.time_s for _, ops in groups[N_ROW:] for op in ops)
        lines.append(f"  and {len(groups) - N_ROW} more kinds of op, {si(rest, 's')}")
    return "\n".join(lines)


def _indented(text: str) -> list[str]:
    """Return a sentence in lines below the figures of the table."""
    return wrap(text, 110, initial_indent=" " * 15, subsequent_indent=" " * 15)


def _planned(report: CostReport) -> list[str]:
    """Say what planning over the whole program gained, and how much of it was never measured."""
    lines = []
    apart_s, planned_s = report.rearranged_s
    own_s, shared_s = report.layers_s
    if apart_s:
        lines.append(
            f"  rearranging  {si(planned_s, 's')} planned over the whole program, "
            f"{si(apart_s, 's')} op by op"
        )
    if own_s:
        lines.append(
            f"  layers       {si(shared_s, 's')} with forward products and gradients spread "
            f"together, {si(own_s, 's')} each by itself"
        )
    if report.streaming is not None:
        travel, waiting = _streaming(report.streaming)
        lines += [f"  streaming    {travel}", f"  beside       {waiting}"]
    if report.outside:
        lines.append(
            f"  calibration  {report.outside:.0%} of the time lies outside what was measured"
        )
    return lines


def _streaming(beside: Streaming) -> tuple[str, str]:
    """Say what travels, how much of it the work hides, and what that takes; and what waits."""
    aside = f"{si(beside.buffer_byte, 'B')} of the memory are"
    if beside.n_tile_aside:
        aside = f"{beside.n_tile_aside} tiles ({si(beside.buffer_byte, 'B')}) are"
    return (
        f"{si(beside.in_byte, 'B')} in and {si(beside.out_byte, 'B')} out take "
        f"{si(beside.transfer_s, 's')}, {si(beside.hidden_s, 's')} of it behind the work; "
        f"{aside if beside.buffer_byte else 'nothing is'} set aside for it",
        f"{si(beside.outside_byte, 'B')} of {si(beside.capacity_byte, 'B')} in the memory beside "
        "the chip",
    )


def html(report: CostReport) -> str:
    """Return a self-contained HTML fragment: bars by part, timeline, memory over the program."""
    low, high = report.time_interval_s
    head = (
        f"<h3>{escape(report.title)}: {escape(report.phase.replace('_', ' '))}</h3>"
        f"<p>{si(report.time_s, 's')} ({si(low, 's')} to {si(high, 's')}), "
        f"{si(report.energy_j, 'J')} ({_energy_range(report)}), "
        f"peak memory {report.peak_tile_memory_byte:,.0f} of "
        f"{report.memory_byte:,.0f} byte{' per tile' if _is_tiled(report) else ''} "
        f"({'fits' if report.fits else '<strong>does not fit</strong>'}), "
        f"{report.utilisation:.2%} of peak rate</p>"
    )
    if report.streaming is not None:
        travel, waiting = _streaming(report.streaming)
        head += f"<p>{escape(f'Tensors stream: {travel}; {waiting}.')}</p>"
    if not report.fits:
        head += f"<p>{escape(memory_sentence(report))}</p>"
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{phase}</td><td>{len(ops)}</td>"
        f"<td>{si(sum(op.time_s for op in ops), 's')}</td>"
        f"<td>{si(sum(sum(op.energy_j.values()) for op in ops), 'J')}</td>"
        f"<td>{escape(max(ops, key=lambda op: op.time_s).binds)}</td></tr>"
        for (name, phase), ops in _by_kind(report)[:N_ROW]
    )
    return (
        f'<div class="hw-cost">{head}'
        f"{_bar('time by part', report.parts_s, 's')}"
        f"{_bar('energy by part', report.energy_by, 'J')}"
        f"{_timeline(report)}{memory_curve(report)}{memory_map(report)}{roofline(report)}"
        f"<table><thead><tr><th>op</th><th>phase</th><th>calls</th><th>time</th><th>energy</th>"
        f"<th>binds</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def side_by_side(reports: Sequence[CostReport]) -> str:
    """Return one row for each machine: time with its interval, energy, memory, use."""
    longest = max(report.time_s for report in reports) or 1.0
    rows = "".join(
        f"<tr><td>{escape(r.title)}</td><td>{si(r.time_s, 's')}</td>"
        f"<td>{si(r.time_interval_s[0], 's')} to {si(r.time_interval_s[1], 's')}</td>"
        f'<td><div style="background:#2a6f97;height:.8em;width:{10 * r.time_s / longest:.2f}em">'
        f"</div></td><td>{si(r.energy_j, 'J')}</td><td>{_energy_range(r)}</td>"
        f"<td>{r.peak_tile_memory_byte / r.memory_byte:.1%}{'' if r.fits else ', does not fit'}"
        f"</td><td>{r.utilisation:.2%}</td></tr>"
        for r in sorted(reports, key=lambda report: report.time_s)
    )
    return (
        "<table><thead><tr><th>machine</th><th>time</th><th>90 % interval</th><th></th>"
        "<th>energy</th><th>its range</th><th>memory</th><th>of peak rate</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>"
    )


#: Light or dark as the reader's system is; what is wider than a phone scrolls by itself.
_STYLE = (
    ":root{color-scheme:light dark}"
    "body{font-family:sans-serif;max-width:60em;margin:2em auto;padding:0 1em;"
    "background:Canvas;color:CanvasText}h1{font-size:1.5em;overflow-wrap:anywhere}"
    "pre,.hw-cost{overflow-x:auto}pre{font-size:12px}"
    'svg{min-width:45rem}svg[aria-label$="by part"]{min-width:0}'
    "table{border-collapse:collapse;font-size:85%;display:block;overflow-x:auto}"
    ".hw-cost table{overflow-x:visible}"
    "td,th{text-align:left;padding:.1em .8em .1em 0;white-space:nowrap}"
)


def page(fragments: list[str], title: str) -> str:
    """Return fragments as one self-contained page."""
    body = "\n".join(fragments)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body><h1>{escape(title)}</h1>\n{body}\n</body></html>\n"
    )


def _energy_range(report: CostReport) -> str:
    low, high = report.energy_interval_j
    return f"{si(low, 'J')} to {si(high, 'J')}"


def _is_tiled(report: CostReport) -> bool:
    return any(op.supersteps for op in report.ops)


def _shares(parts: dict[str, float]) -> str:
    total = sum(parts.values())
    largest = sorted(parts.items(), key=lambda part: -part[1])
    return ", ".join(f"{name} {value / total:.0%}" for name, value in largest if value > 0)


def _by_kind(report: CostReport) -> list[tuple[tuple[str, str], list[OpCost]]]:
    """Return ops grouped by name and phase, the costliest group first."""
    groups: dict[tuple[str, str], list[OpCost]] = defaultdict(list)
    for op in report.ops:
        groups[op.name, op.phase].append(op)
    return sorted(groups.items(), key=lambda group: -sum(op.time_s for op in group[1]))


def _rect(x: float, y: float, width: float, height: float, colour: str, title: str) -> str:
    return (
        f'<rect x="{x:.2f}" y="{y:.2f}" width="{max(width, 0.2):.2f}" height="{height:.2f}" '
        f'fill="{colour}"><title>{escape(title)}</title></rect>'
    )


def _bar(label: str, parts: dict[str, float], unit: str) -> str:
    """Return one bar divided by part, with a legend."""
    total = sum(parts.values()) or 1.0
    body, entries, x = "", [], 0.0
    for name in _COLOUR:
        value = parts.get(name, 0.0)
        if value <= 0:
            continue
        width = _WIDTH * value / total
        text = f"{name}: {si(value, unit)} ({value / total:.1%})"
        body += _rect(x, 0, width, _BAR, _COLOUR[name], text)
        entries.append((_COLOUR[name], text))
        x += width
    title = f'<div style="font-size:85%">{escape(label)}</div>'
    return title + svg(_WIDTH, _BAR, body, label) + legend(entries)


def _timeline(report: CostReport) -> str:
    """Return the ops on a time axis; hovering a box names its op, plan and superstep."""
    boxes: list[tuple[float, float, str, str]] = []  # start, length, part, title
    clock = 0.0
    for op in report.ops:
        where = f"{op.name} {op.module} [{op.phase}] {op.plan}"
        n_superstep = len(op.supersteps)
        spans: list[tuple[float, str, str]] = [
            (s.cycles / report.clock_hz, s.part, s.label) for s in op.supersteps
        ]
        if not n_superstep or len(report.ops) * 4 > N_BOX:
            spans = [(value, part, part) for part, value in op.parts_s.items()]
        for length, part, label in spans:
            boxes.append((clock, length, part, f"{where}: {label}, {si(length, 's')}"))
            clock += length
    body = '<text x="0" y="11">timeline (hover for the op)</text>'
    body += _rect(0, 16, _WIDTH, _TRACK, "#ced4da", "spans too short to draw")
    body += _row(boxes, clock, 16, _TRACK)
    height = 18 + _TRACK
    if report.streaming is not None:
        travels = [
            (t.start_s, t.length_s, _WAY[t.comes], f"{t.name} {'in' if t.comes else 'out'}: "
             f"{si(t.byte, 'B')}, {si(t.length_s, 's')}")
            for t in report.streaming.transfers
        ]  # fmt: skip
        names = " and ".join(
            f'<tspan fill="{_COLOUR[_WAY[comes]]}">&#9632;</tspan> {name}'
            for comes, name in ((True, "from"), (False, "to"))
        )
        body += f'<text x="0" y="{height + 11}">tensors {names} the memory beside the chip</text>'
        body += _row(travels, clock, height + 16, _BAR)
        height += 18 + _BAR
    return svg(_WIDTH, height, body, "timeline")


def _row(boxes: list[tuple[float, float, str, str]], length: float, y: float, height: float) -> str:
    """Return boxes of (start, length, part, title) along a row, those too short to see left out."""
    scale = _WIDTH / (length or 1.0)
    return "".join(
        _rect(start * scale, y, extent * scale, height, _COLOUR[part], title)
        for start, extent, part, title in boxes
        if extent >= length / N_BOX
    )
