"""Forecast, observe, analyse, and again: an ensemble that follows a truth it sees in part."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from apps.weather.assimilation.letkf import analyse, gaspari_cohn
from apps.weather.assimilation.observations import KINDS, ObservationOperator, Places
from apps.weather.atmosphere.constants import RADIUS
from apps.weather.atmosphere.state import GridState
from apps.weather.model import Model, ModelState
from apps.weather.verdict.ensemble import fair_crps, rank_histogram, spread_skill


def fields_of(model: Model, state: ModelState) -> Tensor:
    """Columns of a state, float64 [column, 4 level + 1]: u, v, temperature, humidity, pressure."""
    grid = model.equations.to_grid(state.levels.current)
    parts = (grid.u, grid.v, grid.temperature, grid.humidity, grid.surface_pressure.unsqueeze(-1))
    return torch.cat(parts, dim=-1).flatten(0, 1).double()


def state_of(model: Model, fields: Tensor, time_s: float) -> ModelState:
    """Begin a model state from columns; `Model.filled` mends humidity below nought."""
    n, shape = model.levels.n_level, (model.grid.n_lon, model.grid.n_lat, -1)
    fields = fields.to(model.transform.dtype)
    u, v, temperature, humidity, pressure = fields.split([n, n, n, n, 1], dim=-1)
    humidity = model.filled(humidity, pressure.squeeze(-1))
    u, v, temperature, humidity = (x.reshape(shape) for x in (u, v, temperature, humidity))
    grid = GridState(u, v, temperature, humidity, pressure.reshape(shape[:2]))
    return model.begin(model.equations.from_grid(grid), time_s)


def column_weight(model: Model) -> Tensor:
    """Area weight of the columns, float64 [column], sum one."""
    return model.grid.area_weight.reshape(-1)


def by_kind(model: Model, fields: Tensor) -> dict[str, Tensor]:
    """Split columns [..., column, K] by the names of `KINDS`."""
    n = model.levels.n_level
    return dict(zip(KINDS, fields.split([n, n, n, n, 1], dim=-1), strict=True))


def nearness(model: Model, places: Places, radius_m: float) -> tuple[Tensor, Tensor]:
    """Taper by great-circle distance, [column, place], and each observation's place, int64."""

    def vector(latitude: Tensor, longitude: Tensor) -> Tensor:
        across = latitude.cos()
        parts = [across * longitude.cos(), across * longitude.sin(), latitude.sin()]
        return torch.stack(parts, dim=-1)

    shape = (model.grid.n_lon, model.grid.n_lat)
    columns = vector(
        model.grid.latitude.expand(shape).reshape(-1),
        model.grid.longitude.unsqueeze(1).expand(shape).reshape(-1),
    )
    where = torch.stack([places.latitude, places.longitude], dim=1)
    unique, index = torch.unique(where, dim=0, return_inverse=True)
    seen = vector(*torch.deg2rad(unique).unbind(1))
    angle = torch.arccos((columns @ seen.T).clamp(-1.0, 1.0))
    return gaspari_cohn(RADIUS * angle, radius_m), index


@dataclass(frozen=True)
class Filter:
    """Settings of the analysis: taper radius (m), inflation and relaxation (see `letkf`)."""

    radius_m: float = 3.0e6
    inflation: float = 1.0
    relaxation: float = 0.7


@dataclass
class Follow:
    """An ensemble after some cycles, and its scores cycle by cycle.

    Attributes
    ----------
    members : list of ModelState
    history : list of dict of str to float
        By cycle: day, and by quantity the error of the mean before and after the analysis, the
        spread over skill before it and the fair CRPS after it.
    means : list of Tensor
        Mean analysis of each cycle [column, K].
    ranks : Tensor
        Rank histogram of the temperature before the analysis, summed over cycles.
    """

    members: list[ModelState]
    history: list[dict[str, float]] = field(default_factory=list)
    means: list[Tensor] = field(default_factory=list)
    ranks: Tensor | int = 0


def follow(
    model: Model,
    members: Sequence[ModelState],
    truth: Sequence[Tensor],
    observed: Sequence[tuple[Places, Tensor]],
    settings: Filter,
    *,
    cycle_s: float,
    progress: Callable[[range], Iterable[int]] = iter,
    begun: Follow | None = None,
    keep: Callable[[Follow], None] | None = None,
) -> Follow:
    """Cycle an ensemble through observations.

    Parameters
    ----------
    model : Model
        That of the members.
    members : sequence of ModelState
        At the time one cycle before the first observations.
    truth : sequence of Tensor [column, K]
        One for each cycle, to judge by; the analysis does not see it.
    observed : sequence of (Places, Tensor [observation])
        One for each cycle; none at all leaves the ensemble free.
    cycle_s : float
        Seconds from analysis to analysis.
    begun : Follow, optional
        What an earlier call had done of these cycles; it goes on, in place of `members`.
    keep : callable, optional
        Sees what is done after every cycle.

    Raises
    ------
    DataError
        If an observation lies outside the domain.
    """
    out = Follow(list(members)) if begun is None else begun
    for i in progress(range(len(out.history), len(truth))):
        out.members = [model.run(member, cycle_s) for member in out.members]
        time_s = out.members[0].time_s
        before = torch.stack([fields_of(model, member) for member in out.members])
        places, value = observed[i]
        after = before
        if len(value):
            after = analyse(
                before,
                ObservationOperator(model, places)(before),
                value,
                places.error,
                *nearness(model, places, settings.radius_m),
                inflation=settings.inflation,
                relaxation=settings.relaxation,
            )
            out.members = [state_of(model, fields, time_s) for fields in after]
        out.history.append({"day": time_s / 86400.0} | _scores(model, before, after, truth[i]))
        out.means.append(after.mean(0))
        temperature = by_kind(model, before)["temperature"], by_kind(model, truth[i])["temperature"]
        out.ranks = out.ranks + rank_histogram(*temperature)
        if keep is not None:
            keep(out)
    return out


def _scores(model: Model, before: Tensor, after: Tensor, truth: Tensor) -> dict[str, float]:
    area = column_weight(model).unsqueeze(-1)
    depth = torch.from_numpy(model.levels.thickness.copy())
    out = {}
    parts = zip(*(by_kind(model, x).items() for x in (before, after, truth)), strict=True)
    for (name, prior), (_, posterior), (_, true) in parts:
        weight = area * (depth if name != "surface_pressure" else 1.0)
        for label, members in (("background", prior), ("analysis", posterior)):
            square = (weight * (members.mean(0) - true).square()).sum()
            out[f"{name}_{label}_rmse"] = float(square.sqrt())
        out[f"{name}_spread_skill"] = float(spread_skill(prior, true, weight))
        out[f"{name}_crps"] = float((weight * fair_crps(posterior, true)).sum())
    return out
