"""Ensembles: how they begin, their scores, and what an evening of computing buys."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from apps.weather.atmosphere.state import State
from apps.weather.atmosphere.stepping import TimeLevels
from apps.weather.model import Model, ModelState
from core.errors import ShapeError


def added(state: ModelState, plus: ModelState, minus: ModelState, factor: float) -> ModelState:
    """Give `state` + `factor` (`plus` - `minus`), at both time levels; radiation is left behind."""
    levels = [
        State(*(x + factor * (a - b) for x, a, b in zip(*three, strict=True)))
        for three in zip(state.levels[:2], plus.levels[:2], minus.levels[:2], strict=True)
    ]
    both = TimeLevels(levels[0], levels[1], state.levels.n_step)
    return state._replace(levels=both, radiation=None)


def balanced_error(
    state: ModelState, kept: Sequence[ModelState], size: float, generator: torch.Generator
) -> ModelState:
    """Add `size` times the difference of two of the `kept` states, over root two, to a state.

    The difference of two independent states has twice the climatological variance, and their
    balance of wind and mass (Magnusson, Nycander and Kaellen 2009, Tellus A 61, 194, who draw
    random field perturbations so).
    """
    first, second = torch.randperm(len(kept), generator=generator)[:2].tolist()
    return added(state, kept[first], kept[second], size / math.sqrt(2.0))


def bred(
    model: Model,
    start: ModelState,
    n_pair: int,
    *,
    size_k: float,
    cycle_s: float,
    n_cycle: int,
    generator: torch.Generator,
) -> tuple[ModelState, list[ModelState]]:
    """Breed perturbations: let noise grow beside a control run and cut it back, again and again.

    Parameters
    ----------
    start : ModelState
        `n_cycle` cycles before the time at which the ensemble is wanted.
    n_pair : int
        Perturbations, each of which is added to and taken from the control.
    size_k : float
        Root mean square temperature, K over all mass, to which each is cut back.
    cycle_s : float
        Seconds from cut to cut.

    Returns
    -------
    ModelState
        The control at the end.
    list of ModelState
        2 `n_pair` members about it.

    Notes
    -----
    Source: Toth and Kalnay 1993 (Bull. Amer. Meteor. Soc. 74, 2317).
    """
    control = start
    others = [model.perturbed(start, size_k, generator) for _ in range(n_pair)]
    for _ in range(n_cycle):
        control = model.run(control, cycle_s)
        grown = [model.run(other, cycle_s) for other in others]
        factors = [size_k / temperature_rms(model, other, control) for other in grown]
        others = [
            added(control, other, control, factor)
            for other, factor in zip(grown, factors, strict=True)
        ]
    mirrored = [added(control, control, other, 1.0) for other in others]
    return control, [member for pair in zip(others, mirrored, strict=True) for member in pair]


def temperature_rms(model: Model, one: ModelState, other: ModelState) -> float:
    """Root mean square difference of temperature over all mass (at equal pressure), K."""
    a, b = (state.levels.current.temperature for state in (one, other))
    square = model.grid.mean(model.transform.synthesise(a - b).square())
    return float(square @ torch.as_tensor(model.levels.thickness)) ** 0.5


def hours_to_solution(
    cpu_s_per_day: Mapping[str, float], n_core: int, *, n_member: int = 50, n_day: int = 14
) -> dict[str, float]:
    """Give the hours in which an ensemble is done, by resolution; members share no work."""
    rounds = math.ceil(n_member / n_core)
    return {name: rounds * n_day * cpu_s / 3600.0 for name, cpu_s in cpu_s_per_day.items()}


def _check(members: Tensor, truth: Tensor, who: str) -> None:
    if len(members) < 2 or members.shape[1:] != truth.shape:
        raise ShapeError(
            f"{who}: members must be [member, ...] with two members or more of truth's shape "
            f"{tuple(truth.shape)}, got {tuple(members.shape)}; put the members first"
        )


def fair_crps(members: Tensor, truth: Tensor) -> Tensor:
    """Continuous ranked probability score that does not reward a small ensemble, [...].

    Mean distance to the truth less half the mean distance between two different members, in the
    unit of the field. Source: Ferro 2014 (Q. J. R. Meteorol. Soc. 140, 1917), section 3.

    Parameters
    ----------
    members : Tensor [member, ...]
    truth : Tensor [...]
    """
    _check(members, truth, "fair_crps")
    n = len(members)
    # sum over pairs of |a - b| from the sorted members: the i-th is greater than i others
    rank = torch.arange(n, dtype=members.dtype, device=members.device)
    weight = (2.0 * rank - n + 1.0).reshape(-1, *[1] * truth.dim())
    between = (weight * members.sort(dim=0).values).sum(0) / (n * (n - 1))
    return (members - truth).abs().mean(0) - between


def spread_skill(members: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Spread over the error of the mean, one where members and truth are drawn alike.

    Parameters
    ----------
    members : Tensor [member, ...]
    truth, weight : Tensor [...]
        The weight sums to one.

    Notes
    -----
    The mean of n members errs by (n + 1) / n of their variance; that factor is taken out (Fortin
    et al. 2014, J. Hydrometeorology 15, 1708, equation 15).
    """
    _check(members, truth, "spread_skill")
    n = len(members)
    variance = (weight * members.var(0)).sum() * (n + 1) / n
    return (variance / (weight * (members.mean(0) - truth).square()).sum()).sqrt()


def rank_histogram(members: Tensor, truth: Tensor) -> Tensor:
    """Count how often the truth has each rank among the members, int64 [member + 1]."""
    _check(members, truth, "rank_histogram")
    rank = (members < truth).sum(0).reshape(-1)
    return torch.bincount(rank, minlength=len(members) + 1)
