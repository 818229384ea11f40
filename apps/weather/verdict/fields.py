"""The fields that forecasts are judged by, on pressure levels as forecasters read them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from apps.weather.atmosphere import constants as c
from apps.weather.model import Model, ModelState


class Variable(NamedTuple):
    """One judged field: which quantity, at which pressure (Pa), in which unit."""

    quantity: str
    pressure: float | None
    unit: str


VARIABLES = {
    "z500": Variable("height", 5.0e4, "m"),
    "t850": Variable("temperature", 8.5e4, "K"),
    "t200": Variable("temperature", 2.0e4, "K"),
    "u250": Variable("u", 2.5e4, "m s-1"),
    "q700": Variable("humidity", 7.0e4, "1"),
    "ps": Variable("surface_pressure", None, "Pa"),
}


def at_pressure(field: Tensor, pressure: Tensor, target: float) -> Tensor:
    """Give `field` [..., level] where `pressure` (Pa, top first) is `target`, linear in log p.

    Beyond the first and the last level the nearest two are continued.
    """
    n = field.shape[-1]
    above = (pressure < target).sum(-1, keepdim=True).clamp(1, n - 1) - 1
    log = pressure.log()
    (x0, x1), (f0, f1) = (
        (values.gather(-1, above), values.gather(-1, above + 1)) for values in (log, field)
    )
    share = (np.log(target) - x0) / (x1 - x0)
    return (f0 + share * (f1 - f0)).squeeze(-1)


def judged_fields(model: Model, state: ModelState) -> np.ndarray:
    """Give the fields of `VARIABLES`, float32 [variable, lat, lon]."""
    grid = model.equations.to_grid(state.levels.current)
    virtual = grid.temperature * (1.0 + c.VIRTUAL * grid.humidity)
    quantities = grid._asdict() | {"height": virtual @ model.equations.hydrostatic / c.GRAVITY}
    sigma = model.transform.tensor(model.levels.full)
    pressure = grid.surface_pressure.unsqueeze(-1) * sigma
    out = [
        field if target is None else at_pressure(field, pressure, target)
        for field, target in ((quantities[v.quantity], v.pressure) for v in VARIABLES.values())
    ]
    return torch.stack(out).transpose(1, 2).float().cpu().numpy()
