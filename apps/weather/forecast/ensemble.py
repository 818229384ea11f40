"""Forecasts as datasets: a dataset of states in, a dataset of forecasts out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from apps.weather.atmosphere.constants import DAY_S
from apps.weather.forecast.netcdf import TIME_UNITS, dataset, model_state, snapshot
from apps.weather.model import Model
from core.errors import ConfigError

if TYPE_CHECKING:
    from xarray import Dataset

AXES = ("init_time", "lead_time", "member", "level", "lat", "lon")


def forecast_dataset(
    model: Model,
    start: Dataset,
    *,
    lead_h: float,
    every_h: float = 24.0,
    n_member: int = 1,
    noise_k: float = 0.0,
    seed: int = 0,
) -> Dataset:
    """Forecast from every time of a dataset, and from every member that it has.

    Parameters
    ----------
    model : Model
    start : Dataset
        As `dataset` gives or `open_dataset` reads it, on the model's own grid, with a dimension
        ``time`` and perhaps ``member``. Each time is a date from which a forecast begins.
    lead_h, every_h : float
        Length of the forecasts and hours between what is kept of them, from lead nought on.
    n_member : int
        Members made of each start that has none, each with white noise of `noise_k` added to its
        temperature (members with the balance of the model: `verdict.bred`).
    seed : int
        Of the noise.

    Returns
    -------
    Dataset
        Variables over (init_time, lead_time, member, level, lat, lon), WeatherBench's order;
        ``time`` [init_time, lead_time] is the time for which each holds. Fluxes are missing (NaN)
        at lead nought.

    Raises
    ------
    ConfigError
        If `lead_h` is not a whole number of `every_h`, that no whole number of steps, or members
        are asked for without noise or of a dataset that has its own.
    DataError
        As `model_state`, whose message names the dataset ``start``.
    """
    every = model.n_step(3600.0 * every_h, "every_h")
    n_lead = round(lead_h / every_h)
    if n_lead < 1 or abs(n_lead * every_h - lead_h) > 1e-9 * every_h:
        raise ConfigError(
            f"forecast_dataset: lead_h must be a whole number of every_h, got {lead_h:g} and "
            f"{every_h:g}; nearest is {max(1, n_lead) * every_h:g}"
        )
    own = "member" in start.dims
    if n_member > 1 and (own or noise_k <= 0.0):
        why = f"start has {start.sizes['member']} of its own" if own else "noise_k is 0"
        raise ConfigError(
            f"forecast_dataset: n_member is {n_member}, but {why}; members must differ, and come "
            "either from start or from noise"
        )
    generator = torch.Generator().manual_seed(seed)
    by_date = []
    for i in range(start.sizes["time"]):
        by_member = []
        for j in range(start.sizes["member"] if own else n_member):
            one = start.isel(member=j) if own else start
            state = model_state(model, one, index=i, who="start")
            if noise_k > 0.0:
                state = model.perturbed(state, noise_k, generator)
            taken = [snapshot(model, state)]
            for _ in range(n_lead):
                state = model.run(state, every * model.dt)
                taken.append(snapshot(model, state))
            for name, field in taken[-1].fields.items():  # fluxes, which a start has not
                taken[0].fields.setdefault(name, np.full_like(field, np.nan))
            by_member.append(dataset(model, taken))
        by_date.append(by_member)
    return _joined(by_date, start["time"].values.astype(float), every_h)


def _joined(by_date: list[list[Dataset]], begun: np.ndarray, every_h: float) -> Dataset:
    """Put forecasts side by side, with the coordinates that tell them apart."""
    import xarray as xr

    first = by_date[0][0]
    variables = {}
    for name, field in first.data_vars.items():
        values, axes = field.values, field.dims
        if "time" in axes:
            axes = ("init_time", "member", "lead_time", *axes[1:])
            values = np.stack([[one[name].values for one in row] for row in by_date])
        variables[name] = (axes, values, field.attrs)
    out = xr.Dataset(variables, first.drop_vars("time").coords, first.attrs)
    lead = every_h * np.arange(out.sizes["lead_time"])
    out = out.assign_coords(
        init_time=(
            "init_time",
            begun,
            {"standard_name": "forecast_reference_time", "units": TIME_UNITS},
        ),
        lead_time=("lead_time", lead, {"standard_name": "forecast_period", "units": "hours"}),
        member=("member", list(range(out.sizes["member"])), {"standard_name": "realization"}),
        time=(
            ("init_time", "lead_time"),
            begun[:, None] + lead * 3600.0 / DAY_S,
            {"standard_name": "time", "units": TIME_UNITS, "calendar": "standard"},
        ),
    )
    return out.transpose(*AXES, ...)
