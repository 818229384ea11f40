"""Pictures of a free run: where waves go, and how energy lies over the scales."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from apps.lab.figures import new_figure, save_svg
from apps.weather.forecast.netcdf import Snapshot
from apps.weather.model import Model, ModelState

WAVE_LATITUDE = 45.0  # degrees north
UPPER_SIGMA = 0.25


def kinetic_spectrum(model: Model, state: ModelState) -> Tensor:
    """Give the kinetic energy by total wavenumber, m2 s-2, float64 [n, level].

    ``1/2 a^2 / (n (n + 1)) (|vorticity|^2 + |divergence|^2)`` summed over zonal wavenumbers: the
    sum over n is the global mean of (u^2 + v^2) / 2 (Lambert 1984, Atmos.-Ocean 22, 411).
    """
    transform, level = model.transform, state.levels.current
    square = (level.vorticity.double().square() + level.divergence.double().square()).sum(0)
    square[1:] *= 2.0  # m and -m
    inverse = -transform.inverse_laplacian_factor[0, :, 0].double()
    return 0.5 * inverse.unsqueeze(-1) * square.sum(0)


def spectrum_figure(folder: Path, model: Model, state: ModelState) -> dict[str, str]:
    """Draw the spectrum of the last state at three heights, with the slope of two dimensions."""
    figure, (ax,) = new_figure(height_inch=3.4)
    spectrum = kinetic_spectrum(model, state).cpu().numpy()
    n = np.arange(1, model.grid.truncation + 1)
    full = model.levels.full
    for sigma in (UPPER_SIGMA, 0.5, 0.9):
        k = int(np.abs(full - sigma).argmin())
        ax.loglog(n, spectrum[1 : len(n) + 1, k], label=f"sigma {full[k]:.2f}")
    eddies = n[n >= min(8, n[-1])]
    slope = spectrum[eddies[0]].max() * (eddies / eddies[0]) ** -3.0
    ax.loglog(eddies, slope, color="#000000", linewidth=0.6, linestyle=":", label="n^-3")
    ax.set(xlabel="total wavenumber", ylabel="kinetic energy, m2 s-2")
    ax.legend()
    save_svg(figure, folder / "spectrum.svg")
    return {
        "file": "spectrum.svg",
        "title": "Kinetic energy by scale",
        "caption": "Last state of the run; the dotted line falls as two-dimensional eddies do.",
        "wrong_if": "the tail bends upward: the smallest scales gather energy",
    }


def hovmoller_figure(folder: Path, model: Model, taken: Sequence[Snapshot]) -> dict[str, str]:
    """Draw the northward wind aloft along one latitude by time, which shows groups of waves."""
    latitude = np.degrees(model.grid.latitude.numpy())
    row = int(np.abs(latitude - WAVE_LATITUDE).argmin())
    k = int(np.abs(model.levels.full - UPPER_SIGMA).argmin())
    wind = np.stack([s.fields["northward_wind"][k, row] for s in taken])
    day = [s.time_s / 86400.0 for s in taken]
    figure, (ax,) = new_figure(height_inch=4.0)
    most = max(float(np.abs(wind).max()), 1e-12)
    drawn = ax.pcolormesh(
        np.degrees(model.grid.longitude.numpy()), day, wind, cmap="RdBu_r", vmin=-most, vmax=most,
        shading="nearest", rasterized=True,
    )  # fmt: skip
    ax.set(xlabel="longitude", ylabel="day", ylim=(day[-1], day[0]) if len(day) > 1 else None)
    ax.grid(visible=False)
    figure.colorbar(drawn, ax=ax, label="m s-1")
    save_svg(figure, folder / "hovmoller.svg")
    return {
        "file": "hovmoller.svg",
        "title": f"Northward wind at {latitude[row]:.0f} degrees, sigma {model.levels.full[k]:.2f}",
        "caption": "Hovmoller diagram of the last file: waves move along the stripes.",
        "wrong_if": "stripes stand upright from first to last, or alternate from day to day",
    }


def map_figure(folder: Path, model: Model, last: Snapshot) -> dict[str, str]:
    """Draw the weather of one time: air near the ground in colour, surface pressure in lines."""
    lon, lat = (np.degrees(x.numpy()) for x in (model.grid.longitude, model.grid.latitude))
    figure, (ax,) = new_figure(height_inch=3.4)
    drawn = ax.pcolormesh(
        lon, lat, last.fields["temperature"][-1], cmap="viridis", shading="nearest",
        rasterized=True,
    )  # fmt: skip
    pressure = 0.01 * last.fields["surface_pressure"]
    if float(np.ptp(pressure)) > 1.0:
        lines = ax.contour(
            lon, lat, pressure, levels=np.arange(900, 1100, 8), colors="#ffffff", linewidths=0.7
        )
        ax.clabel(lines, fontsize=6, fmt="%.0f")
    ax.set(xlabel="longitude", ylabel="latitude")
    ax.grid(visible=False)
    figure.colorbar(drawn, ax=ax, label="temperature, K")
    save_svg(figure, folder / "map.svg")
    return {
        "file": "map.svg",
        "title": f"Lowest air and surface pressure (hPa), day {last.time_s / 86400.0:g}",
        "caption": "Temperature of the lowest layer; lines of equal surface pressure every 8 hPa.",
        "wrong_if": "there are no closed lows between 30 and 70 degrees, or stripes of one grid "
        "length",
    }


def zonal_figure(folder: Path, model: Model, taken: Sequence[Snapshot]) -> dict[str, str]:
    """Draw zonal means over the times given: eastward wind in colour, temperature in lines."""
    lat, sigma = np.degrees(model.grid.latitude.numpy()), model.levels.full
    u, t = (
        np.mean([s.fields[name].mean(-1) for s in taken], axis=0)
        for name in ("eastward_wind", "temperature")
    )
    figure, (ax,) = new_figure(height_inch=3.4)
    most = max(float(np.abs(u).max()), 1e-12)
    drawn = ax.pcolormesh(
        lat, sigma, u, cmap="RdBu_r", vmin=-most, vmax=most, shading="nearest", rasterized=True
    )
    if float(np.ptp(t)) > 1.0:
        lines = ax.contour(
            lat, sigma, t, levels=np.arange(150, 330, 10), colors="#000000", linewidths=0.6
        )
        ax.clabel(lines, fontsize=6, fmt="%.0f")
    ax.set(xlabel="latitude", ylabel="sigma", ylim=(1.0, 0.0))
    ax.grid(visible=False)
    figure.colorbar(drawn, ax=ax, label="eastward wind, m/s")
    save_svg(figure, folder / "zonal_mean.svg")
    return {
        "file": "zonal_mean.svg",
        "title": "Zonal mean wind and temperature (K)",
        "caption": "Mean over the last file; lines of equal temperature every 10 K.",
        "wrong_if": "the two hemispheres differ much on a sea that is even about the equator, or "
        "the trade winds blow from the west",
    }
