"""The dynamics in fewer bits: rounded Legendre and Fourier tables, operands, and stored state.

Arithmetic stays in the transform's dtype; what is rounded is what a narrow machine would hold:
the tables, what goes into a transform, and the two time levels between steps. Two cures from the
literature are offered: the smallest total wavenumbers kept whole (Hatfield, Chantry, Dueben and
Palmer 2019, PASC '19) and compensated sums over the steps (Kloewer, Hatfield, Croci, Dueben and
Palmer 2022, J. Adv. Model. Earth Syst. 14, e2021MS002684).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from apps.weather.atmosphere.grid import GaussianGrid
from apps.weather.atmosphere.spectral import HarmonicTransform
from apps.weather.atmosphere.state import State
from apps.weather.atmosphere.stepping import TimeLevels
from core.precision import round_to_format

Rounding = Literal["nearest", "stochastic", "compensated"]


def scaled_round(
    x: Tensor,
    name: str,
    *,
    rounding: Literal["nearest", "stochastic"] = "nearest",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Round to a format after a power of two has put the largest entry of each level near 2^10.

    The scale is exact and keeps vorticities of 1e-5 s-1 within the range of float16.
    """
    largest = x.abs().flatten(0, -2).amax(0)
    scale = torch.exp2(10.0 - torch.where(largest > 0, largest, 1.0).log2().floor())
    return round_to_format(x * scale, name, rounding=rounding, generator=generator) / scale


class RoundedTransform(HarmonicTransform):
    """A transform whose tables, or whose operands too, hold fewer bits.

    Parameters
    ----------
    grid : GaussianGrid
    tables, operands : str, optional
        Formats of `core.precision`; those of `dtype` without them.
    keep : int
        Legendre functions of total wavenumber below it stay whole.
    """

    def __init__(
        self,
        grid: GaussianGrid,
        *,
        tables: str | None = None,
        operands: str | None = None,
        keep: int = 0,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__(grid, dtype=dtype)
        self.operands = operands
        if tables is not None:
            waves = ("_to_even", "_to_odd", "_from_even", "_from_odd")
            for name in (*waves, "_project", "_evaluate"):
                table = getattr(self, name)
                rounded = round_to_format(table, tables)
                if name == "_project":
                    rounded[..., :keep, :] = table[..., :keep, :]
                elif name == "_evaluate":
                    rounded[..., :keep] = table[..., :keep]
                setattr(self, name, rounded)

    def _operand(self, x: Tensor) -> Tensor:
        return x if self.operands is None else scaled_round(x, self.operands)

    def analyse_full(self, field: Tensor) -> Tensor:
        """Analyse what is left of a field in the operands' format."""
        return super().analyse_full(self._operand(field))

    def synthesise(self, coefficient: Tensor) -> Tensor:
        """Synthesise what is left of coefficients in the operands' format."""
        return super().synthesise(self._operand(coefficient))


class Storage:
    """Rounds both time levels as they are put away between steps; call it after each.

    Parameters
    ----------
    name : str
        Format of `core.precision`.
    rounding : str
        ``nearest``, ``stochastic``, or ``compensated``: the error of each rounding is kept, in
        the same format, and taken from the next value of the same chain of steps.
    keep : int
        Coefficients of total wavenumber below it stay whole.
    generator : torch.Generator, optional
        Of stochastic rounding.
    """

    def __init__(
        self,
        name: str,
        *,
        rounding: Rounding = "nearest",
        keep: int = 0,
        generator: torch.Generator | None = None,
    ):
        self.name, self.keep, self.generator = name, keep, generator
        self.rounding: Literal["nearest", "stochastic"] = (
            "stochastic" if rounding == "stochastic" else "nearest"
        )
        self.compensated = rounding == "compensated"
        # errors of the previous and the current time level
        self._error: tuple[State, State] | None = None

    def _round(self, x: Tensor) -> Tensor:
        out = scaled_round(x, self.name, rounding=self.rounding, generator=self.generator)
        out[:, :, : self.keep] = x[:, :, : self.keep]
        return out

    def __call__(self, levels: TimeLevels) -> TimeLevels:
        """Give the levels as they come back from the store."""
        stored, error = [], []
        # the old current level becomes the previous one; the new one grew out of the old previous
        before = self._error and (self._error[1], self._error[0])
        for i, level in enumerate((levels.previous, levels.current)):
            wanted = level
            if before:
                wanted = State(*(x - e for x, e in zip(level, before[i], strict=True)))
            kept = wanted.map(self._round)
            stored.append(kept)
            error.append(State(*(self._round(a - b) for a, b in zip(kept, wanted, strict=True))))
        if self.compensated:
            self._error = (error[0], error[1])
        return TimeLevels(stored[0], stored[1], levels.n_step)
