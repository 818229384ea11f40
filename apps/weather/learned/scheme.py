"""A trained network in the place of the exact scheme."""

from __future__ import annotations

import torch

from apps.weather.learned.emulator import Emulator, features, result_from_targets
from apps.weather.learned.fused import fused
from apps.weather.physics.clouds import Clouds
from apps.weather.physics.columns import Columns, RadiationResult
from core import freeze
from core.errors import ConfigError


class LearnedRadiation:
    """A trained `Emulator` in the place of the exact scheme.

    The network gives heating and the fluxes at the top; the fluxes at the surface follow from the
    budget of the column, which is therefore closed to rounding in every number format. The
    shortwave is multiplied by the cosine of the zenith angle, so it is exactly nought by night.

    Parameters
    ----------
    emulator : Emulator
        Is frozen for inference: weights rest in their own format.
    clouds : Clouds
        As in the scheme it was trained on.
    columns_per_chunk : int
        Columns the network sees at a time on the torch route: its activations then stay in a
        core's cache.
    is_fused : bool
        Take the compiled route of `apps.weather.learned.fused` where there is one; without it
        every product is an op of torch, which a tracer sees.
    """

    def __init__(
        self,
        emulator: Emulator,
        clouds: Clouds | None = None,
        *,
        columns_per_chunk: int = 1024,
        is_fused: bool = True,
    ) -> None:
        frozen = freeze(emulator)
        assert isinstance(frozen, Emulator)
        self.emulator = frozen
        self.clouds = clouds or Clouds()
        self.columns_per_chunk = columns_per_chunk
        self.fused = fused(frozen, self.clouds) if is_fused else None

    def check_levels(self, n_level: int) -> None:
        """Raise ConfigError unless the network reads columns of `n_level` levels."""
        known = self.emulator.n_level
        if n_level != known:
            raise ConfigError(
                f"LearnedRadiation: the network was trained on columns of {known} levels, "
                f"the model has {n_level}; run the model with {known}, or train with "
                f"--set columns.resolution=...L{n_level}"
            )

    @torch.no_grad()
    def __call__(self, columns: Columns) -> RadiationResult:
        """Heating rates and fluxes; ConfigError for columns of another number of levels."""
        self.check_levels(columns.temperature.shape[1])
        found = None if self.fused is None else self.fused(columns)
        if found is not None:
            return found
        net = self.emulator
        scaled = net.scaled(features(columns, self.clouds))
        out = torch.cat([net(part) for part in scaled.split(self.columns_per_chunk)])
        return result_from_targets(out * net.output_scale + net.output_mean, columns)
