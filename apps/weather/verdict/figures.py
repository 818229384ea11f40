"""Pictures of the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from apps.lab.figures import COLORS, new_figure, save_svg

if TYPE_CHECKING:
    from xarray import Dataset


def scorecard_figure(
    folder: Path, card: Dataset, rivals: Sequence[str], significance: float
) -> dict[str, str]:
    """Draw where the learned scheme beats each rival, by variable, region and lead."""
    rows = [f"{v} {r}" for v in card.variable.values for r in card.region.values]
    figure, axes = new_figure(1, len(rivals), width_inch=8.0, height_inch=0.9 + 0.17 * len(rows))
    cells = card.isel(lead_time=slice(1, None))
    lead = cells.lead_time.values
    for ax, rival in zip(axes, rivals, strict=True):
        other, ours = (
            cells.rmse.sel(scheme=name).transpose("variable", "region", "lead_time").values
            for name in (rival, "learned")
        )
        gain = (100.0 * (other - ours) / other).reshape(len(rows), -1)
        p = cells.p_value.sel(scheme=rival).transpose("variable", "region", "lead_time").values
        p = p.reshape(len(rows), -1)
        image = ax.pcolormesh(
            lead, np.arange(len(rows)), gain, cmap="BrBG", vmin=-100, vmax=100, shading="nearest"
        )
        unsure = ~(p < significance)
        row, column = np.nonzero(unsure)
        ax.scatter(lead[column], row, s=4, color="#000000", linewidths=0)
        ax.set(title=f"against {rival.replace('_', ' ')}", xlabel="lead, days")
        ax.set_yticks(range(len(rows)), rows, fontsize=6)
        ax.set_ylim(len(rows) - 0.5, -0.5)
        ax.grid(visible=False)
    figure.colorbar(image, ax=axes, label="smaller RMSE of the learned scheme, %", shrink=0.6)
    save_svg(figure, folder / "scorecard.svg")
    return {
        "file": "scorecard.svg",
        "title": "Scorecard",
        "caption": (
            "Green where the learned scheme is nearer the converged exact one than the rival is, "
            "brown where it is farther. A dot marks a cell that a Diebold-Mariano test with lagged "
            f"covariances does not separate at {significance:g}."
        ),
        "wrong_if": (
            "colours change from day to day without order, or cells of the tropics and of the "
            "globe disagree wholly"
        ),
    }


def error_figure(folder: Path, card: Dataset) -> dict[str, str]:
    """Draw the error of every line by lead, for the height and the upper temperature."""
    figure, axes = new_figure(1, 2, width_inch=8.0, height_inch=3.8)
    styles = [(color, line) for line in ("-", "--") for color in COLORS]
    for ax, variable in zip(axes, ("z500", "t200"), strict=True):
        for (color, line), name in zip(styles, card.scheme.values, strict=False):
            values = card.rmse.sel(scheme=name, variable=variable, region="global")
            # nought at the start has no logarithm
            first = 0 if float(values[0]) > 0 else 1
            ax.semilogy(
                card.lead_time[first:],
                values[first:],
                color=color,
                linestyle=line,
                label=name.replace("_", " "),
            )
        unit = str(card.unit.sel(variable=variable).values)
        ax.set(title=variable, xlabel="lead, days", ylabel=f"global RMSE, {unit}")
    axes[1].legend(fontsize=6)
    save_svg(figure, folder / "error_by_lead.svg")
    return {
        "file": "error_by_lead.svg",
        "title": "Error by lead",
        "caption": (
            "Global root mean square error over all dates. The noise floor starts from a "
            "disturbance of 0.001 K; `from analysis` starts from a balanced error of an analysis."
        ),
        "wrong_if": (
            "the learned line lies below the noise floor, or persistence below climatology at the "
            "longest lead"
        ),
    }
