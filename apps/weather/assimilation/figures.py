"""What the assimilation draws: error of the analysis, ranks, the withheld basin."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from apps.lab.figures import new_figure, save_svg

if TYPE_CHECKING:
    from apps.weather.assimilation.assimilate import Answer


def error_figure(folder: Path, found: Answer, spread: dict[str, float]) -> dict[str, str]:
    """Draw the error of the mean analysis, cycle by cycle, by quantity."""
    figure, (ax,) = new_figure()
    history = found.spun_up.history + found.full.history
    begin = history[0]["day"]
    for kind in spread:
        error = [row[f"{kind}_analysis_rmse"] / spread[kind] for row in history]
        ax.semilogy([row["day"] - begin for row in history], error, label=kind.replace("_", " "))
    ax.axhline(0.3, color="#000000", linewidth=0.6, linestyle=":")
    ax.set(xlabel="day", ylabel="analysis error / climatological spread")
    ax.legend()
    save_svg(figure, folder / "analysis_error.svg")
    return {
        "file": "analysis_error.svg",
        "title": "Error of the analysis",
        "caption": "Global error of the mean analysis, over the climatological standard deviation.",
        "wrong_if": "a line rises again after its fall: the filter has lost the truth.",
    }


def rank_figure(folder: Path, found: Answer) -> dict[str, str]:
    """Draw where the truth ranks among the members."""
    figure, (ax,) = new_figure(width_inch=4.8, height_inch=2.8)
    assert isinstance(found.full.ranks, Tensor)
    share = (found.full.ranks / found.full.ranks.sum()).tolist()
    ax.bar(range(len(share)), share)
    ax.axhline(1.0 / len(share), color="#000000", linewidth=0.8)
    ax.set(xlabel="members below the truth", ylabel="share")
    save_svg(figure, folder / "rank_histogram.svg")
    return {
        "file": "rank_histogram.svg",
        "title": "Rank of the truth among the members",
        "caption": "Temperature before the analysis, all points and cycles; flat if reliable.",
        "wrong_if": "tall ends, the ensemble is too sure; a hump, it is not sure enough.",
    }


def forecast_figure(folder: Path, found: Answer) -> dict[str, str]:
    """Draw the error downstream of both forecasts by lead."""
    figure, (ax,) = new_figure(width_inch=5.6, height_inch=3.0)
    ax.plot(found.lead_h, found.error_full, label="every observation")
    ax.plot(found.lead_h, found.error_withheld, label="none over the basin")
    ax.set(xlabel="lead, hours", ylabel="error downstream, m/s", ylim=(0.0, None))
    ax.legend()
    save_svg(figure, folder / "withheld_basin.svg")
    return {
        "file": "withheld_basin.svg",
        "title": "The 1944 question",
        "caption": "Energy error of wind and temperature downstream of the basin, by lead.",
        "wrong_if": "the line without the basin lies below the other.",
    }
