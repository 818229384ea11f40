"""One record, or a table of rows, as a piece of HTML for a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from apps.lab.record import RECORD_FILE, Record
from apps.lab.report.costs import PHASES
from apps.lab.report.page import machine_name
from apps.lab.report.parts import Cell, Line, Row, RunOf
from apps.lab.report.study import Study
from apps.lab.report.words import metric_label, metric_unit, plain, quantity

_STYLE = "text-align:right;padding:.15em .8em"


def record_html(record: Record) -> str:
    """Give accuracy beside the baselines, then costs, of one record."""
    titles = {entry.machine: machine_name(entry.machine) for entry in record.cost}
    line = Line(record.variant or record.command, 0, [RunOf(record, Path(), RECORD_FILE)])
    study = Study(record.application, [line], titles)
    parts = [Markup("<h4>{}: {}, seed {}</h4>").format(record.application, line.label, record.seed)]
    if study.headline is not None:
        split = study.headline[0]
        names = study.metrics(split)
        heads = [f"{metric_label(n)} {metric_unit(n)}".strip() for n in names]
        parts.append(table_html(f"{split}, {study.data.name}", heads, study.accuracy_rows(split)))
    rows = []
    for e in record.cost:
        label = f"{titles[e.machine].title}, {PHASES[e.phase]}"
        memory = quantity(e.peak_tile_memory_byte, "byte") + " (does not fit)" * (not e.fits)
        span = " to ".join(quantity(t, "s") for t in e.time_interval_s)
        cells = [Cell(text) for text in (quantity(e.time_s, "s"), span, quantity(e.energy_j, "J"))]
        cells.append(Cell(memory))
        rows.append(Row(label + f", {e.variant}" * (e.variant != line.label), "model", cells))
    if rows:
        heads = ["time", "interval", "energy", "memory of the fullest tile"]
        parts.append(table_html("modelled cost", heads, rows))
    return Markup("").join(parts)


def table_html(first: str, heads: Sequence[str], rows: Sequence[Row]) -> Markup:
    """Give a table without links, everything escaped."""
    cell = Markup('<{0} style="' + _STYLE + '">{1}</{0}>')
    lines = [Markup("").join(cell.format("th", name) for name in (plain(first), *heads))]
    for row in rows:
        cells = [cell.format("th", row.label), *(cell.format("td", c.text) for c in row.cells)]
        lines.append(Markup("").join(cells))
    body = Markup("").join(Markup("<tr>{}</tr>").format(line) for line in lines)
    return Markup("<table>{}</table>").format(body)
