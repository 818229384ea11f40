"""The learned scheme as recurrent cells that walk the column, down and up again.

Radiation is itself two sweeps: what a level sends depends on all that was passed on the way to it.
A network of that shape (Ukkonen 2022, J. Adv. Model. Earth Syst. 14, e2021MS002875) uses one set of
weights on every level; level after level, it is slow where the perceptron of
`apps.weather.learned.emulator` is quick.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from apps.weather.learned.emulator import N_SURFACE_FEATURE, Emulator
from core import LayerSpec, build_linear


class RecurrentEmulator(Emulator):
    """Two gated recurrent units, from the top to the ground and back, between the same tensors.

    The unit that walks down begins with the surface features, the one that walks up with where the
    first one ended; a level's heating is read from what both hold there, the fluxes at the top from
    the end of the way up. Every step also reads the surface features: the sun and carbon dioxide
    act on each level. Recurrent products have the density and the formats of `spec`, the others
    those of `end_spec`.

    Parameters
    ----------
    n_level : int
    width : int
        Neurons of each unit.
    n_hidden : int
        Kept for the shape of `Emulator`; there is one layer of units.
    spec : LayerSpec
    generator : torch.Generator
        Source of the initial weights.

    Notes
    -----
    Cell as in Cho et al. 2014 (arXiv 1406.1078), with the reset gate after the recurrent product.
    """

    kind: Literal["mlp", "gru"] = "gru"

    def _build(self, ends: LayerSpec, generator: torch.Generator) -> None:
        n, width = self.n_level, self.width
        n_in = 4 + N_SURFACE_FEATURE

        def layer(n_from: int, n_to: int, spec: LayerSpec) -> nn.Module:
            return build_linear(n_from, n_to, spec, generator=generator)

        self.begin = layer(N_SURFACE_FEATURE, width, ends)
        self.turn = layer(width + N_SURFACE_FEATURE, width, ends)
        self.read = nn.ModuleList(layer(n_in, 3 * width, ends) for _ in range(2))
        self.walk = nn.ModuleList(layer(width, 3 * width, self.spec) for _ in range(2))
        self.heat = layer(2 * width, 2, ends)
        self.top = layer(width, 2, ends)
        self.output_bias = nn.Parameter(torch.zeros(2 * n + 2))

    def layers(self) -> list[int]:
        """Give none: its layers learn around their rounding instead of being rounded in order."""
        return []

    def shift_output(self, by: Tensor) -> None:
        """Add to the normalised targets, [2 level + 2], in fp32 in every format."""
        self.output_bias.add_(by)

    def forward(self, scaled: Tensor) -> Tensor:
        """Map normalised features to normalised targets."""
        n, n_column = self.n_level, len(scaled)
        air = scaled[:, : 4 * n].view(n_column, 4, n).permute(2, 0, 1)
        surface = scaled[:, 4 * n :]
        x = torch.cat([air, surface.expand(n, -1, -1)], dim=2).reshape(n * n_column, -1)
        down, up = (read(x).view(n, n_column, -1) for read in self.read)
        h = torch.tanh(self.begin(surface))
        downs, ups = [], []
        for k in range(n):
            h = self._cell(down[k], self.walk[0](h), h)
            downs.append(h)
        h = torch.tanh(self.turn(torch.cat([h, surface], dim=1)))
        for k in reversed(range(n)):
            h = self._cell(up[k], self.walk[1](h), h)
            ups.append(h)
        both = torch.cat([torch.stack(downs), torch.stack(ups[::-1])], dim=2)
        heat = self.heat(both.view(n * n_column, -1)).view(n, n_column, 2).permute(1, 2, 0)
        out = torch.cat([heat, self.top(h)[:, :, None]], dim=2).reshape(n_column, -1)
        return out + self.output_bias

    @staticmethod
    def _cell(x: Tensor, passed: Tensor, h: Tensor) -> Tensor:
        x_reset, x_keep, x_new = x.chunk(3, dim=1)
        reset, keep, new = passed.chunk(3, dim=1)
        keep = torch.sigmoid(x_keep + keep)
        new = torch.tanh(x_new + torch.sigmoid(x_reset + reset) * new)
        return new + keep * (h - new)
