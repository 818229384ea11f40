"""Which points no other beats in both accuracy and cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from apps.lab.report.parts import Line
from apps.lab.report.words import is_better
from apps.suite.study.sheet import Sheet


@dataclass(frozen=True)
class Placed:
    """A point in the plane of one cost and the leading metric, mean over seeds."""

    line: Line
    cost: float
    accuracy: float
    fits: bool


def placed(sheet: Sheet, phase: str, machine: str, measure: str) -> list[Placed]:
    """Give every point of the sheet that has both numbers."""
    found = []
    for line in sheet.study.lines:
        cost = sheet.mean_cost(line, phase, machine, measure)
        accuracy = sheet.accuracy(line)
        if cost is not None and cost > 0 and accuracy is not None:
            found.append(Placed(line, cost, accuracy, sheet.fits(line, phase, machine)))
    return found


def front(points: Sequence[Placed], metric: str) -> list[Placed]:
    """Give the points that fit and are not dominated, cheapest first.

    A point is dominated if another costs no more and is no less accurate, and is better in one of
    the two; of equal points the first stays.
    """
    best: list[Placed] = []
    usable = [p for p in points if p.fits]

    def rank(point: Placed) -> tuple[float, int]:
        """Put the most accurate first at equal cost, so that the others find it there."""
        better = sum(is_better(metric, other.accuracy, point.accuracy) for other in usable)
        return point.cost, better

    for point in sorted(usable, key=rank):
        if not best or is_better(metric, point.accuracy, best[-1].accuracy):
            best.append(point)
    return best


def frugal(sheet: Sheet, phase: str, machine: str, measure: str) -> Placed | None:
    """Give the cheapest point whose accuracy is that of the reference within seed noise.

    Within two standard deviations of a difference of two means; with one seed, within 2 %.
    """
    if sheet.study.headline is None:
        return None
    metric = sheet.study.headline[1]
    base = sheet.accuracy(sheet.study.reference)
    if base is None:
        return None
    known = sheet.seed_noise
    found = []
    for point in placed(sheet, phase, machine, measure):
        n_ours, n_theirs = len(point.line.runs), len(sheet.study.reference.runs)
        allowed = (
            0.02 * abs(base) if known is None else 2 * known * (1 / n_ours + 1 / n_theirs) ** 0.5
        )
        near = abs(point.accuracy - base) <= allowed
        if point.fits and (near or is_better(metric, point.accuracy, base)):
            found.append(point)
    return min(found, key=lambda p: p.cost) if found else None
