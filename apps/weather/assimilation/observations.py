"""Where and what is observed, and what a state of the model would show there."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from apps.weather.model import Model
from core.errors import DataError

# Quantities of a column, as `cycle.fields_of` lays them side by side; the last has one level.
KINDS = ("u", "v", "temperature", "humidity", "surface_pressure")
SURFACE = KINDS.index("surface_pressure")


class Places(NamedTuple):
    """Observations without their values, float64 [observation] each."""

    latitude: Tensor
    """Degrees north, -90..90."""
    longitude: Tensor
    """Degrees east, -180..360."""
    sigma: Tensor
    """0..1; of no meaning for surface pressure."""
    kind: Tensor
    """int64, index into `KINDS`."""
    error: Tensor
    """Standard deviation, in the unit of the quantity."""

    def take(self, index: Tensor) -> Places:
        """Those observations alone."""
        return Places(*(field[index] for field in self))

    def check(self) -> None:
        """Raise DataError that names the first observation outside the domain."""
        bounds = {"latitude": (-90.0, 90.0), "longitude": (-180.0, 360.0), "sigma": (0.0, 1.0)}
        bounds["kind"] = (0, len(KINDS) - 1)
        for name, (low, high) in bounds.items():
            values = getattr(self, name)
            # written so that NaN is outside, too
            bad = torch.nonzero(~((values >= low) & (values <= high)))
            if len(bad):
                i = int(bad[0])
                raise DataError(
                    f"observation {i}: {name} is {float(values[i]):g}, outside the domain "
                    f"{low:g}..{high:g}; drop it or mend its unit ({len(bad)} of {len(values)})"
                )
        bad = torch.nonzero(~((self.error > 0) & self.error.isfinite()))
        if len(bad):
            i = int(bad[0])
            raise DataError(
                f"observation {i}: error is {float(self.error[i]):g}, expected a standard "
                "deviation above nought; give each observation its error"
            )


def join(parts: list[Places]) -> Places:
    """Put networks one after another."""
    return Places(*(torch.cat(fields) for fields in zip(*parts, strict=True)))


def in_box(places: Places, south: float, north: float, west: float, east: float) -> Tensor:
    """Whether each lies in a box (degrees), bool [observation]; `east` may exceed 360."""
    inside = (places.latitude >= south) & (places.latitude <= north)
    return inside & ((places.longitude - west) % 360.0 < east - west)


class ObservationOperator:
    """Interpolates fields [member, column, K] to places: bilinear, and linear in sigma.

    Poleward of the last latitude, above the first level and below the last the nearest holds.
    """

    def __init__(self, model: Model, places: Places):
        places.check()
        grid, n_level = model.grid, model.levels.n_level
        latitude, full = grid.latitude, torch.from_numpy(model.levels.full.copy())
        south, share_lat = _bracket(latitude, torch.deg2rad(places.latitude))
        top, share_level = _bracket(full, places.sigma)
        x = (places.longitude % 360.0) / 360.0 * grid.n_lon
        west = x.floor().long() % grid.n_lon
        share_lon = x - x.floor()
        surface = places.kind == SURFACE
        width = 4 * n_level + 1
        index, weight = [], []
        for d_lon, d_lat, d_level in ((i, j, k) for i in (0, 1) for j in (0, 1) for k in (0, 1)):
            column = (west + d_lon) % grid.n_lon * grid.n_lat + south + d_lat
            level = torch.where(surface, 0, top + d_level)
            index.append(column * width + places.kind * n_level + level)
            parts = ((share_lon, d_lon), (share_lat, d_lat), (share_level, d_level))
            lon, lat, height = (share if d else 1.0 - share for share, d in parts)
            weight.append(lon * lat * height)
        self.index, self.weight = torch.stack(index), torch.stack(weight)

    def __call__(self, fields: Tensor) -> Tensor:
        """Give what each member shows, [member, observation]."""
        flat = fields.reshape(len(fields), -1)
        return (flat[:, self.index] * self.weight.to(fields)).sum(1)


def _bracket(axis: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """Index of the point of a rising axis below `at`, and the share of the one above."""
    low = (torch.searchsorted(axis, at.contiguous(), right=True) - 1).clamp(0, len(axis) - 2)
    share = (at - axis[low]) / (axis[low + 1] - axis[low])
    return low, share.clamp(0.0, 1.0)
