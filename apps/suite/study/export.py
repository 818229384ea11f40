"""What is kept of a study in a repository: one small JSON of its runs, and its report."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from apps.lab.files import write_atomic
from apps.lab.record import Record
from apps.suite.study.page import PAGE_FILE, page_text
from apps.suite.study.sheet import read_runs
from apps.suite.study.state import STORE, read_state
from core.errors import DataError

SCHEMA = "tessera.study-results/1"
# Digits of a metric or cost: more than seeds leave meaning to.
N_DIGIT = 5


def export(folder: Path, to: Path) -> tuple[Path, Path]:
    """Write ``NAME.json`` and ``NAME.html`` of the study in `folder` (NAME is its) below `to`.

    The JSON holds, for each run, levers, seed, hash of the configuration, scores, costs of its own
    variant and commit; nothing of the data. The report shows the same of the run whose number is
    followed.

    Raises
    ------
    DataError
        If the folder holds no study, or none of its runs is finished.
    """
    folder = Path(folder)
    state = read_state(folder)
    runs, _ = read_runs(folder, state)
    if not runs:
        raise DataError(f"{folder} holds no finished run; run the study first")
    asked: dict[str, list[dict[str, Any]]] = {}
    for p in state.points:
        asked.setdefault(p.key, []).append({"sweep": p.sweep, "levers": p.levers})
    first = next(iter(runs.values())).record
    content = {
        "schema": SCHEMA,
        "title": state.study.title,
        "study": state.study.model_dump(mode="json"),
        "sessions": [s.model_dump() | {"overhead": _short(s.share)} for s in state.sessions],
        "versions": first.versions,
    }
    found = {key: _run(run.record, asked[key]) for key, run in runs.items()}
    name = folder.resolve().name
    # One run a line, so that what changes can be read in a diff.
    lines = json.dumps({**content, "runs": {}})[: -len("{}}")]
    body = ",\n".join(
        f"{json.dumps(k)}: {json.dumps(v, separators=(',', ':'))}" for k, v in found.items()
    )
    data = write_atomic(to / f"{name}.json", f"{lines}{{\n{body}\n}}}}\n")
    page = page_text(folder, found, data.name)
    linked = re.sub(rf'href="{STORE}/([^/"]+)/[^"]*"', r'href="#\1"', page)
    return data, write_atomic(to / f"{name}{Path(PAGE_FILE).suffix}", linked)


def _run(record: Record, asked: list[dict[str, Any]]) -> dict[str, Any]:
    test = {
        split: record.accuracy[split] for split in ("test", "valid") if split in record.accuracy
    }
    return {
        "asked": asked,
        "seed": record.seed,
        "config_sha256": record.config_sha256,
        "git": record.git,
        "data": f"{record.data.name} {record.data.sha256[:16]}",
        "accuracy": {s: {k: _short(v) for k, v in m.items()} for s, m in test.items()},
        "cost": [
            {
                "machine": e.machine,
                "phase": e.phase,
                "time_s": _short(e.time_s),
                "energy_j": _short(e.energy_j),
                "peak_tile_memory_byte": e.peak_tile_memory_byte,
                "fits": e.fits,
            }
            for e in record.cost
            if e.variant == record.variant
        ],
    }


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{N_DIGIT}g}")
