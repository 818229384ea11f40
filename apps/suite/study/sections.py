"""Sentences, charts and tables of one sheet, as the page shows them."""

from __future__ import annotations

from markupsafe import Markup

from apps.lab.report import charts
from apps.lab.report.costs import PHASES
from apps.lab.report.parts import Cell, Line, Row, ordered
from apps.lab.report.words import (
    MISSING,
    difference,
    is_better,
    metric_label,
    metric_unit,
    number,
    plain,
    quantity,
    times,
)
from apps.suite.study.effects import effects
from apps.suite.study.pareto import Placed, front, frugal, placed
from apps.suite.study.sheet import MEASURES, Sheet, machine_titles, short, spelled
from apps.suite.study.training import trainings

MEASURE_NAMES = {
    "time_s": "time",
    "energy_j": "energy",
    "peak_tile_memory_byte": "memory of the fullest tile",
}

# Colour of lines that belong to no value of a lever: grey.
_NEUTRAL = 5


def accuracy_name(sheet: Sheet) -> str:
    """Spell the leading metric with its split and unit."""
    if sheet.study.headline is None:
        return "accuracy"
    split, metric = sheet.study.headline
    name, unit = f"{split} {metric_label(metric)}", metric_unit(metric)
    if metric in ("rmse", "mae"):
        unit = sheet.study.data.unit.partition(" (")[0]
    return f"{name} ({unit})" if unit else name


def answers(sheet: Sheet) -> list[Markup]:
    """Say which point is most accurate, and what the same accuracy costs least."""
    if sheet.study.headline is None:
        return [Markup("The records hold no accuracy.")]
    split, metric = sheet.study.headline
    known = [(v, line) for line in sheet.study.lines if (v := sheet.accuracy(line)) is not None]
    best_value, best = known[0]
    for value, line in known[1:]:
        if is_better(metric, value, best_value):
            best_value, best = value, line
    text = Markup("Most accurate: <strong>{}</strong>, {} {}").format(
        best.label, accuracy_name(sheet), _linked(number(best_value), best)
    )
    rival = sheet.study.best_baseline(split, metric)
    if rival is not None:
        said = difference(metric, best_value, rival[1])
        text += Markup(", {} than {} ({})").format(said, plain(rival[0]), number(rival[1]))
        if best_value == rival[1]:
            text = text.replace("the same than", "the same as")
    found = [text + "."]
    titles = machine_titles([sheet])
    reference = sheet.study.reference
    without: list[str] = []
    for phase in sheet.phases[-1:]:
        for machine in sheet.machines:
            point = frugal(sheet, phase, machine, "energy_j")
            base = sheet.mean_cost(reference, phase, machine, "energy_j")
            if point is None or base is None:
                continue
            if point.line is reference:
                without.append(titles[machine])
                continue
            saved = times(base / point.cost)
            slow = sheet.mean_cost(reference, phase, machine, "time_s") or 0.0
            fast = sheet.mean_cost(point.line, phase, machine, "time_s") or 1.0
            found.append(
                Markup(
                    "On {}, <strong>{}</strong> is at least as accurate as {} at {} the energy "
                    "efficiency and {} the speed of one {} ({} {})."
                ).format(
                    titles[machine],
                    point.line.label,
                    reference.label,
                    _linked(saved, point.line),
                    _linked(times(slow / fast), point.line),
                    PHASES[phase],
                    accuracy_name(sheet),
                    _linked(number(point.accuracy), point.line),
                )
            )
    if without:
        text = Markup("No point is as accurate as {} for less energy on {}.")
        found.append(text.format(reference.label, ", ".join(without)))
    noise = sheet.seed_noise
    if noise is not None:
        found.append(Markup("From seed to seed it varies by {} (1 s.d.).").format(number(noise, 2)))
    else:
        found.append(Markup("One seed a point: “as accurate” means within 2 % here."))
    return found


def colour_of(sheet: Sheet) -> tuple[str, list[str]]:
    """Give the lever that colours stand for, and its values: the first lever."""
    if not sheet.levers:
        return "", []
    return short(sheet.levers[0]), [spelled(v) for v in sheet.values(sheet.levers[0])]


def pareto_chart(sheet: Sheet, phase: str, machine: str, measure: str) -> Markup | None:
    """Draw accuracy against one cost on one machine, with the front."""
    points = placed(sheet, phase, machine, measure)
    if len(points) < 2 or sheet.study.headline is None:
        return None
    split, metric = sheet.study.headline
    levels = [point.accuracy for point in points]
    best = sheet.study.best_baseline(split, metric)
    reach = max(levels) - min(levels)
    if best and not min(levels) - reach <= best[1] <= max(levels) + reach:
        best = None  # so far off that the axis would hide how the points differ
    edge = [charts.Point("", p.cost, p.accuracy, _NEUTRAL) for p in front(points, metric)]
    return charts.scatter(
        [_dot(sheet, point) for point in points],
        x_label=f"{MEASURE_NAMES[measure]}, one {PHASES[phase]}",
        x_unit=MEASURES[measure],
        y_label=accuracy_name(sheet),
        line=(f"best baseline: {plain(best[0])}", best[1]) if best else None,
        paths=[edge] if edge else [],
    )


