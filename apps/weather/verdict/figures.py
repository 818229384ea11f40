"""Pictures of the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from apps.lab.figures import COLORS, new_figure, save_svg

if TYPE_CHECKING:
    from xarray import Dataset

    from apps.weather.atmosphere.grid import GaussianGrid

LEARNED = "learned"


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


def map_figure(
    folder: Path,
    card: Dataset,
    truth: np.ndarray,
    forecasts: Mapping[str, np.ndarray],
    grid: GaussianGrid,
    *,
    day: int,
    variable: str = "z500",
) -> dict[str, str]:
    """Draw the truth of one day, and what each of some forecasts for it has wrong.

    `truth` and each of `forecasts` are [lead, variable, lat, lon] from one date.
    """
    names = list(card.variable.values)
    k, unit = names.index(variable), str(card.unit.sel(variable=variable).values)
    lon, lat = (np.degrees(x.numpy()) for x in (grid.longitude, grid.latitude))
    figure, axes = new_figure(1, 1 + len(forecasts), width_inch=9.6, height_inch=2.6)
    true = truth[day, k]
    errors = {name: field[day, k] - true for name, field in forecasts.items()}
    most = max(float(np.abs(error).max()) for error in errors.values()) or 1e-12
    style: dict[str, Any] = {"shading": "nearest", "rasterized": True}
    drawn = axes[0].pcolormesh(lon, lat, true, cmap="viridis", **style)
    axes[0].set(title=f"truth, {variable}", ylabel="latitude")
    figure.colorbar(drawn, ax=axes[0], label=unit)
    for ax, (name, error) in zip(axes[1:], errors.items(), strict=True):
        drawn = ax.pcolormesh(lon, lat, error, cmap="RdBu_r", vmin=-most, vmax=most, **style)
        ax.set(title=f"error, {name.replace('_', ' ')}")
    figure.colorbar(drawn, ax=axes[-1], label=unit)
    for ax in axes:
        ax.set_xlabel("longitude")
        ax.grid(visible=False)
    save_svg(figure, folder / "map.svg")
    return {
        "file": "map.svg",
        "title": f"{variable} on day {day} of the first forecast",
        "caption": (
            "The truth of that day and, on one scale, what forecasts with other radiation that "
            "started from it have wrong."
        ),
        "wrong_if": (
            "the truth shows no waves between 30 and 70 degrees, errors have stripes of one grid "
            "length, or the learned scheme's is as large as the coarse one's"
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


def bias_and_noise(runs: Mapping[str, Dataset], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Give the learned run's mean less that of the others, and the variance of one more of them."""
    stack = np.stack([r[name].values.mean(0) for label, r in runs.items() if label != LEARNED])
    bias = runs[LEARNED][name].values.mean(0) - stack.mean(0)
    return bias, stack.var(0, ddof=1) * (1.0 + 1.0 / len(stack))


def section_figure(folder: Path, runs: Mapping[str, Dataset]) -> dict[str, str]:
    """Draw where the learned run's zonal means differ from those of the exact ones."""
    figure, axes = new_figure(1, 2, width_inch=8.0, height_inch=3.2)
    learned = runs[LEARNED]
    for ax, name in zip(axes, ("temperature", "u"), strict=True):
        bias, variance = bias_and_noise(runs, name)
        most = max(float(np.abs(bias).max()), 1e-12)
        drawn = ax.pcolormesh(
            learned.lat, learned.level, bias, cmap="RdBu_r", vmin=-most, vmax=most,
            shading="nearest", rasterized=True,
        )  # fmt: skip
        row, column = np.nonzero(bias**2 < 4.0 * variance)
        ax.scatter(learned.lat[column], learned.level[row], s=3, color="#000000", linewidths=0)
        unit = learned[name].units
        ax.set(title=f"{name}, {unit}", xlabel="latitude", ylabel="sigma", ylim=(1.0, 0.0))
        ax.grid(visible=False)
        figure.colorbar(drawn, ax=ax)
    save_svg(figure, folder / "zonal_sections.svg")
    return {
        "file": "zonal_sections.svg",
        "title": "Zonal mean bias",
        "caption": (
            "Learned run less the mean of the exact ones. Dots: less than twice what one more "
            "exact run would differ by."
        ),
        "wrong_if": "no dots at all, or a stripe in one level from pole to pole",
    }


def zonal_figure(folder: Path, runs: Mapping[str, Dataset]) -> dict[str, str]:
    """Draw rain and the fluxes at the top by latitude, every run."""
    figure, axes = new_figure(1, 3, width_inch=9.0, height_inch=2.8)
    for ax, name in zip(axes, ("precipitation", "olr", "asr"), strict=True):
        for label, data in runs.items():
            is_learned = label == LEARNED
            ax.plot(
                data.lat,
                data[name].mean("day"),
                color=COLORS[0] if is_learned else COLORS[5],
                linewidth=1.4 if is_learned else 0.8,
                label=label.replace("_", " "),
            )
        ax.set(title=name, xlabel="latitude", ylabel=data[name].units)
    axes[0].legend()
    save_svg(figure, folder / "zonal_means.svg")
    return {
        "file": "zonal_means.svg",
        "title": "Rain and radiation at the top, zonal means",
        "caption": "The learned run and each run of the exact scheme.",
        "wrong_if": "the learned line leaves the others by more than they leave each other",
    }


def audit_figure(
    folder: Path, history: Sequence[Mapping[str, float]], per_day: int
) -> dict[str, str]:
    """Draw the error of the running scheme by day."""
    figure, (ax,) = new_figure(height_inch=3.0)
    day = [row["call"] / per_day for row in history]
    for kind, label in (("lw", "longwave"), ("sw", "shortwave, by day")):
        values = [row[f"{kind}_rmse_k_per_day"] for row in history]
        ax.plot(day, values, marker="o", markersize=3, label=label)
    ax.set(xlabel="day", ylabel="RMSE of heating, K/day", ylim=(0.0, None))
    ax.legend()
    save_svg(figure, folder / "audit.svg")
    return {
        "file": "audit.svg",
        "title": "Audit of the running scheme",
        "caption": "Learned against exact heating on columns drawn while the model ran.",
        "wrong_if": "a line rises with the days: the run leaves what the network was trained on",
    }
