"""Fine-tuning in the model: a forecast's error is the loss, its gradient comes back through it.

Training on columns counts every error of the heating alike. A forecast does not: what comes and
goes averages out, what stays adds up. So the trained network runs in the model for some hours from
states of the exact scheme's run, and the error of the temperature at the end flows back through
dynamics and physics into its weights (as in Kochkov et al. 2024, Nature 632, 1060).

What the network reads is taken as given: no gradient goes round through its inputs, whose roots
have none where there is no vapour or no cloud. `tests/apps/weather/learned/test_online.py` holds
the gradient against finite differences, over one radiation call, where it is whole, and over more.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from apps.lab.progress import track
from apps.weather.learned.emulator import Emulator, features, result_from_targets
from apps.weather.learned.fitting import Batch, formats_of, training_loss
from apps.weather.model import Model, ModelState
from apps.weather.physics import Clouds, Columns, Physics, RadiationResult


class Window(NamedTuple):
    """A start on the exact scheme's run, and what that run became.

    Attributes
    ----------
    start : ModelState
        Without radiation, so that the network is called at once.
    temperature : Tensor [2, m, n, level]
        Coefficients at the end of the window, K.
    """

    start: ModelState
    temperature: Tensor


class LearningRadiation:
    """A network in training in the place of the exact scheme, through which gradients flow.

    Parameters
    ----------
    emulator : Emulator
        Used as it is, not frozen: whoever moves its weights moves the forecast.
    clouds : Clouds, optional
    """

    def __init__(self, emulator: Emulator, clouds: Clouds | None = None) -> None:
        self.emulator, self.clouds = emulator, clouds or Clouds()

    def __call__(self, columns: Columns) -> RadiationResult:
        """Heating rates and fluxes; the gradient is that of the weights alone."""
        net = self.emulator
        with torch.no_grad():
            scaled = net.scaled(features(columns, self.clouds))
        return result_from_targets(net(scaled) * net.output_scale + net.output_mean, columns)


def windows(
    model: Model, start: ModelState, *, n_window: int, spacing_step: int, n_step: int
) -> list[Window]:
    """Run the exact scheme on from `start` and keep a window of `n_step` every `spacing_step`.

    Both are whole numbers of radiation intervals, so that truth and forecast call radiation at the
    same times.
    """
    states, ends = {}, {}
    state = start
    last = (n_window - 1) * spacing_step + n_step
    interval = model.n_step_radiation
    with torch.no_grad():
        for i in track(range(0, last + 1, interval), "windows, radiation calls"):
            if i % spacing_step == 0 and i // spacing_step < n_window:
                states[i] = state._replace(radiation=None)
            if (i - n_step) % spacing_step == 0 and i >= n_step:
                ends[i - n_step] = state.levels.current.temperature
            if i < last:
                state = model.run(state, interval * model.dt)
    return [Window(states[i], ends[i]) for i in states]


def rollout(model: Model, state: ModelState, n_step: int) -> ModelState:
    """Advance by `n_step` steps so that gradients can come back.

    Only the states at radiation calls are kept: the steps between are done again on the way back,
    which holds memory at one interval's whatever the length.
    """

    def advance(state: ModelState, n: int) -> ModelState:
        for _ in range(n):
            state = model.step(state)
        return state

    for first in range(0, n_step, model.n_step_radiation):
        n = min(model.n_step_radiation, n_step - first)
        if torch.is_grad_enabled():
            state = checkpoint(advance, state, n, use_reentrant=False)
        else:
            state = advance(state, n)
    return state


def forecast_error(model: Model, window: Window, n_step: int) -> Tensor:
    """Give the mean square error of temperature at the window's end, K2, by mass of air.

    `model` has the network as its radiation (`LearningRadiation`).
    """
    end = rollout(model, window.start, n_step).levels.current.temperature
    error = model.transform.synthesise(end - window.temperature)
    area = model.transform.tensor(model.grid.area_weight)
    return ((error.square() @ model.equations.thickness) * area).sum()


@torch.no_grad()
def window_rmse(model: Model, held: Sequence[Window], n_step: int) -> float:
    """Give the root mean square error of temperature, K, at the end of some windows."""
    found = [float(forecast_error(model, window, n_step)) for window in held]
    return math.sqrt(sum(found) / len(found))


def learner(emulator: Emulator) -> Emulator:
    """Give a copy whose weights may move: those of layers of 8 bits and fewer stay as rounded.

    A recurrent network has no such order of layers: it learns around its rounding anew.
    """
    narrow = [i for i in emulator.layers() if emulator.format_of(i).needs_scale]
    if not narrow:
        return copy.deepcopy(emulator).train()
    out = emulator.with_formats("fp32", formats_of(emulator.spec)[1])
    for i in narrow:
        out.net[i].requires_grad_(False)
    return out.train()


class OnlineLoss:
    """Error of forecasts plus that on columns, each over what it was before.

    Heating alone moves a forecast over a sea of fixed temperature: without the second part nothing
    would hold the fluxes at the top, nor the climates that the windows do not visit.

    Parameters
    ----------
    model : Model
        The truth's model; its physics becomes that of the network in training.
    emulator : Emulator
        In training.
    n_step : int
        Of a window.
    held : sequence of Window
        Not trained on; their error before is the unit of the first part.
    columns : tuple of Tensor
        Features, targets and weights (`fitting.tensors_of`); their error before is the unit of
        the second.
    anchor : float
        Weight of the second part.
    """

    def __init__(
        self,
        model: Model,
        emulator: Emulator,
        *,
        n_step: int,
        held: Sequence[Window],
        columns: Batch,
        anchor: float,
    ) -> None:
        self.model, self.n_step, self.anchor = model, n_step, anchor
        self.held, self.columns = held, columns
        model.physics = Physics(LearningRadiation(emulator))
        self.unit = self.unit_columns = 1.0
        emulator.eval()
        before = self.validate(emulator)
        self.unit, self.unit_columns = before["valid_forecast"], before["valid_columns"]

    def __call__(self, net: torch.nn.Module, batch: tuple[Sequence[Window], Batch]) -> Tensor:
        """Give the loss of some windows and some columns."""
        found = [forecast_error(self.model, window, self.n_step) for window in batch[0]]
        forecast = torch.stack(found).mean() / self.unit
        return forecast + self.anchor * training_loss(net, batch[1]) / self.unit_columns

    @torch.no_grad()
    def validate(self, net: torch.nn.Module) -> dict[str, float]:
        """Give the loss of the held windows and columns, and its two parts, 1 before training."""
        forecast = window_rmse(self.model, self.held, self.n_step) ** 2 / self.unit
        columns = float(training_loss(net, self.columns)) / self.unit_columns
        return {
            "valid_loss": forecast + self.anchor * columns,
            "valid_forecast": forecast,
            "valid_columns": columns,
        }


def epoch_order(n: int, seed: int) -> Callable[[int], list[int]]:
    """Give the order in which an epoch takes `n` windows, by epoch alone."""

    def order(epoch: int) -> list[int]:
        source = torch.Generator().manual_seed(1_000_003 * seed + epoch)
        return torch.randperm(n, generator=source).tolist()

    return order