def _dot(sheet: Sheet, point: Placed) -> charts.Point:
    index = 0
    if sheet.levers:
        value = sheet.points[point.line.label][0].levers[0]
        index = sheet.values(sheet.levers[0]).index(value)
    return charts.Point(point.line.label, point.cost, point.accuracy, index, not point.fits)


def front_rows(sheet: Sheet, phase: str, machine: str) -> list[Row]:
    """Give the points on any front of a machine, and which."""
    if sheet.study.headline is None:
        return []
    on: dict[str, list[str]] = {}
    for measure in MEASURES:
        for point in front(placed(sheet, phase, machine, measure), sheet.study.headline[1]):
            on.setdefault(point.line.label, []).append(measure.partition("_")[0])
    names = {"time": "time", "energy": "energy", "peak": "memory"}
    rows = []
    for line in sheet.study.lines:
        if line.label not in on:
            continue
        cells = [Cell(number(sheet.accuracy(line)), line.href)]
        for measure, unit in MEASURES.items():
            value = sheet.mean_cost(line, phase, machine, measure)
            cells.append(Cell(quantity(value, unit) if value else MISSING, line.href))
        cells.append(Cell(", ".join(names[name] for name in on[line.label])))
        rows.append(Row(line.label, "model", cells))
    return rows


def machine_heads(sheet: Sheet) -> list[str]:
    """Give the names of the sheet's machines, in their order."""
    titles = machine_titles([sheet])
    return [titles[machine] for machine in sheet.machines]


def effect_rows(sheet: Sheet) -> list[Row]:
    """Give a row for each value of each lever, against the lever's first value."""
    phase = sheet.phases[-1] if sheet.phases else "inference"
    rows = []
    for effect in effects(sheet, phase):
        change = _signed(effect.change)
        if effect.noise is not None:
            change += f" ± {number(effect.noise, 2)}"
        span = f"{_signed(effect.low)} to {_signed(effect.high)}"
        cells = [Cell(str(effect.n_pair)), Cell(change, mark="best" * effect.is_clear), Cell(span)]
        for machine in sheet.machines:
            ratio = effect.ratios[machine]
            if "time_s" not in ratio or "energy_j" not in ratio:
                cells.append(Cell(MISSING))
                continue
            text = f"{times(1 / ratio['time_s'])} · {times(1 / ratio['energy_j'])}"
            memory = ratio.get("peak_tile_memory_byte")
            tip = f"memory of the fullest tile: {times(memory)}" if memory else ""
            mark = "gain" if ratio["time_s"] < 1 else "loss" if ratio["time_s"] > 1 else ""
            cells.append(Cell(text, mark=mark, tip=tip))
        label = f"{short(effect.lever)}: {spelled(effect.base)} → {spelled(effect.value)}"
        rows.append(Row(label, "model", cells))
    return rows


def training_charts(sheet: Sheet) -> list[tuple[str, Markup]]:
    """Draw time to train against batch size, one chart a machine, where batch is a lever."""
    found = trainings(sheet)
    settings = ordered(t.setting for t in found)
    drawn = []
    for machine in sheet.machines:
        paths = []
        for index, setting in enumerate(settings):
            path = [
                charts.Point(t.line.label, float(t.batch), t.time_to_goal_s[machine], index)
                for t in sorted(found, key=lambda t: t.batch)
                if t.setting == setting and t.time_to_goal_s.get(machine, 0) > 0
            ]
            if path:
                paths.append(path)
        if paths:
            chart = charts.scatter(
                [point for path in paths for point in path],
                x_label="samples of a step",
                x_unit="",
                y_label="time to the common goal",
                line=None,
                paths=paths,
                y_unit="s",
            )
            drawn.append((machine, chart))
    return drawn


def training_rows(sheet: Sheet) -> list[Row]:
    """Give batch, steps, accuracy and times of every training."""
    rows = []
    for t in trainings(sheet):
        goal = MISSING if t.n_step_to_goal is None else number(t.n_step_to_goal, 4)
        texts = [str(t.batch), number(t.n_step, 4), goal, number(sheet.accuracy(t.line))]
        for machine in sheet.machines:
            times_s = [t.time_s.get(machine), t.time_to_goal_s.get(machine)]
            known = [quantity(value, "s") for value in times_s if value is not None]
            texts.append(" · ".join(known) or MISSING)
        rows.append(Row(t.setting, "model", [Cell(text, t.line.href) for text in texts]))
    return rows


def run_rows(sheet: Sheet) -> list[Row]:
    """Give the leading metric of every point, its runs linked one by one."""
    rows = []
    for line in sheet.study.lines:
        found = [Cell(number(sheet.accuracy(line)), line.href)]
        links = Markup(", ").join(
            _linked(f"{entry.seed}: {number(value)}", entry.run.href)
            for entry in sheet.points[line.label]
            for value in [entry.accuracy(*sheet.study.headline) if sheet.study.headline else None]
        )
        rows.append(Row(line.label, "model", [*found, Cell(links)]))
    return rows


def _signed(value: float | None) -> str:
    if value is None:
        return MISSING
    return f"+{number(value, 2)}" if value > 0 else number(value, 2)


def _linked(text: str, where: Line | str) -> Markup:
    href = where if isinstance(where, str) else where.href
    return Markup('<a class="n" href="{}">{}</a>').format(href, text)
