"""Pictures of a trained emulator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from apps.lab.figures import COLORS, new_figure, save_svg
from apps.weather.atmosphere.grid import GaussianGrid
from apps.weather.learned.columns import LabelledColumns
from apps.weather.learned.scores import level_errors
from apps.weather.physics import RadiationResult


def profile_figure(
    folder: Path, part: LabelledColumns, results: Mapping[str, RadiationResult]
) -> dict[str, str]:
    """Draw bias and RMSE by level, longwave and shortwave, of several schemes."""
    figure, axes = new_figure(1, 2, width_inch=7.2, height_inch=3.4)
    sigma = (part.columns.pressure / part.columns.pressure_half[:, -1:]).mean(0)
    for color, (name, result) in zip(COLORS, results.items(), strict=False):
        errors = level_errors(result, part.label, part.columns.cos_zenith)
        for ax, (error, _) in zip(axes, errors.values(), strict=True):
            rmse = error.square().mean(0).sqrt()
            ax.plot(rmse, sigma, color=color, marker="o", markersize=3, label=name)
            ax.plot(error.mean(0), sigma, color=color, linestyle=":", linewidth=1.0)
    for ax, title in zip(axes, ("Longwave", "Shortwave, by day"), strict=True):
        ax.set(title=title, xlabel="heating error, K/day", ylabel="sigma")
        ax.axvline(0.0, color="#000000", linewidth=0.6)
        ax.set_ylim(1.0, 0.0)
    axes[0].legend()
    save_svg(figure, folder / "error_by_level.svg")
    return {
        "file": "error_by_level.svg",
        "title": "Error of the heating by level",
        "caption": (
            "Root mean square error (solid) and bias (dotted) of radiative heating on unseen days "
            "against converged labels: the learned scheme beside exact schemes of fewer points."
        ),
        "wrong_if": (
            "a dotted line as long as its solid one: the error is then a bias, which drifts a "
            "climate; or one level far above its neighbours."
        ),
    }


def scatter_figure(folder: Path, part: LabelledColumns, result: RadiationResult) -> dict[str, str]:
    """Draw learned against exact fluxes at the top of the atmosphere."""
    figure, axes = new_figure(1, 2, width_inch=7.2, height_inch=3.4)
    some = slice(0, 2000)
    pairs: list[tuple[str, Tensor, Tensor]] = [
        ("Outgoing longwave", part.label.toa_lw[some], result.toa_lw[some]),
        ("Absorbed shortwave", part.label.toa_sw[some], result.toa_sw[some]),
    ]
    for ax, (title, true, got) in zip(axes, pairs, strict=True):
        ax.scatter(true, got, s=2, color=COLORS[0], rasterized=True, linewidths=0)
        ends = [float(true.min()), float(true.max())]
        ax.plot(ends, ends, color="#000000", linewidth=0.8)
        ax.set(title=title, xlabel="exact, W/m2", ylabel="learned, W/m2")
    save_svg(figure, folder / "fluxes_at_the_top.svg")
    return {
        "file": "fluxes_at_the_top.svg",
        "title": "Fluxes at the top of the atmosphere",
        "caption": "Learned against exact fluxes of single columns on unseen days.",
        "wrong_if": "the cloud of points bends away from the line, or night columns leave nought.",
    }


def flux_map_figure(
    folder: Path, grid: GaussianGrid, exact: RadiationResult, learned: RadiationResult
) -> dict[str, str]:
    """Draw the outgoing longwave of one state of the whole globe, and the learned scheme's error.

    Both results are of all columns of the grid, longitude outermost.
    """
    figure, axes = new_figure(1, 2, width_inch=8.6, height_inch=2.8)
    lon, lat = (np.degrees(x.numpy()) for x in (grid.longitude, grid.latitude))
    true, got = (r.toa_lw.view(grid.n_lon, grid.n_lat).T.numpy() for r in (exact, learned))
    error = got - true
    most = float(np.abs(error).max()) or 1e-12
    style: dict[str, Any] = {"shading": "nearest", "rasterized": True}
    pictures = (
        axes[0].pcolormesh(lon, lat, true, cmap="Greys", **style),
        axes[1].pcolormesh(lon, lat, error, cmap="RdBu_r", vmin=-most, vmax=most, **style),
    )
    for ax, picture, title in zip(axes, pictures, ("exact", "learned less exact"), strict=True):
        ax.set(title=title, xlabel="longitude")
        ax.grid(visible=False)
        figure.colorbar(picture, ax=ax, label="W/m2")
    axes[0].set_ylabel("latitude")
    save_svg(figure, folder / "map.svg")
    return {
        "file": "map.svg",
        "title": "Outgoing longwave radiation, as a satellite sees the weather",
        "caption": (
            "One state of the model that no network was trained on: dark is warm sea or dry air, "
            "light are high clouds; beside it the error of the learned scheme."
        ),
        "wrong_if": "the error repeats the weather: a scheme that flattens cloudy columns",
    }


def history_figure(folder: Path, history: Sequence[Mapping[str, float]]) -> dict[str, str]:
    """Draw the loss over the epochs."""
    figure, (ax,) = new_figure(width_inch=5.2, height_inch=2.8)
    epoch = [row["epoch"] for row in history]
    ax.semilogy(epoch, [row["loss"] for row in history], label="training")
    ax.semilogy(epoch, [row["valid_loss"] for row in history], label="validation, averaged weights")
    ax.set(xlabel="epoch", ylabel="mean squared error, normalised")
    ax.legend()
    save_svg(figure, folder / "training.svg")
    return {
        "file": "training.svg",
        "title": "Training",
        "caption": "Loss on training columns and, with averaged weights, on the validation days.",
        "wrong_if": "validation turns up while training falls: the columns are learned by heart.",
    }
