"""What one lever does, all others held: mean over pairs of points that differ in it alone."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from apps.suite.study.sheet import MEASURES, Entry, Sheet

Pairs = list[tuple[Entry, Entry]]


@dataclass(frozen=True)
class Effect:
    """A lever moved from its first value to another.

    Attributes
    ----------
    n_pair : int
        Pairs of runs with the same seed and the same other levers.
    change : float or None
        Mean change of the leading metric; None where the records have none.
    noise : float or None
        Two standard errors of `change` if seeds alone made the difference; None with one seed.
    low, high : float or None
        Least and greatest change over the other levers, each the mean over seeds.
    ratios : dict
        By machine, then by measure of `MEASURES`: geometric mean of cost over cost at the base.
    """

    lever: str
    base: Any
    value: Any
    n_pair: int
    change: float | None
    noise: float | None
    low: float | None
    high: float | None
    ratios: dict[str, dict[str, float]]

    @property
    def is_clear(self) -> bool:
        """Whether the change is more than seeds explain."""
        return self.change is not None and self.noise is not None and abs(self.change) > self.noise


def effects(sheet: Sheet, phase: str) -> list[Effect]:
    """Give the effect of every value of every lever; `phase` chooses the cost."""
    found = []
    for i, lever in enumerate(sheet.levers):
        base, *others = sheet.values(lever)
        for value in others:
            pairs = _pairs(sheet.entries, i, base, value)
            if pairs:
                found.append(_effect(sheet, phase, lever, base, value, pairs))
    return found


def _pairs(entries: Sequence[Entry], i: int, base: Any, value: Any) -> Pairs:
    """Match each entry at `value` with the one at `base`; the same run twice is no pair."""

    def rest(entry: Entry) -> str:
        return repr((entry.levers[:i], entry.levers[i + 1 :], entry.seed))

    at_base = {rest(e): e for e in entries if e.levers[i] == base}
    return [
        (there, e)
        for e in entries
        if e.levers[i] == value
        and (there := at_base.get(rest(e))) is not None
        and there.key != e.key
    ]


def _effect(sheet: Sheet, phase: str, lever: str, base: Any, value: Any, pairs: Pairs) -> Effect:
    change = noise = low = high = None
    changes: list[tuple[Entry, Entry, float]] = []
    if sheet.study.headline is not None:
        for a, b in pairs:
            before, after = (e.accuracy(*sheet.study.headline) for e in (a, b))
            if before is not None and after is not None:
                changes.append((a, b, after - before))
    if changes:
        change = statistics.fmean(c for *_, c in changes)
        by_setting = defaultdict(list)
        for _, b, c in changes:
            by_setting[repr(b.levers)].append(c)
        means = [statistics.fmean(group) for group in by_setting.values()]
        low, high = min(means), max(means)
        if sheet.seed_noise is not None:
            noise = 2 * sheet.seed_noise * _weight(changes)
    ratios = {
        machine: {m: r for m in MEASURES if (r := _ratio(pairs, phase, machine, m)) is not None}
        for machine in sheet.machines
    }
    return Effect(lever, base, value, len(pairs), change, noise, low, high, ratios)


def _weight(changes: Sequence[tuple[Entry, Entry, float]]) -> float:
    """Give the standard error of the mean change for runs of unit spread.

    A run may stand in several pairs (one dense run beside every block size): the mean is a
    weighted sum of distinct runs, and their variances add with the squares of the weights.
    """
    weights: dict[str, float] = defaultdict(float)
    for a, b, _ in changes:
        weights[a.key] -= 1 / len(changes)
        weights[b.key] += 1 / len(changes)
    return math.sqrt(sum(w * w for w in weights.values()))


def _ratio(pairs: Pairs, phase: str, machine: str, measure: str) -> float | None:
    logs = []
    for a, b in pairs:
        before, after = a.cost(phase, machine), b.cost(phase, machine)
        if before is not None and after is not None:
            x, y = getattr(before, measure), getattr(after, measure)
            if x > 0 and y > 0:
                logs.append(math.log(y / x))
    return math.exp(statistics.fmean(logs)) if logs else None
