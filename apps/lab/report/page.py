"""From run folders to the page: read the records, group them, fill the template."""

from __future__ import annotations

import json
import os
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from apps.lab.files import write_atomic
from apps.lab.record import RECORD_FILE, Figure, Record, read_record
from apps.lab.report.answers import answers, cards
from apps.lab.report.costs import ENERGY_PARTS, PHASES
from apps.lab.report.parts import Line, MachineName, RunOf
from apps.lab.report.study import Study
from apps.lab.report.svg import inline_svg
from apps.lab.report.words import (
    MISSING,
    metric_label,
    metric_unit,
    number,
    plain,
    times,
    with_unit,
)
from core.errors import DataError, MachineError

HERE = Path(__file__).parent


def write_report(runs: Sequence[Path], out: Path, title: str) -> Path:
    """Write one self-contained page about the runs to `out`, whole or not at all.

    Parameters
    ----------
    runs : sequence of path
        Run folders (or record files). Runs of one application on one data set share a section;
        runs that differ in their seed alone share a line, as mean and standard deviation.
    out : path
        The HTML file. Its links to the records are relative, so page and runs move together.

    Raises
    ------
    DataError
        If there is no run, or a record cannot be read.
    """
    if not runs:
        raise DataError("report: name at least one run folder")
    studies = _studies([_read(Path(run), Path(out)) for run in runs])
    text = render(
        HERE / "page.html",
        title=title,
        studies=studies,
        answers=answers,
        cards=cards,
        drawings=_drawings(studies),
        energy_parts=[(part, plain(part)) for part in ENERGY_PARTS],
        phases=PHASES,
        settings=_settings,
    )
    return write_atomic(out, text)


def render(template: Path, **values: Any) -> str:
    """Fill a template that may extend this folder's `base.html` and use its `macros.html`.

    Everything is escaped; a name that is not given is an error.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([template.parent, HERE]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template.name).render(
        style=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        metric_label=metric_label,
        metric_unit=metric_unit,
        number=number,
        **values,
    )


def summary_rows(runs: Sequence[Path]) -> list[tuple[str, ...]]:
    """Give the report in short: one row a variant, for a terminal.

    Application, variant, leading metric, best baseline, and speed and energy efficiency of a
    training step (of inference where that is all there is) over the machines.
    """
    rows = []
    for study in _studies([_read(Path(run), Path(run) / "here") for run in runs]):
        split, metric = study.headline or ("", "")
        unit, rival = metric_unit(metric), study.best_baseline(split, metric)
        for line in study.lines:
            value = study.accuracy_of(line, split, metric)
            row = [study.application, line.label]
            row.append(f"{metric_label(metric)} {with_unit(number(value), unit)}")
            row.append(f"{plain(rival[0])} {number(rival[1])}" if rival else MISSING)
            for what in ("time_s", "energy_j"):
                ratios = [
                    ratio
                    for machine in study.costs.machines
                    for phase in study.costs.phases[-1:]
                    if (ratio := study.costs.ratio(phase, machine, line.label, what)) is not None
                ]
                ends = dict.fromkeys(map(times, (min(ratios), max(ratios)))) if ratios else {}
                row.append(" to ".join(ends) or MISSING)
            rows.append(tuple(row))
    return rows


def machine_name(name: str) -> MachineName:
    """Say how a machine is called, or leave its name where this suite has no file of it."""
    import hw

    try:
        machine = hw.load_machine(name)
    except (MachineError, OSError):
        return MachineName(name, has_tiles=False)
    return MachineName(machine.title.partition(" (")[0], has_tiles=machine.kind == "tile")


def _read(run: Path, out: Path) -> RunOf:
    record = read_record(run)
    folder = run if run.is_dir() else run.parent
    relative = os.path.relpath((folder / RECORD_FILE).resolve(), out.resolve().parent)
    return RunOf(record, folder, urllib.parse.quote(Path(relative).as_posix()))


def _studies(runs: list[RunOf]) -> list[Study]:
    groups: dict[tuple[str, str], list[RunOf]] = {}
    for r in runs:
        groups.setdefault((r.record.application, r.record.data.name), []).append(r)
    machines = {e.machine: machine_name(e.machine) for r in runs for e in r.record.cost}
    return [
        Study(f"{application} · {plain(data)}", _lines(group), machines)
        for (application, data), group in groups.items()
    ]


def _lines(runs: list[RunOf]) -> list[Line]:
    """Put runs that differ in their seed alone together; name lines so that no two are alike."""
    groups: dict[tuple[str, str], list[RunOf]] = {}
    for r in runs:
        groups.setdefault((r.record.variant, r.record.config_sha256), []).append(r)
    variants = [variant for variant, _ in groups]
    lines = []
    for index, ((variant, _), group) in enumerate(groups.items()):
        label = variant or group[0].folder.resolve().name
        if variants.count(variant) > 1:
            label = f"{label} ({group[0].folder.resolve().name})"
        lines.append(Line(label, index, group))
    return lines


def _drawings(studies: list[Study]) -> dict[str, list[tuple[Figure, Markup | None, str]]]:
    """Give, by run (its link), each figure with its drawing, or with why there is none."""
    drawn: dict[str, list[tuple[Figure, Markup | None, str]]] = {}
    runs = [r for study in studies for line in study.lines for r in line.runs]
    for i_run, r in enumerate(runs):
        for i_figure, figure in enumerate(r.record.figures):
            drawing, reason = None, ""
            try:
                drawing = inline_svg(_inside(r, figure), prefix=f"r{i_run}f{i_figure}-")
            except DataError as error:
                reason = str(error)
            drawn.setdefault(r.href, []).append((figure, drawing, reason))
    return drawn


def _inside(run: RunOf, figure: Figure) -> Path:
    path = run.folder / figure.file
    if not path.resolve().is_relative_to(run.folder.resolve()):
        raise DataError(f"the figure {figure.file} lies outside the run folder {run.folder}")
    return path


def _settings(record: Record) -> str:
    """Spell the resolved configuration for reading."""
    return json.dumps(record.config, indent=2, ensure_ascii=False)
