"""Successive halving: many points briefly, the better ones longer.

Source: Jamieson and Talwalkar 2016, arXiv 1502.07943, algorithm 1, with the points of the sweep in
place of draws. What decides is the validation error of the history, never the test part.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from apps.lab.record import read_record
from apps.suite.study.spec import Point, StudyConfig, SweepConfig, flat, points_of
from core.errors import DataError


def best_valid(folder: Path) -> float:
    """Give the least validation error of a run; infinite where it failed or has none."""
    try:
        history = read_record(folder).history or []
    except DataError:
        return math.inf
    name = next((key for row in history for key in row if key.startswith("valid")), None)
    found = [value for row in history if name and (value := row.get(name)) is not None]
    return min(found, default=math.inf)


def promoted(
    study: StudyConfig, points: list[Point], store: Path, applications: Mapping[str, str]
) -> list[Point]:
    """Give the points that go on to the next budget, of every sweep that halves; none at the end.

    Parameters
    ----------
    points : list of Point
        All so far, their runs finished or failed.
    store : path
        Where the run folders are.
    """
    found = []
    for sweep in study.sweep:
        if sweep.halving is not None:
            mine = [p for p in points if p.sweep == sweep.name]
            found += _next_rung(sweep, study.seeds, mine, store, applications)
    return found


def _next_rung(
    sweep: SweepConfig,
    seeds: tuple[int, ...],
    points: list[Point],
    store: Path,
    applications: Mapping[str, str],
) -> list[Point]:
    assert sweep.halving is not None
    key, budgets = sweep.halving.budget, sweep.halving.steps
    reached = max(budgets.index(p.levers[key]) for p in points)
    if reached + 1 == len(budgets):
        return []
    groups: dict[str, list[Point]] = defaultdict(list)
    for p in points:
        if p.levers[key] == budgets[reached]:
            groups[repr(p.levers)].append(p)
    score = {
        name: statistics.fmean(best_valid(store / p.key) for p in group)
        for name, group in groups.items()
    }
    known = [name for name in groups if math.isfinite(score[name])]
    kept = sorted(known, key=lambda name: score[name])
    kept = kept[: math.ceil(sweep.halving.keep * len(groups))]
    asked = [{**groups[name][0].levers, key: budgets[reached + 1]} for name in kept]
    return points_of(sweep, [flat(one) for one in asked], seeds, applications)
