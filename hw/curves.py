"""Curves on two logarithmic axes, as SVG: a report's roofline, break-even by density."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from hw.svg import legend, svg
from hw.units import si

if TYPE_CHECKING:
    from hw.cost import CostReport
    from hw.explain import DensityPoint

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 720, 260, 80, 36, 20
#: Seen on white and on black.
_COLOUR = ("#3182b0", "#e07a5f", "#8d6fa8", "#61a5c2")


class _Axes:
    """A plot with logarithmic axes that span what is drawn, with a grid (`ticks`)."""

    def __init__(self, xs: Sequence[float], ys: Sequence[float]) -> None:
        self._x, self._y = _span(xs), _span(ys)
        self._body: list[str] = []

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return the place of a point in the drawing."""
        (x0, x1), (y0, y1) = self._x, self._y
        u, v = (math.log10(x) - x0) / (x1 - x0), (math.log10(y) - y0) / (y1 - y0)
        height = _HEIGHT - _BOTTOM - _TOP
        return _LEFT + u * (_WIDTH - _LEFT - 10), _TOP + (1 - v) * height

    def line(self, points: Sequence[tuple[float, float]], colour: str, title: str) -> None:
        """Join points by a line that says `title` when hovered."""
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (self.at(*point) for point in points))
        self._body.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2">'
            f"<title>{escape(title)}</title></polyline>"
        )

    def dot(self, point: tuple[float, float], colour: str, title: str, radius: float = 4) -> None:
        """Mark a point."""
        x, y = self.at(*point)
        self._body.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="{colour}" '
            f'fill-opacity="0.7" stroke="currentColor" stroke-opacity="0.5">'
            f"<title>{escape(title)}</title></circle>"
        )

    def svg(self, title: str, x_label: str, y_unit: str) -> str:
        """Return the drawing with its grid and labels."""
        grid = [f'<text x="0" y="11">{escape(title)}</text>']
        bottom = _HEIGHT - _BOTTOM
        (x0, x1), (y0, y1) = self._x, self._y
        for tick in ticks(x0, x1):
            x, _ = self.at(tick, 10**y0)
            grid.append(
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{bottom}" stroke="#8886"/>'
            )
            grid.append(f'<text x="{x:.1f}" y="{bottom + 13}" text-anchor="middle">{tick:g}</text>')
        for tick in ticks(y0, y1):
            _, y = self.at(10**x0, tick)
            label = si(tick, y_unit)
            grid.append(
                f'<line x1="{_LEFT}" x2="{_WIDTH - 10}" y1="{y:.1f}" y2="{y:.1f}" stroke="#8886"/>'
            )
            grid.append(
                f'<text x="{_LEFT - 4}" y="{y + 4:.1f}" text-anchor="end">{escape(label)}</text>'
            )
        middle = (_LEFT + _WIDTH) / 2
        grid.append(
            f'<text x="{middle}" y="{_HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>'
        )
        return svg(_WIDTH, _HEIGHT, "".join(grid + self._body), title)


def ticks(low: float, high: float) -> list[float]:
    """Return round numbers between 10^low and 10^high: powers of ten, or 1, 2, 5 if those are few.

    Examples
    --------
    >>> from hw.curves import ticks
    >>> ticks(-1.2, 2.1)
    [0.1, 1.0, 10.0, 100.0]
    >>> ticks(1.9, 2.8)
    [100.0, 200.0, 500.0]
    """
    powers = range(math.floor(low), math.ceil(high) + 1)
    for steps in ((1,), (1, 2, 5)):
        found = [s * 10.0**power for power in powers for s in steps]
        found = [tick for tick in found if low <= math.log10(tick) <= high]
        if len(found) > 2:
            break
    return found


def _span(values: Sequence[float]) -> tuple[float, float]:
    """Return powers of ten a little outside the values."""
    logs = [math.log10(v) for v in values]
    return min(logs) - 0.15, max(logs) + 0.15


def roofline(report: CostReport) -> str:
    """Return products by kind under the ceilings of the machine; hovering a dot names its op.

    Intensity is in multiply-adds by byte exchanged between tiles (by byte of memory outside the
    chip, on other machines). An empty text if the program has no product that moves a byte.
    """
    groups: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    is_tiled = any(op.supersteps for op in report.ops)
    for op in report.ops:
        byte = op.exchange_byte if is_tiled else op.off_chip_byte
        if op.n_mac:
            group = groups[f"{op.name} [{op.phase}]"]
            for i, value in enumerate((op.n_mac, byte, op.time_s)):
                group[i] += value
    dots = {
        name: (mac / byte, mac / seconds, seconds)
        for name, (mac, byte, seconds) in groups.items()
        if byte
    }
    if not dots:
        return ""
    ridge = report.roof_mac_per_s / report.roof_byte_per_s
    xs = [x for x, _, _ in dots.values()] + [ridge]
    low, high = min(xs) / 2, max(xs) * 2
    roof = [
        (low, low * report.roof_byte_per_s),
        (ridge, report.roof_mac_per_s),
        (high, report.roof_mac_per_s),
    ]
    axes = _Axes([low, high], [y for _, y, _ in dots.values()] + [y for _, y in roof])
    axes.line(
        roof,
        "currentColor",
        f"{si(report.roof_byte_per_s, 'B/s')}, {si(report.roof_mac_per_s, 'MAC/s')}",
    )
    for name, (x, y, seconds) in dots.items():
        title = f"{name}: {si(y, 'MAC/s')}, {x:.3g} by byte, {si(seconds, 's')}"
        share = seconds / report.time_s
        axes.dot((x, y), _COLOUR[0], title, radius=3 + 9 * math.sqrt(share))
    traffic = "exchanged" if is_tiled else "off-chip"
    return axes.svg(
        "roofline (dots: products by kind, larger with their share of the time)",
        f"multiply-adds by {traffic} byte",
        "MAC/s",
    )


def density_figure(points: Sequence[DensityPoint], title: str) -> str:
    """Return time over density by a static, a dynamic and the dense plan."""
    kinds = ("static", "dynamic", "dense")
    densities = [p.density for p in points]
    axes = _Axes(densities, [getattr(p, f"{kind}_s") for p in points for kind in kinds])
    for kind, colour in zip(kinds, _COLOUR, strict=False):
        line = [(p.density, getattr(p, f"{kind}_s")) for p in points]
        axes.line(line, colour, kind)
        for p, (x, y) in zip(points, line, strict=True):
            axes.dot((x, y), colour, f"{kind} at density {p.density:.4g}: {si(y, 's')}")
    key = legend(zip(_COLOUR, kinds, strict=False))
    return axes.svg(title, "density", "s") + key
