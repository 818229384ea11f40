"""What the page begins with: how accurate each science gets, and what the same accuracy costs."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from apps.lab.report.costs import PHASES
from apps.lab.report.parts import Cell, Line, Row, ordered
from apps.lab.report.words import MISSING, difference, is_better, number, plain, times
from apps.suite.study.pareto import is_as_accurate
from apps.suite.study.sections import accuracy_name
from apps.suite.study.sheet import Sheet, machine_titles

# A point that saves less than this is not called cheaper.
NOTICEABLE = 1.05


@dataclass(frozen=True)
class Headline:
    """One application: what its sweeps say together.

    Attributes
    ----------
    accuracy : Markup
        The first answer, in a sentence or two.
    heads : list of str
        Of the columns of `rows`.
    rows : list of Row
        The second answer: for each machine and phase, the point that takes least energy at the
        accuracy of the dense one, and at how many sparse points sparsity pays.
    """

    application: str
    accuracy: Markup
    heads: list[str]
    rows: list[Row]


def headlines(sheets: list[Sheet]) -> list[Headline]:
    """Give one for each application that has sweeps against a dense reference."""
    found = []
    for name in ordered(sheet.study.application for sheet in sheets):
        mine = [
            sheet
            for sheet in sheets
            if sheet.study.application == name
            and sheet.study.headline is not None
            and sheet.accuracy(sheet.study.reference) is not None
            and _density(sheet.study.reference) == 1.0
        ]
        if mine:
            found.append(Headline(name, _accuracy(mine), list(_HEADS), _cost_rows(mine)))
    return found


_HEADS = (
    "least energy at the accuracy of dense",
    "accuracy",
    "energy efficiency",
    "speed",
    "sparse points faster than dense",
    "with less energy",
)


def _accuracy(sheets: list[Sheet]) -> Markup:
    first = sheets[0]
    assert first.study.headline is not None
    split, metric = first.study.headline
    known = [(v, s, line) for s in sheets for line in s.study.lines if (v := s.accuracy(line))]
    value, sheet, best = known[0]
    for other in known[1:]:
        if is_better(metric, other[0], value):
            value, sheet, best = other
    text = Markup("{}: {} of <strong>{}</strong>").format(
        accuracy_name(sheet), _linked(number(value), best), best.label
    )
    if sheet.seed_noise is not None:
        text += Markup(" (± {} from seed to seed)").format(number(sheet.seed_noise, 2))
    reference = first.study.reference
    if best is not reference:
        base = first.accuracy(reference)
        assert base is not None
        text += Markup("; {} of {}").format(_linked(number(base), reference), reference.label)
    rival = first.study.best_baseline(split, metric)
    if rival is not None:
        said = difference(metric, value, rival[1])
        text += f"; {said} than the best baseline, {plain(rival[0])} ({number(rival[1])})"
    sparse = {line.runs[0].href: (s, line) for s in sheets for line in _sparse(s)}
    if sparse:
        n_near = sum(is_as_accurate(s, line) for s, line in sparse.values())
        text += f". {n_near} of {len(sparse)} sparse points are as accurate as dense within noise"
    return text + "."


def _cost_rows(sheets: list[Sheet]) -> list[Row]:
    phases = ordered(phase for sheet in sheets for phase in sheet.phases)
    titles = machine_titles(sheets)
    return [
        Row(f"{titles[machine]}, {PHASES[phase]}", "model", _cost_cells(sheets, phase, machine))
        for machine in titles
        for phase in phases
    ]


def _cost_cells(sheets: list[Sheet], phase: str, machine: str) -> list[Cell]:
    best: tuple[float, float, Sheet, Line] | None = None
    n_sparse = n_faster = n_frugal = 0
    seen = set()
    for sheet in sheets:
        base_j, base_s = _costs(sheet, sheet.study.reference, phase, machine)
        if base_j is None or base_s is None:
            continue
        sparse = _sparse(sheet)
        for line in sheet.study.lines:
            energy_j, time_s = _costs(sheet, line, phase, machine)
            if energy_j is None or time_s is None or line.href in seen:
                continue
            seen.add(line.href)
            # Steps of another batch are no cheaper way to do the same work.
            if _batch(line) != _batch(sheet.study.reference):
                continue
            if line in sparse:
                n_sparse += 1
                n_faster += time_s < base_s
                n_frugal += energy_j < base_j
            if line is sheet.study.reference or not sheet.fits(line, phase, machine):
                continue
            gain = base_j / energy_j
            if (
                gain >= NOTICEABLE
                and (best is None or gain > best[0])
                and is_as_accurate(sheet, line)
            ):
                best = gain, base_s / time_s, sheet, line
    counts = [Cell(f"{n} of {n_sparse}" if n_sparse else MISSING) for n in (n_faster, n_frugal)]
    if best is None:
        return [Cell("dense"), *[Cell(MISSING)] * 3, *counts]
    gain, speed, sheet, line = best
    return [
        Cell(line.label, line.href),
        Cell(number(sheet.accuracy(line)), line.href),
        Cell(times(gain), line.href, "gain"),
        Cell(times(speed), line.href, "gain" if speed > 1 else "loss" if speed < 1 else ""),
        *counts,
    ]


def _costs(sheet: Sheet, line: Line, phase: str, machine: str) -> tuple[float | None, float | None]:
    return (
        sheet.mean_cost(line, phase, machine, "energy_j"),
        sheet.mean_cost(line, phase, machine, "time_s"),
    )


def _sparse(sheet: Sheet) -> list[Line]:
    return [line for line in sheet.study.lines if (_density(line) or 1.0) < 1.0]


def _density(line: Line) -> float | None:
    variant = line.runs[0].record.config.get("variant")
    return variant.get("density") if isinstance(variant, dict) else None


def _batch(line: Line) -> list[object]:
    """Give what the configuration says of the samples of a step, wherever it stands."""
    config = line.runs[0].record.config
    parts = [part for part in config.values() if isinstance(part, dict)]
    return [part[key] for part in parts for key in ("batch", "batch_size") if key in part]


def _linked(text: str, line: Line) -> Markup:
    return Markup('<a class="n" href="{}">{}</a>').format(line.href, text)
