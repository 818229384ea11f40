"""Scores of ensembles: fair CRPS, spread against skill, rank histogram."""

from __future__ import annotations

import torch
from torch import Tensor

from core.errors import ShapeError


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
