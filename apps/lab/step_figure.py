"""One step on a tile machine, drawn: its timeline, its memory, and who holds that at the peak."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from apps.lab.figures import COLORS, new_figure, save_svg
from apps.lab.record import Figure

if TYPE_CHECKING:
    from hw import CostReport

# Slices of time that the timeline is drawn in.
N_SLICE = 240
_PARTS = {
    "compute": COLORS[0],
    "exchange": COLORS[1],
    "sync": COLORS[5],
    "move": COLORS[3],
    "launch": COLORS[4],
    "off_chip": COLORS[2],
    "host": "#b3a125",
}
# Prefixes of time and of memory for axes.
_TIME = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))


def draw_step(reports: Iterable[CostReport], folder: Path) -> list[Figure]:
    """Draw the training step on the last machine with tiles among `reports`; none without one.

    Parameters
    ----------
    reports : iterable of hw.CostReport
        Of any phases and machines; inference is drawn where no training step was costed.
    folder : path
        Receives ``step.svg``.
    """
    tiled = [r for r in reports if any(op.supersteps for op in r.ops)]
    trained = [r for r in tiled if r.phase == "train_step"]
    if not tiled:
        return []
    report = (trained or tiled)[-1]
    scale, unit = next((u for u in _TIME if report.time_s >= u[0]), _TIME[-1])
    figure, (line, memory, owners) = new_figure(3, 1, height_inch=6.4)
    end = report.time_s / scale

    edges, shares = slices(report)
    bottom = np.zeros(len(edges) - 1)
    for part, share in shares.items():
        top = bottom + share
        line.fill_between(
            edges / scale, np.append(bottom, bottom[-1]), np.append(top, top[-1]), step="post",
            color=_PARTS.get(part, COLORS[5]), linewidth=0, label=part.replace("_", " "),
            rasterized=True,
        )  # fmt: skip
        bottom = top
    line.set(
        xlim=(0, end), ylim=(0, 1), yticks=[], title="what the tiles do", xlabel=f"time, {unit}"
    )
    line.legend(ncols=len(shares), loc="upper center", bbox_to_anchor=(0.5, -0.32), fontsize=8)

    starts = np.cumsum([0.0, *(op.time_s for op in report.ops)]) / scale
    held = [op.memory_byte / 1e3 for op in report.ops]
    memory.fill_between(starts, [*held, held[-1]], step="post", color=COLORS[0], alpha=0.5)
    memory.axhline(report.memory_byte / 1e3, color=COLORS[1], linestyle="--", linewidth=1.2)
    memory.set(
        xlim=(0, end), ylim=(0, None), xlabel=f"time, {unit}", ylabel="kbyte",
        title="memory of the fullest tile; dashed: what a tile has",
    )  # fmt: skip

    names = [name for name, _ in report.tenants]
    byte = [value / 1e3 for _, value in report.tenants]
    if (rest := report.peak_tile_memory_byte / 1e3 - sum(byte)) > 1e-3:
        names, byte = [*names, "all others"], [*byte, rest]
    owners.barh([_short(name) for name in names], byte, color=COLORS[0])
    owners.invert_yaxis()
    owners.set(xlabel="kbyte a tile", title="who holds it at the fullest moment")
    save_svg(figure, folder / "step.svg")
    what = "training step" if report.phase == "train_step" else "inference step"
    return [
        Figure(
            file="step.svg",
            title=f"One {what} on {report.title.partition(' (')[0]}",
            caption=(
                f"Modelled: {len(report.ops)} operations one after the other, {report.n_unit:,} "
                "tiles in step. Height is the share of each slice of time."
            ),
            wrong_if=(
                "the timeline has gaps, memory does not fall back after the backward pass, the "
                "owners do not add up to the peak, or a step that does not fit is priced"
            ),
        )
    ]


def slices(report: CostReport) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Give edges, float64 [slice + 1] in s, and the share of each slice, [slice], by part."""
    starts: dict[str, list[tuple[float, float]]] = {}
    clock = 0.0
    for op in report.ops:
        spans: list[tuple[str, float]] = [
            (s.part, s.cycles / report.clock_hz) for s in op.supersteps
        ] or list(op.parts_s.items())
        for part, length in spans:
            if length > 0:
                starts.setdefault(part, []).append((clock, clock + length))
            clock += length
    edges = np.linspace(0.0, clock, N_SLICE + 1)
    width = clock / N_SLICE
    shares = {}
    for part in [p for p in _PARTS if p in starts] + [p for p in starts if p not in _PARTS]:
        begin, end = np.array(starts[part]).T
        # time before an edge that lies in spans of the part, exactly
        order = np.concatenate([[0.0], np.cumsum(end - begin)])
        i = np.searchsorted(begin, edges, side="right")
        last = np.maximum(i - 1, 0)
        inside = np.where(i > 0, np.minimum(edges, end[last]) - begin[last], 0.0)
        shares[part] = np.diff(np.where(i > 0, order[last] + inside, 0.0)) / width
    return edges, shares


def _short(name: str, n_most: int = 28) -> str:
    return name if len(name) <= n_most else f"{name[: n_most - 1]}…"
