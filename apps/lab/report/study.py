"""What the records of one application on one data set say together."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from functools import cached_property

from markupsafe import Markup

from apps.lab.record import Scores
from apps.lab.report import charts
from apps.lab.report.costs import PHASES, Costs
from apps.lab.report.parts import Cell, Line, MachineName, Row, ordered
from apps.lab.report.words import (
    MISSING,
    direction,
    is_better,
    metric_label,
    metric_unit,
    number,
    plain,
    with_unit,
)

# What the other variants are compared with, where it is among them.
REFERENCE = "dense-fp32"


class Study:
    """One section of the page.

    Parameters
    ----------
    name : str
        Application and data set.
    lines : list of Line
    machines : mapping of str to MachineName
        Every machine of the records.
    """

    def __init__(self, name: str, lines: list[Line], machines: Mapping[str, MachineName]):
        self.name = name
        self.lines = lines
        first = lines[0].runs[0].record
        self.application = first.application
        self.data = first.data
        self.reference = next((line for line in lines if line.label == REFERENCE), lines[0])
        self.costs = Costs(lines, self.reference, machines)

    @cached_property
    def splits(self) -> list[str]:
        """Names of the splits, the held-out ones first."""
        found = ordered(s for line in self.lines for r in line.runs for s in r.record.accuracy)
        last = {"valid": 1, "train": 2}
        return sorted(found, key=lambda split: (split != "test", last.get(split, 0)))

    @cached_property
    def headline(self) -> tuple[str, str] | None:
        """The split and metric that the page leads with: the first metric of the first split."""
        for split in self.splits:
            for line in self.lines:
                for metric in line.runs[0].record.accuracy.get(split, {}):
                    if direction(metric) != "zero":
                        return split, metric
        return None

    def accuracy_of(self, line: Line, split: str, metric: str) -> float | None:
        """Mean over the seeds of a line, None where it has no such number."""
        return _mean(_values((r.record.accuracy for r in line.runs), split, metric))

    def baselines(self, split: str, metric: str) -> dict[str, float]:
        """Baselines that have the metric, each averaged over the runs that state it."""
        records = [r.record for line in self.lines for r in line.runs]
        found = {}
        for name in ordered(name for record in records for name in record.baselines):
            scores = (record.baselines.get(name, {}) for record in records)
            mean = _mean(_values(scores, split, metric))
            if mean is not None:
                found[name] = mean
        return found

    def best_baseline(self, split: str, metric: str) -> tuple[str, float] | None:
        """Give the baseline that is hardest to beat."""
        found = self.baselines(split, metric)
        best: tuple[str, float] | None = None
        for name, value in found.items():
            if best is None or is_better(metric, value, best[1]):
                best = name, value
        return best

    def metrics(self, split: str) -> list[str]:
        """Names of all metrics that anything has on the split, in the order of the records."""
        records = [r.record for line in self.lines for r in line.runs]
        scores: list[Scores] = []
        for r in records:
            scores += [r.accuracy, *r.members.values(), *r.baselines.values()]
        return ordered(metric for score in scores for metric in score.get(split, {}))

    def accuracy_rows(self, split: str) -> list[Row]:
        """Rows of the accuracy table: each variant, its parts, then the baselines."""
        metrics = self.metrics(split)
        models = {
            metric: [v for line in self.lines if (v := self.accuracy_of(line, split, metric))]
            for metric in metrics
        }
        rows = []
        for line in self.lines:
            records = [r.record for r in line.runs]
            cells = []
            for metric in metrics:
                cell = _cell(_values((r.accuracy for r in records), split, metric), line.href)
                value = self.accuracy_of(line, split, metric)
                is_best = value is not None and not any(
                    is_better(metric, other, value) for other in models[metric]
                )
                cells.append(Cell(cell.text, cell.href, "best" * is_best, cell.tip))
            rows.append(Row(line.label, "model", cells, line.index))
            for member in ordered(name for r in records for name in r.members):
                scores = [r.members.get(member, {}) for r in records]
                if scores == [r.accuracy for r in records]:
                    continue  # the part is the whole
                cells = [_cell(_values(scores, split, m), line.href) for m in metrics]
                rows.append(Row(f"its {plain(member)}", "member", cells))
        everywhere = [r for line in self.lines for r in line.runs]
        for name in ordered(name for r in everywhere for name in r.record.baselines):
            cells = []
            for metric in metrics:
                holders = [r for r in everywhere if name in r.record.baselines]
                scores = [r.record.baselines[name] for r in holders]
                cells.append(_cell(_values(scores, split, metric), holders[0].href))
            if any(cell.href for cell in cells):
                rows.append(Row(plain(name), "baseline", cells))
        return rows

    def scatters(self, phase: str) -> list[tuple[str, Markup]]:
        """Accuracy against energy, machine by machine, where there are variants to compare."""
        if self.headline is None:
            return []
        split, metric = self.headline
        best = self.best_baseline(split, metric)
        drawn = []
        for machine in self.costs.machines:
            points = []
            for line in self.lines:
                priced = self.costs.prices.get((phase, machine, line.label))
                value = self.accuracy_of(line, split, metric)
                if priced and value is not None and priced.entry.energy_j > 0:
                    point = charts.Point(line.label, priced.entry.energy_j, value, line.index)
                    points.append(point)
            if len(points) > 1:
                chart = charts.scatter(
                    points,
                    x_label=f"energy of one {PHASES[phase]}",
                    x_unit="J",
                    y_label=with_unit(f"{split} {metric_label(metric)}", metric_unit(metric)),
                    line=(f"best baseline: {plain(best[0])}", best[1]) if best else None,
                )
                drawn.append((machine, chart))
        return drawn


def _values(scores: Iterable[Scores], split: str, metric: str) -> list[float]:
    found = (score.get(split, {}).get(metric) for score in scores)
    return [value for value in found if value is not None and math.isfinite(value)]


def _mean(values: list[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _cell(values: list[float], href: str) -> Cell:
    """One value, or mean ± standard deviation over seeds, as exact as the number of digits says."""
    if not values:
        return Cell(MISSING)
    mean = statistics.fmean(values)
    if len(values) == 1 or len(set(values)) == 1:
        return Cell(number(mean), href, tip=repr(mean))
    spread = statistics.stdev(values)
    tip = f"mean ± standard deviation of {len(values)} runs: {', '.join(map(number, values))}"
    return Cell(f"{number(mean)} ± {number(spread, 2)}", href, tip=tip)
