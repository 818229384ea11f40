"""Your own sea: surface temperatures from a dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from apps.weather.boundary import SeaSurface
from core.errors import DataError

if TYPE_CHECKING:
    from xarray import Dataset

NAME = "sea_surface_temperature"
COLDEST_K, WARMEST_K = 200.0, 350.0


def sea_surface(data: Dataset, *, who: str = "dataset") -> SeaSurface:
    """Make a sea surface for `Boundary` from a dataset, bilinear between its points.

    Parameters
    ----------
    data : Dataset
        Holds `sea_surface_temperature` in K over lat and lon (degrees), on any grid. Between the
        last longitude and the first it wraps; poleward of the last latitude the nearest holds.
    who : str
        Name of the dataset in errors.

    Raises
    ------
    DataError
        If variable, unit or coordinate is missing or another, or a value is no temperature of a
        sea in K (a missing value over land is none).
    """
    if NAME not in data:
        raise DataError(
            f"{who}: variable {NAME!r} is missing; it has "
            f"{', '.join(sorted(map(str, data.data_vars)))}"
        )
    field = data[NAME]
    if (unit := field.attrs.get("units")) != "K":
        raise DataError(f"{who}: {NAME} is in {unit!r}, expected units 'K'; convert it")
    if set(field.dims) != {"lat", "lon"} or not {"lat", "lon"} <= set(field.coords):
        raise DataError(
            f"{who}: {NAME} must lie over lat and lon with their coordinates in degrees, it lies "
            f"over {', '.join(map(str, field.dims))}; take one time, and rename"
        )
    axes = [np.asarray(field[axis].values) for axis in ("lat", "lon")]
    whole = all(axis.dtype.kind in "iuf" and bool(np.isfinite(axis).all()) for axis in axes)
    if not (whole and len(axes[0]) > 1 and len(axes[1]) and abs(axes[0]).max() <= 90.0):
        raise DataError(
            f"{who}: {NAME} needs two latitudes or more from -90 to 90 and a longitude or more, in "
            f"degrees; its lat has {len(axes[0])} values, its lon {len(axes[1])}: all must be "
            "numbers, none missing"
        )
    field = field.assign_coords(lon=field.lon % 360.0).sortby("lon").sortby("lat")
    value = np.asarray(field.transpose("lat", "lon").values, dtype=np.float64)
    if not bool(((value > COLDEST_K) & (value < WARMEST_K)).all()):
        raise DataError(
            f"{who}: {NAME} runs from {value.min():g} to {value.max():g}, expected K between "
            f"{COLDEST_K:g} and {WARMEST_K:g} everywhere; convert it, and fill what is missing"
        )
    lat = np.radians(field.lat.values.astype(np.float64))
    lon = np.radians(field.lon.values.astype(np.float64))
    # one column more on either side, so that every longitude lies between two
    lon = np.concatenate([lon[-1:] - 2 * np.pi, lon, lon[:1] + 2 * np.pi])
    value = np.concatenate([value[:, -1:], value, value[:, :1]], axis=1)

    def at(latitude: Tensor, longitude: Tensor) -> Tensor:
        row, up = _between(lat, latitude.double().cpu().numpy())
        column, east = _between(lon, longitude.double().cpu().numpy() % (2 * np.pi))
        south, north = (
            (1.0 - east) * value[i, column] + east * value[i, column + 1] for i in (row, row + 1)
        )
        return torch.as_tensor((1.0 - up) * south + up * north).to(latitude)

    return at


def _between(axis: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index of the point of a rising axis below `at`, and the share 0..1 of the one above."""
    low = (np.searchsorted(axis, at, side="right") - 1).clip(0, len(axis) - 2)
    return low, ((at - axis[low]) / (axis[low + 1] - axis[low])).clip(0.0, 1.0)
