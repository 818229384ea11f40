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


def is_as_accurate(sheet: Sheet, line: Line) -> bool:
    """Whether a point is as accurate as the reference of its sheet, or more, within seed noise.

    Within two standard deviations of a difference of two means; with one seed, within 2 %.
    """
    value, base = sheet.accuracy(line), sheet.accuracy(sheet.study.reference)
    if sheet.study.headline is None or value is None or base is None:
        return False
    noise = sheet.seed_noise
    if noise is None:
        allowed = 0.02 * abs(base)
    else:
        allowed = 2 * noise * (1 / len(line.runs) + 1 / len(sheet.study.reference.runs)) ** 0.5
    return abs(value - base) <= allowed or is_better(sheet.study.headline[1], value, base)


def frugal(sheet: Sheet, phase: str, machine: str, measure: str) -> Placed | None:
    """Give the cheapest point that is as accurate as the reference (`is_as_accurate`)."""
    points = placed(sheet, phase, machine, measure)
    found = [point for point in points if point.fits and is_as_accurate(sheet, point.line)]
    return min(found, key=lambda point: point.cost, default=None)
