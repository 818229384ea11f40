"""Sigma levels and the two matrices of the vertical scheme.

The hydrostatic sum is geopotential = R `hydrostatic` @ Tv; the work of pressure uses the mass
weighted transpose of the same matrix, which makes the exchange of kinetic and internal energy
exact whatever the matrix is. Two choices of it are offered: Simmons and Burridge 1981 (Mon. Wea.
Rev. 109, 758, equations 3.17 and 3.18 with the top half level at zero pressure), and the
trapezoidal rule in ln sigma between full levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from core.errors import ConfigError

VERTICAL_SCHEMES = ("simmons-burridge", "trapezoidal")


@dataclass(frozen=True)
class SigmaLevels:
    """Layers between half levels `half` (0 at the top, 1 at the surface), top first."""

    half: tuple[float, ...]
    scheme: str = "simmons-burridge"

    def __post_init__(self) -> None:
        steps = np.diff(self.half)
        if len(self.half) < 2 or self.half[0] != 0.0 or self.half[-1] != 1.0 or steps.min() <= 0:
            raise ConfigError(
                "SigmaLevels: half must rise strictly from 0 (top) to 1 (surface), "
                f"got {tuple(round(value, 4) for value in self.half)}; list it top first"
            )
        if self.scheme not in VERTICAL_SCHEMES:
            raise ConfigError(
                f"SigmaLevels: scheme must be one of {VERTICAL_SCHEMES}, got {self.scheme!r}"
            )

    @classmethod
    def equidistant(cls, n_level: int, scheme: str = "simmons-burridge") -> SigmaLevels:
        """Layers of equal mass, as Held and Suarez 1994 prescribe."""
        return cls(tuple(i / n_level for i in range(n_level + 1)), scheme)

    @classmethod
    def of(cls, half: Sequence[float], scheme: str = "simmons-burridge") -> SigmaLevels:
        """Layers from any sequence of half levels."""
        return cls(tuple(float(value) for value in half), scheme)

    @property
    def n_level(self) -> int:
        """Number of layers."""
        return len(self.half) - 1

    @cached_property
    def full(self) -> np.ndarray:
        """Sigma of the layer centres, float64 [level]."""
        half = np.array(self.half)
        return 0.5 * (half[1:] + half[:-1])

    @cached_property
    def thickness(self) -> np.ndarray:
        """Layer depths in sigma, float64 [level], sum one."""
        return np.diff(self.half)

    @cached_property
    def hydrostatic(self) -> np.ndarray:
        """Geopotential / R from virtual temperature, float64 [level, level]."""
        n, half, full = self.n_level, np.array(self.half), self.full
        matrix = np.zeros((n, n))
        if self.scheme == "simmons-burridge":
            depth = np.zeros(n)
            depth[1:] = np.log(half[2:] / half[1:-1])
            inside = np.full(n, np.log(2.0))
            inside[1:] = 1.0 - half[1:-1] / self.thickness[1:] * depth[1:]
            for k in range(n):
                matrix[k, k] = inside[k]
                matrix[k, k + 1 :] = depth[k + 1 :]
            return matrix
        step = np.append(np.log(full[1:] / full[:-1]), -np.log(full[-1]))
        for k in range(n):
            for j in range(k, n - 1):
                matrix[k, j] += 0.5 * step[j]
                matrix[k, j + 1] += 0.5 * step[j]
            matrix[k, n - 1] += step[n - 1]
        return matrix

    @cached_property
    def conversion(self) -> np.ndarray:
        """-omega/p of a column from its mass convergence, float64 [level, level].

        ``omega/p = v . grad ln p_s - conversion @ (D + v . grad ln p_s)``.
        """
        return self.hydrostatic.T * self.thickness[None, :] / self.thickness[:, None]
