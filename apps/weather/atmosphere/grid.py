"""The Gaussian grid: latitudes at the Gauss-Legendre nodes, equally spaced longitudes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from core.errors import ConfigError

# Largest truncation that a quadratic product resolves without aliasing: 3 T + 1 <= n_lon,
# with n_lon a product of small factors and n_lat = n_lon / 2.
_N_LON = {5: 16, 10: 32, 21: 64, 31: 96, 42: 128, 63: 192}
# The implicit solve holds a matrix of levels by levels for every total wavenumber; forecast models
# have some 140.
MOST_LEVELS = 200


@dataclass(frozen=True)
class GaussianGrid:
    """A quadratic Gaussian grid for triangular truncation `truncation` (T21: 64 x 32).

    Letters used in shapes: lon, lat (south to north), level (top first), m and n (zonal and total
    wavenumber). Grid fields are laid out [lon, lat, level] so that the level is contiguous and
    a reshape, without a copy, gives the physics its [column, level].
    """

    truncation: int

    def __post_init__(self) -> None:
        if self.truncation not in _N_LON:
            known = ", ".join(f"T{t}" for t in _N_LON)
            raise ConfigError(
                f"GaussianGrid: truncation must be one of {known}, got T{self.truncation}; "
                "choose the nearest"
            )

    @property
    def n_lon(self) -> int:
        """Number of longitudes."""
        return _N_LON[self.truncation]

    @property
    def n_lat(self) -> int:
        """Number of latitudes."""
        return self.n_lon // 2

    @cached_property
    def _nodes(self) -> tuple[np.ndarray, np.ndarray]:
        nodes, weights = np.polynomial.legendre.leggauss(self.n_lat)
        return nodes, weights

    @cached_property
    def sin_latitude(self) -> Tensor:
        """float64 [lat], the Gauss nodes, south to north."""
        return torch.from_numpy(self._nodes[0].copy())

    @cached_property
    def latitude(self) -> Tensor:
        """float64 [lat], radian."""
        return torch.arcsin(self.sin_latitude)

    @cached_property
    def longitude(self) -> Tensor:
        """float64 [lon], radian, from 0 eastward."""
        return torch.arange(self.n_lon, dtype=torch.float64) * (2.0 * np.pi / self.n_lon)

    @cached_property
    def area_weight(self) -> Tensor:
        """float64 [lon, lat], sums to one."""
        weight = torch.from_numpy(self._nodes[1].copy()) / 2.0
        return (weight / self.n_lon).expand(self.n_lon, self.n_lat).contiguous()

    def mean(self, field: Tensor) -> Tensor:
        """Area mean over the first two axes of [lon, lat, ...], summed in float64."""
        weight = self.area_weight.to(field.device).reshape(
            self.n_lon, self.n_lat, *[1] * (field.dim() - 2)
        )
        return (field.double() * weight).sum(dim=(0, 1))

    def __str__(self) -> str:
        return f"T{self.truncation} ({self.n_lon} x {self.n_lat})"


def parse_resolution(resolution: str) -> tuple[int, int]:
    """Split ``"T21L8"`` into truncation 21 and 8 levels; ConfigError otherwise.

    Examples
    --------
    >>> parse_resolution("T21L8")
    (21, 8)
    """
    match = re.fullmatch(r"T(\d+)L(\d+)", resolution)
    if match is None or not 2 <= int(match[2]) <= MOST_LEVELS:
        known = ", ".join(f"T{t}" for t in _N_LON)
        raise ConfigError(
            f"resolution must look like T21L8 (truncation, levels, two to {MOST_LEVELS}), got "
            f"{resolution!r}; known grids are {known}"
        )
    return int(match[1]), int(match[2])
