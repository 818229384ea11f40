"""What the model carries from step to step."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from core.errors import DataError


class State(NamedTuple):
    """One time level, as harmonic coefficients [2, m, n, level] (see `spectral`)."""

    vorticity: Tensor
    """Relative vorticity, s-1."""
    divergence: Tensor
    """Horizontal divergence, s-1."""
    temperature: Tensor
    """Temperature, K."""
    humidity: Tensor
    """Specific humidity, kg/kg."""
    log_pressure: Tensor
    """ln(surface pressure / `constants.MEAN_PRESSURE`), [2, m, n, 1].

    Near zero, so that float32 holds the mass to 1e-9 rather than 1e-6.
    """

    def map(self, function: Callable[[Tensor], Tensor]) -> State:
        """Apply `function` to each field."""
        return State(*map(function, self))

    def check_finite(self, who: str) -> None:
        """Raise DataError that names the first field and level holding NaN or infinity."""
        for name, field in zip(self._fields, self, strict=True):
            if not bool(torch.isfinite(field).all()):
                bad = ~torch.isfinite(field).reshape(-1, field.shape[-1]).all(0)
                level = int(torch.nonzero(bad)[0])
                raise DataError(
                    f"{who}: {name} is not finite at level {level} (0 = top); "
                    "shorten the time step or start from an earlier state"
                )


class GridState(NamedTuple):
    """One time level on the grid, [lon, lat, level]."""

    u: Tensor
    """Eastward wind, m/s."""
    v: Tensor
    """Northward wind, m/s."""
    temperature: Tensor
    """Temperature, K."""
    humidity: Tensor
    """Specific humidity, kg/kg."""
    surface_pressure: Tensor
    """Surface pressure, Pa, [lon, lat]."""
