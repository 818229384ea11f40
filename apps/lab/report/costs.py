"""Modelled costs of all variants on all machines, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from apps.lab.record import CostEntry, EnergyBy
from apps.lab.report.parts import Cell, Line, MachineName, Row, ordered
from apps.lab.report.words import MISSING, number, plain, quantity, times

PHASES = {"inference": "inference step", "train_step": "training step"}
ENERGY_PARTS = tuple(EnergyBy.model_fields)
# Ratios nearer to one than this are not called faster or slower.
_NOTICEABLE = 1.05


@dataclass(frozen=True)
class Bar:
    """One bar: lengths in percent of the longest in its group."""

    label: str
    text: str
    href: str
    index: int
    percent: float
    parts: list[tuple[str, float, str]] = field(default_factory=list)
    interval: tuple[float, float] | None = None
    fits: bool = True


@dataclass(frozen=True)
class Priced:
    """A cost entry, and the record that holds it."""

    entry: CostEntry
    href: str
    index: int


class Costs:
    """The costs of one study.

    Parameters
    ----------
    lines : list of Line
    reference : Line
        What the others are measured against.
    machine_names : mapping of str to MachineName
        Every machine of the records.
    """

    def __init__(
        self, lines: list[Line], reference: Line, machine_names: Mapping[str, MachineName]
    ):
        self.lines = lines
        self.reference = reference
        self.titles = {key: name.title for key, name in machine_names.items()}
        self.tile_machines = {key for key, name in machine_names.items() if name.has_tiles}

    @cached_property
    def prices(self) -> dict[tuple[str, str, str], Priced]:
        """Cost entries by (phase, machine, label); the first record to state one is linked."""
        found: dict[tuple[str, str, str], Priced] = {}
        rivals: list[str] = []
        for line in self.lines:
            for r in line.runs:
                for entry in r.record.cost:
                    label, index = line.label, line.index
                    if entry.variant != r.record.variant and r.record.variant:
                        label = plain(entry.variant)
                        if label not in rivals:
                            rivals.append(label)
                        index = len(self.lines) + rivals.index(label)
                    key = entry.phase, entry.machine, label
                    found.setdefault(key, Priced(entry, r.href, index))
        return found

    @cached_property
    def phases(self) -> list[str]:
        """Phases that have a cost."""
        return [phase for phase in PHASES if any(key[0] == phase for key in self.prices)]

    @cached_property
    def machines(self) -> list[str]:
        """Machines in the order of the records."""
        return ordered(key[1] for key in self.prices)

    @cached_property
    def labels(self) -> list[str]:
        """Names of what was costed: the variants, then what they are compared with."""
        by_index = {key[2]: priced.index for key, priced in self.prices.items()}
        return sorted(by_index, key=lambda label: by_index[label])

    def index_of(self, label: str) -> int:
        """Colour of a costed thing."""
        return next(p.index for key, p in self.prices.items() if key[2] == label)

    def has(self, phase: str, machine: str) -> bool:
        """Whether anything was costed there."""
        return any(key[:2] == (phase, machine) for key in self.prices)

    def ratio(self, phase: str, machine: str, label: str, what: str) -> float | None:
        """How many times less time, or energy, `label` takes than the reference."""
        ours = self.prices.get((phase, machine, label))
        reference = self.prices.get((phase, machine, self.reference.label))
        if ours is None or reference is None:
            return None
        a, b = getattr(reference.entry, what), getattr(ours.entry, what)
        return a / b if b > 0 else None

    def gain_rows(self, phase: str) -> list[Row]:
        """Rows of the table that says what each variant gains over the reference, by machine."""
        rows = []
        for label in self.labels:
            cells = []
            for machine in self.machines:
                priced = self.prices.get((phase, machine, label))
                if priced is None:
                    cells.append(Cell(MISSING))
                    continue
                e = priced.entry
                absolute = f"{quantity(e.time_s, 's')} · {quantity(e.energy_j, 'J')}"
                speed = self.ratio(phase, machine, label, "time_s")
                energy = self.ratio(phase, machine, label, "energy_j")
                if label == self.reference.label or speed is None or energy is None:
                    cells.append(Cell(absolute, priced.href, "absolute"))
                    continue
                mark = "gain" if speed > _NOTICEABLE else "loss" if speed < 1 / _NOTICEABLE else ""
                text = f"{times(speed)} · {times(energy)}"
                cells.append(Cell(text, priced.href, mark, absolute))
            rows.append(Row(label, "model", cells, self.index_of(label)))
        return rows

    def cost_rows(self) -> list[Row]:
        """Every cost entry, one row each, as the records state it."""
        rows = []
        for phase in self.phases:
            for machine in self.machines:
                for label in self.labels:
                    priced = self.prices.get((phase, machine, label))
                    if priced is None:
                        continue
                    e = priced.entry
                    low, high = e.time_interval_s
                    texts = [
                        PHASES[phase],
                        self.titles[machine],
                        quantity(e.time_s, "s"),
                        f"{quantity(low, 's')} to {quantity(high, 's')}",
                        quantity(e.energy_j, "J"),
                        quantity(e.peak_tile_memory_byte, "byte"),
                        "yes" if e.fits else "no",
                        f"{number(100 * e.utilisation, 2)} %",
                    ]
                    cells = [Cell(t, priced.href if i >= 2 else "") for i, t in enumerate(texts)]
                    rows.append(Row(label, "model", cells, priced.index))
        return rows

    def bars(self, phase: str, machine: str, what: str) -> list[Bar]:
        """Bars of time, or of energy by part, of all variants on one machine."""
        found = {
            label: priced
            for label in self.labels
            if (priced := self.prices.get((phase, machine, label)))
        }
        unit = "s" if what == "time_s" else "J"
        reach = {
            label: max(getattr(p.entry, what), p.entry.time_interval_s[1] if unit == "s" else 0.0)
            for label, p in found.items()
        }
        longest = max(reach.values()) or 1.0
        bars = []
        for label, priced in found.items():
            e = priced.entry
            value = getattr(e, what)
            parts = []
            if unit == "J":
                for part in ENERGY_PARTS:
                    joule = getattr(e.energy_by, part)
                    tip = f"{plain(part)} {quantity(joule, 'J')}"
                    parts.append((part, 100 * joule / longest, tip))
            low, high = (100 * t / longest for t in e.time_interval_s)
            bars.append(
                Bar(
                    label=label,
                    text=quantity(value, unit),
                    href=priced.href,
                    index=priced.index,
                    percent=100 * value / longest,
                    parts=parts,
                    interval=(low, high) if unit == "s" else None,
                    fits=e.fits,
                )
            )
        return bars
