"""A learned scheme under watch while the model runs.

A run that stays stable says nothing about its radiation: the state may leave what the network was
trained on, and the error grows unseen. So the exact scheme is called on some columns now and then
(the audit), and columns unlike the training's are given to it altogether (the fallback), as in
Krasnopolsky, Fox-Rabinovitz and Belochitski 2008 (Mon. Wea. Rev. 136, 3683).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from apps.weather.learned.emulator import Emulator, features
from apps.weather.learned.scores import score
from apps.weather.physics import Clouds, Columns, Radiation, RadiationResult

# How far past the range of the training a feature may lie, as a share of that range.
MARGIN = 0.05


class RangeDetector:
    """Tells columns unlike those a network was trained on: any feature beyond its range there.

    A network is at its worst beyond the range of an input. Of columns warmed at unchanged relative
    humidity it refuses 25 in 100 at 2 K and 80 at 8 K after a training in one climate. The wider
    the training, the less it says: after the default one, which reaches 8 K, it refuses none at 8 K
    (where the longwave error is 1.7 times the usual) and 1 in 150 at 16 K (4.3 times): such an
    error is for the audit to see. Ranges along principal components were tried: they refuse 1 in 6
    at 16 K, and no more of the usual columns than before, but little at 12 K.

    Parameters
    ----------
    emulator : Emulator
    columns : Columns
        Those it was trained on, or many like them.
    clouds : Clouds, optional
    """

    def __init__(self, emulator: Emulator, columns: Columns, clouds: Clouds | None = None) -> None:
        self.emulator, self.clouds = emulator, clouds or Clouds()
        scaled = self._scaled(columns)
        low, high = scaled.amin(0), scaled.amax(0)
        # what never varied is held to rounding
        slack = MARGIN * (high - low) + 1e-4
        self.low, self.high = low - slack, high + slack

    def _scaled(self, columns: Columns) -> Tensor:
        return self.emulator.scaled(features(columns, self.clouds))

    @torch.no_grad()
    def outside(self, columns: Columns) -> Tensor:
        """Whether each column is unlike those of the training, or not finite, bool [column]."""
        scaled = self._scaled(columns)
        return ~((scaled >= self.low) & (scaled <= self.high)).all(1)


class AuditedRadiation:
    """A learned scheme that is checked while it runs, and replaced where it knows nothing.

    Parameters
    ----------
    learned, exact : Radiation
    detector : RangeDetector, optional
        Columns outside its range get the exact scheme; none do without it.
    every : int
        Calls from audit to audit.
    n_column : int
        Columns drawn for an audit.
    generator : torch.Generator

    Attributes
    ----------
    history : list of dict of str to float
        By audit: `call`, the metrics of `scores.score`, and `share_outside` of the columns since
        the audit before.
    """

    def __init__(
        self,
        learned: Radiation,
        exact: Radiation,
        *,
        detector: RangeDetector | None = None,
        every: int = 8,
        n_column: int = 256,
        generator: torch.Generator,
    ) -> None:
        self.learned, self.exact, self.detector = learned, exact, detector
        self.every, self.n_column, self.generator = every, n_column, generator
        self.history: list[dict[str, float]] = []
        self.n_call = 0
        self._n_seen = self._n_outside = 0

    @torch.no_grad()
    def __call__(self, columns: Columns) -> RadiationResult:
        """Heating rates and fluxes: learned, but exact in columns that the detector refuses."""
        result = self.learned(columns)
        if self.n_call % self.every == 0:
            self._audit(columns, result)
        self.n_call += 1
        self._n_seen += len(columns.sst)
        if self.detector is not None:
            refused = torch.nonzero(self.detector.outside(columns)).squeeze(1)
            self._n_outside += len(refused)
            if len(refused):
                exact = self.exact(columns.take(refused))
                result = RadiationResult(
                    *(a.index_copy(0, refused, b) for a, b in zip(result, exact, strict=True))
                )
        return result

    def progress(self) -> dict[str, Any]:
        """Give what a later process needs to go on auditing where this one stopped."""
        counts = {"n_call": self.n_call, "n_seen": self._n_seen, "n_outside": self._n_outside}
        return {"history": self.history, **counts}

    def restore(self, progress: dict[str, Any]) -> None:
        """Go on from what `progress` gave."""
        self.history, self.n_call = list(progress["history"]), progress["n_call"]
        self._n_seen, self._n_outside = progress["n_seen"], progress["n_outside"]

    def _audit(self, columns: Columns, result: RadiationResult) -> None:
        drawn = torch.randperm(len(columns.sst), generator=self.generator)[: self.n_column]
        some = columns.take(drawn)
        part = RadiationResult(*(field[drawn] for field in result))
        row = {"call": float(self.n_call)} | score(part, self.exact(some), some.cos_zenith)
        row["share_outside"] = self._n_outside / self._n_seen if self._n_seen else 0.0
        self.history.append(row)
        self._n_seen = self._n_outside = 0
