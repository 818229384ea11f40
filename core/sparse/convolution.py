"""A convolution with holes: any set of neighbours, and live blocks between channels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.errors import ConfigError, ShapeError
from core.sparse.build import LayerSpec, build_linear


def dilated_taps(height: int, width: int, dilation: int) -> list[tuple[int, int]]:
    """Return the taps of a kernel of height x width points, `dilation` apart, row by row.

    Examples
    --------
    >>> from core.sparse import dilated_taps
    >>> dilated_taps(3, 1, 2)
    [(-2, 0), (0, 0), (2, 0)]
    """
    return [
        (dilation * (i - height // 2), dilation * (j - width // 2))
        for i in range(height)
        for j in range(width)
    ]


class SparseConv2d(nn.Module):
    """A convolution over chosen neighbours, on the block-sparse products.

    ``y[o, p] = bias[o] + sum over taps t and channels c of W[o, t, c] x[c, p + t]``: one linear
    layer from the channels of all neighbours (`linear`, tap-major) to those of a point, applied at
    each point. Dead taps cost nothing as they are not in `taps`; dead blocks between channels are
    those of `spec`, and may change in training like those of any layer.

    Parameters
    ----------
    in_channels, out_channels : int
    taps : sequence of (int, int)
        Offsets (down, right) of the neighbours, no two alike; see `dilated_taps`.
    spec : LayerSpec
    is_periodic : (bool, bool)
        Whether the rows and the columns of the grid close on themselves; beyond the edge of one
        that does not, the field counts as zero.
    bias : bool
    generator : torch.Generator
        Source of pattern and weights.

    Raises
    ------
    ConfigError
        If there is no tap or one occurs twice.

    Examples
    --------
    >>> import torch
    >>> from core.sparse import SparseConv2d, dilated_taps
    >>> generator = torch.Generator().manual_seed(0)
    >>> taps = dilated_taps(3, 3, 2)
    >>> layer = SparseConv2d(2, 3, taps=taps, is_periodic=(False, True), generator=generator)
    >>> layer(torch.ones(1, 2, 8, 16)).shape
    torch.Size([1, 3, 8, 16])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        taps: Sequence[tuple[int, int]],
        spec: LayerSpec | None = None,
        is_periodic: tuple[bool, bool] = (False, False),
        bias: bool = True,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        if not taps or len(set(taps)) < len(taps):
            raise ConfigError(
                f"SparseConv2d: taps must be one or more different offsets, got {list(taps)}"
            )
        self.in_channels, self.taps, self.is_periodic = in_channels, tuple(taps), is_periodic
        self.reach = tuple(max(abs(tap[axis]) for tap in taps) for axis in (0, 1))
        self.linear = build_linear(
            len(taps) * in_channels,
            out_channels,
            spec or LayerSpec(),
            generator=generator,
            bias=bias,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map [batch, in_channels, row, column] to [batch, out_channels, row, column]."""
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            raise ShapeError(
                f"SparseConv2d: x must have shape [batch, {self.in_channels}, row, column], "
                f"got {list(x.shape)}"
            )
        rows, cols = x.shape[2:]
        for reach, n, is_periodic in zip(self.reach, (rows, cols), self.is_periodic, strict=True):
            if is_periodic and reach > n:
                raise ShapeError(
                    f"SparseConv2d: a tap reaches {reach} points around a periodic axis of {n}; "
                    "give a larger grid, or taps within it"
                )
        x = x.permute(0, 2, 3, 1)
        down, right = self.reach
        x = _padded(_padded(x, 1, down, self.is_periodic[0]), 2, right, self.is_periodic[1])
        near = [
            x[:, down + i : down + i + rows, right + j : right + j + cols] for i, j in self.taps
        ]
        return self.linear(torch.cat(near, 3)).permute(0, 3, 1, 2)


def _padded(x: Tensor, axis: int, reach: int, is_periodic: bool) -> Tensor:
    if reach == 0:
        return x
    if is_periodic:
        n = x.shape[axis]
        return torch.cat([x.narrow(axis, n - reach, reach), x, x.narrow(axis, 0, reach)], axis)
    pad = [0, 0] * (x.dim() - axis - 1) + [reach, reach]
    return F.pad(x, pad)
