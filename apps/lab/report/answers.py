"""The headline of a study in words: how accurate, how fast, how much energy, where."""

from __future__ import annotations

from markupsafe import Markup

from apps.lab.report.costs import PHASES
from apps.lab.report.parts import Line, ordered
from apps.lab.report.study import Study
from apps.lab.report.words import (
    difference,
    is_better,
    metric_label,
    metric_unit,
    number,
    plain,
    quantity,
    times,
    with_unit,
)

# Names of what `Costs.ratio` compares.
_SPEED, _ENERGY = "time_s", "energy_j"


def answers(study: Study) -> list[Markup]:
    """Give the sentences, every number linked to the record that holds it."""
    variants = [_variant(study, line) for line in study.lines if line is not study.reference]
    found = [*_accuracy(study), *variants]
    for phase in study.costs.phases:
        found += [*_machines(study, phase), *_rivals(study, phase)]
    return [answer for answer in found if answer]


def cards(study: Study) -> list[tuple[str, str, str, str]]:
    """Give title, large number, what it is, and link of what a reader sees first."""
    found = []
    best = _best_line(study)
    if study.headline is not None and best is not None:
        split, metric = study.headline
        value, line = best
        note = f"best variant, {line.label}"
        rival = study.best_baseline(split, metric)
        if rival:
            note += f"; best baseline, {plain(rival[0])}: {number(rival[1])}"
        text = with_unit(number(value), metric_unit(metric))
        found.append((f"{split} {metric_label(metric)}", text, note, line.href))
    for what, title in ((_SPEED, "most speed gained"), (_ENERGY, "most energy saved")):
        gains = [
            (ratio, phase, machine, line)
            for phase in study.costs.phases
            for machine in study.costs.machines
            for line in study.lines
            if line is not study.reference
            and (ratio := study.costs.ratio(phase, machine, line.label, what)) is not None
        ]
        if gains:
            ratio, phase, machine, line = max(gains, key=lambda gain: gain[0])
            where = f"{PHASES[phase]} on {study.costs.titles[machine]}"
            note = f"{line.label} against {study.reference.label}, {where}"
            found.append((title, times(ratio), note, line.href))
    tiles = [
        (priced.entry.peak_tile_memory_byte, key, priced)
        for key, priced in study.costs.prices.items()
        if key[2] == study.reference.label and key[1] in study.costs.tile_machines
    ]
    if tiles:
        byte, (phase, machine, label), priced = max(tiles, key=lambda tile: tile[0])
        verdict = "it fits" if priced.entry.fits else "it does not fit"
        note = f"{label}, {PHASES[phase]} on {study.costs.titles[machine]}: {verdict}"
        found.append(("largest memory of a tile", quantity(byte, "byte"), note, priced.href))
    return found


def _best_line(study: Study) -> tuple[float, Line] | None:
    if study.headline is None:
        return None
    split, metric = study.headline
    best: tuple[float, Line] | None = None
    for line in study.lines:
        value = study.accuracy_of(line, split, metric)
        if value is not None and (best is None or is_better(metric, value, best[0])):
            best = value, line
    return best


def _accuracy(study: Study) -> list[Markup]:
    if study.headline is None:
        return []
    split, metric = study.headline
    line, unit = study.reference, metric_unit(metric)
    value = study.accuracy_of(line, split, metric)
    if value is None:
        return []
    text = Markup("{} reaches a {} {} of {}").format(
        _name(line.label),
        split,
        metric_label(metric),
        _linked(with_unit(number(value), unit), line.href),
    )
    rival = study.best_baseline(split, metric)
    if rival is None:
        return [text + "; the record holds no baseline."]
    name, level = rival
    verdict = "ahead of" if is_better(metric, value, level) else "not ahead of"
    return [
        text
        + Markup(", {} the best baseline, {} at {} ({}).").format(
            verdict,
            plain(name),
            _linked(with_unit(number(level), unit), line.href),
            difference(metric, value, level),
        )
    ]


def _variant(study: Study, line: Line) -> Markup:
    """Say what a variant loses in accuracy and gains in cost."""
    pieces = []
    if study.headline is not None:
        split, metric = study.headline
        value = study.accuracy_of(line, split, metric)
        base = study.accuracy_of(study.reference, split, metric)
        if value is not None and base is not None:
            linked = _linked(with_unit(number(value), metric_unit(metric)), line.href)
            change = difference(metric, value, base)
            if value != base:
                change += f" than {study.reference.label}"
            pieces.append(Markup("{} {} ({})").format(metric_label(metric), linked, change))
    for phase in study.costs.phases[-1:]:  # training where it was costed; the tables have both
        speed = _range(study, phase, line.label, _SPEED, line.href)
        energy = _range(study, phase, line.label, _ENERGY, line.href)
        if speed and energy:
            text = "in one {}, {} the speed and {} the energy efficiency"
            pieces.append(Markup(text).format(PHASES[phase], speed, energy))
    if not pieces:
        return Markup("")
    return Markup("{}: {}.").format(_name(line.label), Markup("; ").join(pieces))


def _range(study: Study, phase: str, label: str, what: str, href: str) -> Markup | None:
    """Give the least and the greatest ratio over the machines; the speed says on which."""
    costs = study.costs
    known = {m: r for m in costs.machines if (r := costs.ratio(phase, m, label, what)) is not None}
    if not known:
        return None
    ends = ordered([min(known, key=known.__getitem__), max(known, key=known.__getitem__)])
    if len({times(known[machine]) for machine in ends}) == 1:
        return _linked(times(known[ends[0]]), href)
    texts = []
    for machine in ends:
        text = _linked(times(known[machine]), href)
        if what == _SPEED:
            text += Markup(" ({})").format(costs.titles[machine])
        texts.append(text)
    return Markup(" to ").join(texts)


def _machines(study: Study, phase: str) -> list[Markup]:
    """Say where the reference is fastest and where it takes least energy."""
    costs, label = study.costs, study.reference.label
    found = {m: p for m in costs.machines if (p := costs.prices.get((phase, m, label)))}
    usable = {m: p for m, p in found.items() if p.entry.fits} or found
    if not usable:
        return []
    fast = min(usable, key=lambda m: usable[m].entry.time_s)
    frugal = min(usable, key=lambda m: usable[m].entry.energy_j)
    return [
        Markup("One {} of {} is fastest on {} ({}) and takes least energy on {} ({}).").format(
            PHASES[phase],
            label,
            costs.titles[fast],
            _linked(quantity(usable[fast].entry.time_s, "s"), usable[fast].href),
            costs.titles[frugal],
            _linked(quantity(usable[frugal].entry.energy_j, "J"), usable[frugal].href),
        )
    ]


def _rivals(study: Study, phase: str) -> list[Markup]:
    """Say how what is no variant (a scheme that the model replaces) compares."""
    costs = study.costs
    ours = {line.label for line in study.lines}
    found = []
    for label in costs.labels:
        href = next((p.href for k, p in costs.prices.items() if (k[0], k[2]) == (phase, label)), "")
        speed = _range(study, phase, label, _SPEED, href)
        if label not in ours and speed:
            text = "{} runs at {} the speed of {}, for the same {}."
            name = study.reference.label
            found.append(Markup(text).format(_name(label), speed, name, PHASES[phase]))
    return found


def _name(label: str) -> Markup:
    return Markup("<strong>{}</strong>").format(label)


def _linked(text: str, href: str) -> Markup:
    return Markup('<a class="n" href="{}">{}</a>').format(href, text)
