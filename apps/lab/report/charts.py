"""The page's own drawing: accuracy against energy, in the page's colours, with tooltips."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from apps.lab.report.words import number, quantity

_WIDTH, _HEIGHT = 360, 236
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 12, 12, 40
# More points than these are drawn smaller.
_MANY = 12


@dataclass(frozen=True)
class Point:
    """One variant: `index` picks its colour (class ``c0``, ...); faint ones are outlined."""

    label: str
    x: float
    y: float
    index: int
    is_faint: bool = False


def scatter(
    points: Sequence[Point],
    *,
    x_label: str,
    x_unit: str,
    y_label: str,
    line: tuple[str, float] | None,
    paths: Sequence[Sequence[Point]] = (),
    y_unit: str | None = None,
) -> Markup:
    """Draw points over a logarithmic x axis, and optionally a named horizontal line.

    Parameters
    ----------
    points : sequence of Point
        At least one.
    paths : sequence of sequence of Point
        Lines through the points of each, in the colour of the first.
    y_unit : str, optional
        Makes the y axis logarithmic too, with quantities of this unit.
    """
    low_x, high_x = _log_range([p.x for p in points])
    levels = [p.y for p in points] + ([line[1]] if line else [])
    if y_unit is None:
        ticks_y = nice_ticks(min(levels), max(levels))
        low_y, high_y = ticks_y[0], ticks_y[-1]
    else:
        low_y, high_y = _log_range(levels)
        ticks_y = log_ticks(low_y, high_y)

    def at_x(value: float) -> float:
        share = (math.log10(value) - low_x) / (high_x - low_x)
        return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 1)

    def at_y(value: float) -> float:
        height = value if y_unit is None else math.log10(value)
        share = (height - low_y) / (high_y - low_y)
        return round(_HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM), 1)

    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts = []
    for tick in ticks_y:
        y = at_y(tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y}" y2="{y}"/>')
        text = number(tick, 3) if y_unit is None else quantity(tick, y_unit)
        parts.append(_text(_LEFT - 6, y + 3.5, text, "end"))
    for tick in log_ticks(low_x, high_x):
        x = at_x(tick)
        parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{_TOP}" y2="{bottom}"/>')
        parts.append(_text(x, bottom + 14, quantity(tick, x_unit), "middle"))
    parts.append(_text((_LEFT + right) / 2, _HEIGHT - 6, x_label, "middle"))
    middle = (_TOP + bottom) / 2
    turned = f'transform="rotate(-90 11 {middle})"'
    parts.append(_text(11, middle, y_label, "middle", turned))
    if line:
        y = at_y(line[1])
        parts.append(f'<line class="rival" x1="{_LEFT}" x2="{right}" y1="{y}" y2="{y}"/>')
        above = y - 4 if y > _TOP + 14 else y + 11
        parts.append(_text(right, above, line[0], "end"))
    for path in paths:
        corners = " ".join(f"{at_x(p.x)},{at_y(p.y)}" for p in path)
        parts.append(f'<polyline class="c{path[0].index % 8}" points="{corners}"/>')
    radius = 6 if len(points) <= _MANY else 4
    for p in points:
        level = number(p.y) if y_unit is None else quantity(p.y, y_unit)
        tip = f"{p.label}: {quantity(p.x, x_unit)}, {level}"
        parts.append(
            f'<circle class="c{p.index % 8}{" faint" * p.is_faint}" '
            f'cx="{at_x(p.x)}" cy="{at_y(p.y)}" r="{radius}">'
            f"<title>{escape(tip)}</title></circle>"
        )
    label = escape(f"{y_label} against {x_label}")
    view = f'viewBox="0 0 {_WIDTH} {_HEIGHT}"'
    return Markup(
        f'<svg class="chart" {view} role="img" aria-label="{label}">{"".join(parts)}</svg>'
    )


def nice_ticks(low: float, high: float, n_most: int = 5) -> list[float]:
    """Give round values whose first and last enclose the interval, strictly where it is empty."""
    if low == high:
        margin = abs(low) / 10 or 1.0
        low, high = low - margin, high + margin
    raw = (high - low) / (n_most - 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw * (1 - 1e-12))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Give 1, 2 and 5 times powers of ten between two logarithms, thinned to at most five."""
    powers = range(math.floor(low), math.ceil(high) + 1)
    for digits in ((1, 2, 5), (1, 3), (1,)):
        ticks = [d * 10.0**p for p in powers for d in digits if low <= math.log10(d) + p <= high]
        if len(ticks) <= 5:
            break
    return ticks[:: max(1, math.ceil(len(ticks) / 5))]


def _log_range(values: Sequence[float]) -> tuple[float, float]:
    """Give an interval of logarithms around the values, at least a factor of four wide."""
    low, high = math.log10(min(values)), math.log10(max(values))
    margin = max(0.12 * (high - low), (math.log10(4) - (high - low)) / 2)
    return low - margin, high + margin


def _text(x: float, y: float, text: str, anchor: str, more: str = "") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" {more}>{escape(text)}</text>'
