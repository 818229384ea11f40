"""The local ensemble transform Kalman filter, every column of the grid at once.

Hunt, Kostelich and Szunyogh 2007 (Physica D 230, 112), with observations weighted by their
distance (their section 2.3, "R localisation") and spread relaxed to its prior value (Whitaker and
Hamill 2012, Mon. Wea. Rev. 140, 3078, equation 2). Whole columns are updated together: there is no
vertical localisation.
"""

from __future__ import annotations

import torch
from torch import Tensor

from core.errors import ShapeError


def gaspari_cohn(distance: Tensor, radius: float) -> Tensor:
    """Compactly supported near-Gaussian: one at nought, nought from `radius` on.

    Source: Gaspari and Cohn 1999 (Q. J. R. Meteorol. Soc. 125, 723), equation 4.10, with c half
    the radius.
    """
    r = 2.0 * distance / radius
    near = 1.0 + r**2 * (-5.0 / 3.0 + r * (5.0 / 8.0 + r * (0.5 - 0.25 * r)))
    inner = r.clamp(min=1e-9)
    far = 4.0 - 5.0 * r + r**2 * (5.0 / 3.0 + r * (5.0 / 8.0 + r * (-0.5 + r / 12.0)))
    far = far - 2.0 / (3.0 * inner)
    return torch.where(r < 1.0, near, torch.where(r < 2.0, far, 0.0)).clamp(min=0.0)


def analyse(
    fields: Tensor,
    shown: Tensor,
    observed: Tensor,
    error: Tensor,
    nearness: Tensor,
    place: Tensor | None = None,
    *,
    inflation: float = 1.0,
    relaxation: float = 0.0,
) -> Tensor:
    """Give the analysis ensemble, [member, column, K].

    Parameters
    ----------
    fields : Tensor [member, column, K]
        Prior members, all quantities of a column side by side.
    shown : Tensor [member, observation]
        What each member shows at the observations.
    observed, error : Tensor [observation]
        Values and standard deviations.
    nearness : Tensor [column, place]
        Factor, 0..1, on the weight that a column gives to the observations of a place.
    place : Tensor, int64 [observation], optional
        Where each observation was made; each at a place of its own without it. Many observations
        share a place (a sounding), and the cost grows with places, not with observations.
    inflation : float
        Factor on the prior variance.
    relaxation : float
        Share 0..1 of the spread that the update took, given back.

    Raises
    ------
    ShapeError
        If the shapes do not fit each other.
    """
    n, n_column = fields.shape[:2]
    n_observation = len(observed)
    expected = {
        "shown": (shown, (n, n_observation)),
        "error": (error, (n_observation,)),
    }
    if place is None:
        place = torch.arange(n_observation, device=observed.device)
        expected["nearness"] = (nearness, (n_column, n_observation))
    for name, (tensor, shape) in expected.items():
        if tensor.shape != shape:
            raise ShapeError(
                f"letkf.analyse: {name} must be {list(shape)} for {n} members, {n_column} columns "
                f"and {n_observation} observations, got {list(tensor.shape)}"
            )
    mean = fields.mean(0)
    departure = fields - mean
    scaled = (shown - shown.mean(0)) / error
    innovation = (observed - shown.mean(0)) / error
    # summed by place, then one product for all columns: departures of members times each other
    # and times the innovation
    products = torch.cat(
        [(scaled.unsqueeze(0) * scaled.unsqueeze(1)).flatten(0, 1), scaled * innovation]
    )
    by_place = torch.zeros(nearness.shape[1], n * n + n, dtype=fields.dtype, device=fields.device)
    by_place.index_add_(0, place, products.T.contiguous())
    precision, pull = (nearness @ by_place).split([n * n, n], dim=1)
    precision = precision.reshape(n_column, n, n)
    precision.diagonal(dim1=1, dim2=2).add_((n - 1) / inflation)
    value, vector = torch.linalg.eigh(precision)
    in_modes = (vector.transpose(1, 2) @ pull.unsqueeze(-1)) / value.unsqueeze(-1)
    spread = (vector * ((n - 1) / value).sqrt().unsqueeze(1)) @ vector.transpose(1, 2)
    by_column = departure.transpose(0, 1)  # [column, member, K]
    moved = mean + (by_column * (vector @ in_modes)).sum(1)
    apart = (spread @ by_column).transpose(0, 1)
    if relaxation > 0.0:
        prior, posterior = departure.std(0), apart.std(0)
        ratio = (prior - posterior) / posterior.clamp(min=torch.finfo(fields.dtype).tiny)
        apart = apart * (1.0 + relaxation * torch.where(posterior > 0.0, ratio, 0.0))
    return moved + apart
