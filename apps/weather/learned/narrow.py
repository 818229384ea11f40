"""From a network trained in fp32 to one of 8 bits and fewer.

First the activations of hidden units are made to fill the same range, each by its own factor that
the next layer takes back (integer formats; equalisation as in Nagel et al. 2019, arXiv 1906.04721):
one scale then serves them all; for floats they are centred, since a float's error grows with its
size. Then the narrow layers are rounded for good, so that their outputs rather than their weights
stay close (Frantar et al. 2022, arXiv 2210.17323, equations 2 and 3), and the first and the last
layer, which keep 16 bits, learn around what is left of the error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from apps.weather.learned.emulator import Emulator, EvenSwish
from core import BlockSparseLinear, DenseLinear, Format, dequantize
from core.precision import format_named
from core.precision.quantize import scale_of

Layer = DenseLinear | BlockSparseLinear

# Shares of the scale that a row's largest weight asks for; the best of them is taken.
_SCALES = (0.98, 0.9, 0.8, 0.65, 0.5)
# Added to the diagonal of the inputs' second moments, as a share of its mean.
_DAMPING = 1e-4
_LEAST_RANGE = 1e-3


@torch.no_grad()
def even_out(model: Emulator, x: Tensor) -> None:
    """Make hidden units span [-1, 1] on normalised features `x`; what the network gives stays.

    Acts on the `EvenSwish` of a fresh network with integer activations.
    """
    reached = x
    last = model.net[-1]
    assert isinstance(last, Layer)
    is_float = format_named(model.spec.activation_format).kind == "float"
    for i, part in enumerate(list(model.net)[:-1]):
        reached = part(reached)
        if isinstance(part, EvenSwish):
            following = model.net[i + 1]
            assert isinstance(following, Layer)
            low, high = torch.aminmax(reached, dim=0)
            centre = 0.5 * (low + high)
            if is_float:
                centre = reached.mean(0)
            half = torch.maximum(high - centre, centre - low).clamp(min=_LEAST_RANGE)
            part.factor.copy_(1.0 / half)
            part.shift.copy_(-centre / half)
            reached = part.scaled(reached)
            begin = i // 2 * model.width
            for layer, at in ((following, 0), (last, begin)):
                assert layer.bias is not None
                whole = torch.zeros(layer.in_features), torch.ones(layer.in_features)
                for vector, piece in zip(whole, (centre, half), strict=True):
                    vector[at : at + model.width] = piece
                for rows, columns, weight, write in strips(layer):
                    layer.bias[rows] += weight @ padded(whole[0], layer)[columns]
                    write(weight * padded(whole[1], layer)[columns])


@torch.no_grad()
def round_layer(model: Emulator, i: int, x: Tensor, format: Format) -> None:
    """Put the weights of ``model.net[i]`` on the format's grid for good; they learn no more.

    Minds what the layer reads when the network sees normalised features `x` [column, feature].
    Each row keeps a weight of the largest code, so that quantising again changes nothing.
    """
    layer = model.net[i]
    assert isinstance(layer, Layer)
    x = layer.roles.activate(model.read_by(i, x), layer.activation_range)
    x = padded(x, layer).double()
    for _, columns, weight, write in strips(layer):
        part = x[:, columns]
        write(nearest_output(weight, part.T @ part / len(part), format))
    for name, parameter in layer.named_parameters():
        parameter.requires_grad_(name == "bias")


def strips(layer: Layer) -> Iterator[tuple[slice, Tensor, Tensor, Callable[[Tensor], object]]]:
    """Give the rows of a layer that share their live inputs.

    Which rows, the features they read (padded to whole blocks), a copy of the weights [row,
    feature], and a way to write such weights back.
    """
    if isinstance(layer, DenseLinear):
        columns = torch.arange(layer.in_features)
        yield slice(0, layer.out_features), columns, layer.weight.detach(), layer.weight.copy_
        return
    pattern = layer.pattern
    br, bc = pattern.block
    for i, (first, last) in enumerate(zip(pattern.row_ptr, pattern.row_ptr[1:], strict=False)):
        live = slice(int(first), int(last))
        n = live.stop - live.start
        if n == 0:
            continue
        columns = (pattern.col_index[live, None].long() * bc + torch.arange(bc)).reshape(-1)
        rows = slice(i * br, min((i + 1) * br, layer.out_features))
        height = rows.stop - rows.start

        def write(weight: Tensor, live: slice = live, n: int = n, height: int = height) -> None:
            blocks = weight.view(height, n, bc).transpose(0, 1)
            layer.values[live, :height].copy_(blocks)

        yield rows, columns, layer.values[live, :height].transpose(0, 1).reshape(height, -1), write


def padded(x: Tensor, layer: Layer) -> Tensor:
    """Add the features, all nought, that fill the last block of inputs."""
    step = 1 if isinstance(layer, DenseLinear) else layer.pattern.block[1]
    return F.pad(x, (0, -layer.in_features % step))


def nearest_output(weight: Tensor, moments: Tensor, format: Format) -> Tensor:
    """Round weights so that their products with the inputs change least.

    Parameters
    ----------
    weight : Tensor, float32 [row, feature]
    moments : Tensor, float64 [feature, feature]
        Mean products of the inputs.
    format : Format
        Of 8 bits or fewer, with one scale for each row.

    Returns
    -------
    Tensor, float32 [row, feature]
        Codes times scale.
    """
    full = scale_of(weight, format, axis=0)
    best, least = weight, torch.full_like(full, torch.inf, dtype=torch.float64)
    for share in _SCALES:
        rounded = _compensated(weight, moments, share * full, format)
        error = (rounded - weight).double()
        cost = ((error @ moments) * error).sum(1, keepdim=True)
        # Without a weight of the largest code the scale could not be found again.
        found = scale_of(rounded, format, axis=0)
        cost[~torch.isclose(found, share * full, rtol=1e-5)] += 1.0 + cost.amax()
        better = cost < least
        best, least = torch.where(better, rounded, best), torch.where(better, cost, least)
    return best


def _compensated(weight: Tensor, moments: Tensor, scale: Tensor, format: Format) -> Tensor:
    """Round feature by feature, the largest first; those to come take up what each one lost."""
    order = moments.diagonal().argsort(descending=True)
    left = weight[:, order].double()
    damped = moments[order][:, order].clone()
    damped.diagonal().add_(_DAMPING * damped.diagonal().mean() + torch.finfo(damped.dtype).tiny)
    upper = torch.linalg.cholesky(torch.linalg.inv(damped), upper=True)
    out = torch.empty_like(weight)
    for i in range(left.shape[1]):
        codes = torch.ops.core.quantize(left[:, i : i + 1].to(weight), scale, format.name)
        out[:, order[i]] = dequantize(codes, scale, weight.dtype)[:, 0]
        lost = (left[:, i] - out[:, order[i]]) / upper[i, i]
        left[:, i + 1 :] -= lost[:, None] * upper[i, i + 1 :]
    return out
