"""The scorecard as a Dataset, and what is read off it: headline, hours lost, a table.

RMSE, anomaly correlation, hours of skill lost and the significance of a difference, by line,
variable, region and lead.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from apps.weather.forecast.forecast import LEARNED
from apps.weather.forecast.verify import NOISE_FLOOR, doubling_time
from apps.weather.model import Model
from apps.weather.verdict.fields import VARIABLES
from apps.weather.verdict.metrics import (
    REGIONS,
    anomaly_correlation,
    diebold_mariano,
    hours_lost,
    region_weights,
    rmse,
    squared_error,
)

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

    from apps.weather.verdict.score import Reference, ScoreConfig

FROM_ANALYSIS = "_from_analysis"
EXACT_ANALYSIS = "exact" + FROM_ANALYSIS
HEADLINE_DAYS = (1, 3, 5, 10)


def scorecard(
    config: ScoreConfig, model: Model, reference: Reference, forecasts: Mapping[str, np.ndarray]
) -> Dataset:
    """Score every line: RMSE, anomaly correlation, and p-value of its difference to `learned`.

    Returns
    -------
    Dataset
        ``rmse``, ``acc`` and ``p_value`` over scheme, lead_time (days, from 0), variable, region;
        ``hours_lost`` over network (the names of learned schemes) and the rest of these.
    """
    import xarray as xr

    weights = region_weights(model.grid)
    loss = {
        name: squared_error(field, reference.truth, weights) for name, field in forecasts.items()
    }
    errors = {name: rmse(values) for name, values in loss.items()}
    lead = np.arange(config.lead_day + 1)
    horizon = math.ceil(config.lead_day / config.spacing_day)
    p_value = {
        name: diebold_mariano(values, loss[LEARNED], horizon) for name, values in loss.items()
    }
    acc = {
        name: anomaly_correlation(field, reference.truth, reference.climatology, weights)
        for name, field in forecasts.items()
    }
    exact = errors[EXACT_ANALYSIS]
    networks = [name for name in errors if name + FROM_ANALYSIS in errors]
    lost = np.empty((len(networks), *exact.shape))
    for name, part in zip(networks, lost, strict=True):
        learned = errors[name + FROM_ANALYSIS]
        for i in np.ndindex(exact.shape[1:]):
            cell = (slice(None), *i)
            part[cell] = hours_lost(24.0 * lead, exact[cell], learned[cell])
    axes = ("scheme", "lead_time", "variable", "region")
    return xr.Dataset(
        {
            "rmse": (axes, np.stack(list(errors.values()))),
            "acc": (axes, np.stack(list(acc.values()))),
            "p_value": (axes, np.stack(list(p_value.values()))),
            "hours_lost": (("network", *axes[1:]), lost, {"units": "h"}),
        },
        coords={
            "scheme": list(errors),
            "network": networks,
            "lead_time": ("lead_time", lead, {"units": "days"}),
            "variable": list(VARIABLES),
            "region": list(REGIONS),
            "unit": ("variable", [v.unit for v in VARIABLES.values()]),
        },
    )


def headline(card: Dataset, name: str) -> dict[str, float]:
    """Give the metrics of one line that a record holds, for the days of `HEADLINE_DAYS`."""
    out = {}
    for day in (day for day in HEADLINE_DAYS if day <= card.lead_time[-1]):
        cell = card.sel(scheme=name, lead_time=day, region="global")
        out[f"t_upper_rmse_k_day{day}"] = float(cell.rmse.sel(variable="t200"))
        out[f"z500_rmse_m_day{day}"] = float(cell.rmse.sel(variable="z500"))
        out[f"z500_acc_day{day}"] = float(cell.acc.sel(variable="z500"))
        if name in card.network:
            out[f"t_upper_over_noise_day{day}"] = over_noise(card, name, day)
    if name in card.network:
        lost = mean_lost(card, name)
        out["hours_lost_z500"] = float(lost.sel(variable="z500"))
        out["hours_lost_worst_variable"] = float(lost.max())
    return out


def over_noise(card: Dataset, name: str, day: int) -> float:
    """Give how many times the noise floor the global error of t200 is."""
    error = card.rmse.sel(lead_time=day, variable="t200", region="global")
    return float(error.sel(scheme=name) / error.sel(scheme=NOISE_FLOOR))


def mean_lost(card: Dataset, name: str) -> DataArray:
    """Give the hours of skill lost by variable: mean over leads of a day and more, the globe."""
    return card.hours_lost.sel(network=name, region="global")[1:].mean("lead_time")


def surely_better(card: Dataset, rival: str, significance: float) -> np.ndarray:
    """Give one where `learned` is surely better than `rival`, minus one where surely worse."""
    cells = card.isel(lead_time=slice(1, None))
    gain = cells.rmse.sel(scheme=rival) - cells.rmse.sel(scheme=LEARNED)
    sure = cells.p_value.sel(scheme=rival) < significance
    return np.sign(gain.values) * sure.values


def doubling_day(card: Dataset) -> float:
    """Days in which the noise floor of t200 doubles, over all leads."""
    floor = card.rmse.sel(scheme=NOISE_FLOOR, variable="t200", region="global")[1:]
    return doubling_time(floor.lead_time.values.tolist(), floor.values.tolist())


def table(card: Dataset) -> str:
    """Spell the global scores for a reader."""
    days = [day for day in HEADLINE_DAYS if day <= card.lead_time[-1]]
    lines = []
    width = max(26, *(len(str(name)) for name in card.scheme.values))
    for variable in ("z500", "t200"):
        unit = str(card.unit.sel(variable=variable).values)
        head = f"{variable} RMSE, {unit}, global".ljust(width)
        lines.append(head + "".join(f"   day {day:<4d}" for day in days))
        for name in card.scheme.values:
            cells = card.rmse.sel(scheme=name, variable=variable, region="global")
            values = "".join(f"{float(cells.sel(lead_time=day)):11.4f}" for day in days)
            lines.append(f"{name:{width}s}{values}")
    for name in card.network.values:
        lost = mean_lost(card, name)
        spelt = ", ".join(f"{v} {float(lost.sel(variable=v)):.1f}" for v in card.variable.values)
        last = (
            f"t200 {over_noise(card, name, days[-1]):.2f} times the noise floor on day {days[-1]}"
        )
        lines.append(f"{name}: {last}; hours of skill lost, mean over leads: {spelt}")
    return "\n".join(
        [
            *lines,
            f"t200 of the noise floor doubles in {doubling_day(card):.1f} days",
        ]
    )
