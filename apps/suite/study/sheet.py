"""The finished runs of one sweep, by their levers."""

from __future__ import annotations

import os
import statistics
import urllib.parse
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from apps.lab.record import RECORD_FILE, CostEntry, read_record
from apps.lab.report.page import machine_name
from apps.lab.report.parts import Line, RunOf, ordered
from apps.lab.report.study import Study
from apps.suite.study.state import STORE, StudyState
from core.errors import DataError

# What a cost entry is judged by, and the unit; less is better in each.
MEASURES = {"time_s": "s", "energy_j": "J", "peak_tile_memory_byte": "byte"}

# Last words of the keys that say nothing about a dense layer.
_OF_SPARSE = ("block", "method")
_USUALLY_WIDE = ("activation_format", "gradient_format")


@dataclass(frozen=True)
class Entry:
    """One point that has a record; `levers` are its values in the order of the sheet's levers."""

    key: str
    levers: tuple[Any, ...]
    seed: int
    run: RunOf

    def accuracy(self, split: str, metric: str) -> float | None:
        """Give a metric of the record, None where it has none."""
        return self.run.record.accuracy.get(split, {}).get(metric)

    def cost(self, phase: str, machine: str) -> CostEntry | None:
        """Give the cost of the run's own model, None where it was not costed."""
        record = self.run.record
        for entry in record.cost:
            if (entry.phase, entry.machine, entry.variant) == (phase, machine, record.variant):
                return entry
        return None


class Sheet:
    """What the finished runs of one sweep on one data set say.

    Parameters
    ----------
    name : str
    levers : list of str
        Dotted keys of what is varied.
    entries : list of Entry
        In the order of the study; at least one.
    machines : tuple of str
        To show; all where empty.
    """

    def __init__(
        self, name: str, levers: list[str], entries: list[Entry], machines: tuple[str, ...]
    ):
        self.name = name
        self.levers = levers
        self.entries = entries
        groups: dict[str, list[Entry]] = {}
        for entry in entries:
            groups.setdefault(entry.run.record.config_sha256, []).append(entry)
        # Distinct runs of one configuration, under the levers that named it first.
        self.points = {
            self.label(group[0].levers): list({e.key: e for e in group}.values())
            for group in groups.values()
        }
        lines = [
            Line(label, index, [entry.run for entry in group])
            for index, (label, group) in enumerate(self.points.items())
        ]
        names = {e.machine: machine_name(e.machine) for x in entries for e in x.run.record.cost}
        self.study = Study(name, lines, names)
        self.study.reference = lines[0]
        self.study.costs.reference = lines[0]
        found = self.study.costs.machines
        self.machines = [m for m in machines if m in found] if machines else found
        self.phases = self.study.costs.phases

    def label(self, levers: tuple[Any, ...]) -> str:
        """Spell the values of the levers; a dense layer has no blocks and no pattern to name."""
        named = dict(zip(self.levers, levers, strict=True))
        if named.get("variant.density") == 1.0:
            named = {k: v for k, v in named.items() if k.rpartition(".")[2] not in _OF_SPARSE}
        # Formats that are left as they are go without saying.
        named = {
            k: v
            for k, v in named.items()
            if not (k.rpartition(".")[2] in _USUALLY_WIDE and v == "fp32")
        }
        parts = (
            spelled(value) if key == "variant" else f"{short(key)} {spelled(value)}"
            for key, value in named.items()
        )
        return ", ".join(parts) or "as it is"

    def values(self, lever: str) -> list[Any]:
        """Give the values of a lever in the order of the study."""
        i = self.levers.index(lever)
        found: list[Any] = []
        for entry in self.entries:
            if entry.levers[i] not in found:
                found.append(entry.levers[i])
        return found

    def accuracy(self, line: Line) -> float | None:
        """Give the leading metric, averaged over seeds."""
        if self.study.headline is None:
            return None
        return self.study.accuracy_of(line, *self.study.headline)

    @cached_property
    def seed_noise(self) -> float | None:
        """Standard deviation of the leading metric from seed to seed, pooled over all points.

        None where no point has two seeds.
        """
        if self.study.headline is None:
            return None
        spread = []
        for group in self.points.values():
            found = [v for e in group if (v := e.accuracy(*self.study.headline)) is not None]
            if len(found) > 1:
                spread.append((len(found) - 1, statistics.variance(found)))
        n = sum(weight for weight, _ in spread)
        return (sum(weight * v for weight, v in spread) / n) ** 0.5 if n else None

    def mean_cost(self, line: Line, phase: str, machine: str, measure: str) -> float | None:
        """Give a cost averaged over the seeds of a line."""
        entries = self.points[line.label]
        costs = [c for e in entries if (c := e.cost(phase, machine)) is not None]
        return statistics.fmean(getattr(c, measure) for c in costs) if costs else None

    def fits(self, line: Line, phase: str, machine: str) -> bool:
        """Whether the model fits the machine's memory with every seed."""
        costs = (e.cost(phase, machine) for e in self.points[line.label])
        return all(cost.fits for cost in costs if cost is not None)


def short(key: str) -> str:
    """Spell a dotted key in words: ``variant.weight_format`` as ``weight format``."""
    return key.rpartition(".")[2].replace("_", " ")


def spelled(value: Any) -> str:
    """Spell the value of a lever."""
    if isinstance(value, dict):
        return " ".join(f"{short(key)} {spelled(v)}" for key, v in value.items())
    return ", ".join(map(spelled, value)) if isinstance(value, list) else str(value)


def read_runs(folder: Path, state: StudyState) -> tuple[dict[str, RunOf], dict[str, str]]:
    """Read the records of what is done; also, by key, why a record could not be read."""
    runs: dict[str, RunOf] = {}
    unread: dict[str, str] = {}
    for key, run in state.runs.items():
        if run.status == "done":
            where = folder / STORE / key
            href = os.path.join(STORE, key, RECORD_FILE)
            try:
                runs[key] = RunOf(read_record(where), where, urllib.parse.quote(href))
            except DataError as error:
                unread[key] = str(error)
    return runs, unread


def read_sheets(folder: Path, state: StudyState) -> tuple[list[Sheet], dict[str, str]]:
    """Give a sheet for each sweep and data set of what is done, and what could not be read."""
    runs, unread = read_runs(folder, state)
    groups: dict[tuple[str, str], list[Entry]] = {}
    levers: dict[str, list[str]] = {}
    for point in state.points:
        if (found := runs.get(point.key)) is not None:
            levers[point.sweep] = list(point.levers)
            entry = Entry(point.key, tuple(point.levers.values()), point.seed, found)
            groups.setdefault((point.sweep, found.record.data.name), []).append(entry)
    several = [sweep for sweep, _ in groups]
    machines = state.study.machines
    sheets = [
        Sheet(
            f"{sweep} · {data}" if several.count(sweep) > 1 else sweep,
            levers[sweep],
            entries,
            machines,
        )
        for (sweep, data), entries in groups.items()
    ]
    return sheets, unread


def machine_titles(sheets: list[Sheet]) -> dict[str, str]:
    """Give the names of all machines in words."""
    names = ordered(machine for sheet in sheets for machine in sheet.machines)
    return {name: machine_name(name).title for name in names}
