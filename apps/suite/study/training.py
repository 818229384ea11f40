"""Time to train against batch size, from the lengths of trainings and the cost of a step."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from dataclasses import dataclass

from apps.lab.record import Record
from apps.lab.report.parts import Line
from apps.suite.study.sheet import Sheet, short, spelled
from hw.scale import time_to_train

# Last words of the keys that mean the number of samples of a step.
BATCH = ("batch", "batch_size")


@dataclass(frozen=True)
class Training:
    """One point: modelled seconds of its training on each machine.

    Attributes
    ----------
    n_step : float
        Of the whole training; mean over seeds.
    n_step_to_goal : float or None
        Until the validation error was at the goal: the best that the worst batch size of these
        settings reached, so that all reach it. None where the history has no such error.
    time_s, time_to_goal_s : dict
        By machine.
    """

    line: Line
    setting: str
    batch: int
    n_step: float
    n_step_to_goal: float | None
    time_s: dict[str, float]
    time_to_goal_s: dict[str, float]


def batch_lever(sheet: Sheet) -> str | None:
    """Give the lever that is the batch size, if one is and has several values."""
    found = (key for key in sheet.levers if key.rpartition(".")[2] in BATCH)
    return next((key for key in found if len(sheet.values(key)) > 1), None)


def trainings(sheet: Sheet) -> list[Training]:
    """Give the time to train of every point, where the batch size is a lever."""
    lever = batch_lever(sheet)
    if lever is None:
        return []
    i = sheet.levers.index(lever)
    groups: dict[str, list[tuple[Line, int]]] = defaultdict(list)
    others = [key for key in sheet.levers if key != lever]
    for line in sheet.study.lines:
        levers = sheet.points[line.label][0].levers
        rest = (*levers[:i], *levers[i + 1 :])
        named = [f"{short(key)} {spelled(v)}" for key, v in zip(others, rest, strict=True)]
        groups[", ".join(named) or "as it is"].append((line, levers[i]))
    found = []
    for setting, group in groups.items():
        goal = _goal([r.record for line, _ in group for r in line.runs])
        for line, batch in group:
            found.append(_training(sheet, line, setting, batch, goal))
    return found


def _training(
    sheet: Sheet, line: Line, setting: str, batch: int, goal: tuple[str, float] | None
) -> Training:
    records = [r.record for r in line.runs]
    per_epoch = max(1, math.ceil(records[0].data.n_train / batch))
    n_step = per_epoch * statistics.fmean(len(r.history or ()) for r in records)
    to_goal = None
    if goal is not None:
        to_goal = per_epoch * statistics.fmean(_epochs_to(r, *goal) for r in records)
    step_s = {
        machine: step
        for machine in sheet.machines
        if (step := sheet.mean_cost(line, "train_step", machine, "time_s")) is not None
    }
    return Training(
        line=line,
        setting=setting,
        batch=batch,
        n_step=n_step,
        n_step_to_goal=to_goal,
        time_s={machine: n_step * step for machine, step in step_s.items()},
        time_to_goal_s={
            machine: time_to_train(step, batch, {batch: to_goal})
            for machine, step in step_s.items()
            if to_goal is not None
        },
    )


def _goal(records: list[Record]) -> tuple[str, float] | None:
    """Give the validation error that every one of the runs reached, and its name."""
    if not all(r.history for r in records):
        return None
    name = next((key for key in (records[0].history or [{}])[0] if key.startswith("valid")), None)
    if name is None:
        return None
    bests = [min(_errors(r, name), default=math.inf) for r in records]
    return (name, max(bests)) if math.isfinite(max(bests)) else None


def _errors(record: Record, name: str) -> list[float]:
    return [v for row in record.history or () if (v := row.get(name)) is not None]


def _epochs_to(record: Record, name: str, goal: float) -> int:
    """Count epochs until the error is at the goal for the first time."""
    return 1 + next(i for i, error in enumerate(_errors(record, name)) if error <= goal)
