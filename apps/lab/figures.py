"""Figures as SVG that repeats bit for bit and reads on a light or a dark page."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apps.lab.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Told apart with each kind of colour blindness, and on white as on near-black; after Okabe and Ito
# (2008), the yellow and the black of their set left out.
COLORS = ("#2f7fc1", "#d9822b", "#1f9e77", "#c95d9b", "#8a6fc9", "#7d8793")

# Black ink becomes `currentColor` in the file, so that the page that holds the figure chooses it.
_INK = "#000000"

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "tessera",
    "grid.color": _INK,
    "grid.alpha": 0.15,
    "grid.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "lines.linewidth": 1.6,
    "font.size": 9,
    "figure.constrained_layout.use": True,
}


def new_figure(
    n_row: int = 1, n_column: int = 1, *, width_inch: float = 6.4, height_inch: float = 3.6
) -> tuple[Figure, list[Axes]]:
    """Give a figure in the project's style, and its axes row by row.

    The figure belongs to no window system and no global list: drop it and it is gone. Draw with
    the axes' own methods (not pyplot), and use `COLORS`.
    """
    import matplotlib
    from cycler import cycler
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**_STYLE, "axes.prop_cycle": cycler(color=COLORS)}):
        figure = Figure(figsize=(width_inch, height_inch))
        axes = figure.subplots(n_row, n_column, squeeze=False)
    return figure, list(axes.ravel())


def save_svg(figure: Figure, path: str | Path) -> Path:
    """Write the figure as SVG, whole or not at all: no date in it, the same bits each time.

    Text stays text, the background is clear, and the ink takes the colour of the page around it.
    Rasterise maps and clouds of points beyond some thousands (``rasterized=True``).
    """
    import matplotlib
    from matplotlib.legend import Legend

    # Titles and legends take their style when they are made, outside this module's hands.
    for axes in figure.axes:
        axes.title.set(fontsize=10, fontweight="bold")
    for legend in figure.findobj(Legend):
        legend.set_frame_on(False)
    buffer = io.StringIO()
    with matplotlib.rc_context(_STYLE):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue().replace(_INK, "currentColor")
    # Text in black carries no colour at all: it inherits this one.
    return write_atomic(path, text.replace("<svg ", '<svg fill="currentColor" ', 1))
