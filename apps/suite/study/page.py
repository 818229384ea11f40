"""The page of a study, from `study.json` and the records alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from apps.lab.files import write_atomic
from apps.lab.report.costs import PHASES
from apps.lab.report.page import machine_name, render
from apps.lab.report.parts import Cell, Row
from apps.lab.report.words import quantity
from apps.suite.study import sections
from apps.suite.study.break_even import AS_FAST, BreakEven
from apps.suite.study.headlines import headlines
from apps.suite.study.map_rows import MapRows
from apps.suite.study.sheet import MEASURES, machine_titles, read_sheets
from apps.suite.study.state import StudyState, read_state

PAGE_FILE = "report.html"
_SHEET_PARTS = (
    "accuracy_name",
    "answers",
    "colour_of",
    "effect_rows",
    "front_rows",
    "machine_heads",
    "pareto_chart",
    "run_rows",
    "training_charts",
    "training_rows",
)


def write_page(folder: Path) -> Path:
    """Write `report.html` of a study, finished or not, whole or not at all.

    Raises
    ------
    DataError
        If the folder holds no study.
    """
    folder = Path(folder)
    return write_atomic(folder / PAGE_FILE, page_text(folder))


def page_text(folder: Path, records: Mapping[str, Any] | None = None, kept_in: str = "") -> str:
    """Give the page of a study.

    With `records`, which is what `apps.suite.study.export` keeps of each run by its key, the page
    shows them itself; `kept_in` is the file beside it that holds them.
    """
    state = read_state(folder)
    sheets, unread = read_sheets(folder, state)
    values: dict[str, Any] = {name: getattr(sections, name) for name in _SHEET_PARTS}
    values |= {"map": None, **_map(state)}
    return render(
        Path(__file__).with_name("page.html"),
        title=state.study.title,
        state=state,
        sheets=sheets,
        headlines=headlines(sheets),
        titles=machine_titles(sheets),
        phases=PHASES,
        measures=MEASURES,
        measure_names=sections.MEASURE_NAMES,
        as_fast=AS_FAST,
        failures=_failures(state, unread),
        records=records or {},
        kept_in=kept_in,
        record_rows=_record_rows,
        short=sections.short,
        **values,
    )


def _map(state: StudyState) -> dict[str, Any]:
    config = state.study.break_even
    if config is None:
        return {}
    from apps.lab.variant import REFERENCE_MACHINES

    machines = state.study.machines or REFERENCE_MACHINES
    titles = {name: machine_name(name).title for name in machines}
    rows = MapRows(BreakEven(config, machines), titles)
    return {
        "map": rows.map,
        "map_titles": titles,
        "map_heads": [f"{block} by {block}" for block in config.block],
        "density_heads": [f"density {density:g}" for density in config.density],
        "map_answers": rows.answers,
        "densest_rows": rows.densest_rows,
        "smallest_rows": rows.smallest_rows,
        "speed_rows": rows.speed_rows,
    }


def _record_rows(record: Mapping[str, Any]) -> list[Row]:
    """Give the costs of a run that was kept: a row for each machine and phase."""
    return [
        Row(
            f"{machine_name(cost['machine']).title}, {PHASES[cost['phase']]}",
            "model",
            [
                *(Cell(quantity(cost[name], unit)) for name, unit in MEASURES.items()),
                Cell("yes" if cost["fits"] else "no"),
            ],
        )
        for cost in record["cost"]
    ]


def _failures(state: StudyState, unread: dict[str, str]) -> list[Row]:
    """Give a row for each run that has no result and will not get one by waiting."""
    reasons = {k: run.problem for k, run in state.runs.items() if run.status == "failed"} | unread
    said: dict[str, str] = {}
    for point in state.points:
        levers = ", ".join(f"{sections.short(k)} {v}" for k, v in point.levers.items())
        said.setdefault(point.key, f"{point.sweep}: {levers or 'as it is'}, seed {point.seed}")
    return [
        Row(said[key], "model", [Cell(reason.strip().splitlines()[-1], tip=reason)])
        for key, reason in reasons.items()
    ]
