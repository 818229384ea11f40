"""The parts of the network: one round of messages, and the readout from atoms to molecules."""

import torch
from torch import Tensor, nn

import core


class EdgeMessageLayer(nn.Module):
    """One round of messages with bond features, a residual step on the atoms (GINE).

    Each edge carries ``relu(h[source] + W_e e)`` to its target; the atom then takes
    ``h + BN(W_2 relu(BN(W_1 (h + sum of messages))))``.

    Parameters
    ----------
    d_hidden : int
        Width of an atom's state.
    n_edge_feature : int
    spec : core.LayerSpec
        How W_1 and W_2 are built.
    generator : torch.Generator

    Notes
    -----
    Source: Hu et al., Strategies for pre-training graph neural networks, arXiv:1905.12265; the
    residual step and the second normalisation are additions of this project.
    Checked against: a loop over edges in float64.
    """

    def __init__(
        self,
        d_hidden: int,
        n_edge_feature: int,
        *,
        spec: core.LayerSpec,
        generator: torch.Generator,
    ):
        super().__init__()
        self.edge = core.build_linear(
            n_edge_feature, d_hidden, _narrow(spec), generator=generator, bias=False
        )
        self.first = core.build_linear(d_hidden, d_hidden, spec, generator=generator, bias=False)
        self.first_norm = nn.BatchNorm1d(d_hidden)
        self.second = core.build_linear(d_hidden, d_hidden, spec, generator=generator, bias=False)
        self.second_norm = nn.BatchNorm1d(d_hidden)

    def forward(self, h: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        """Return the new states, float32 [atom, d_hidden]."""
        source, target = edge_index[0], edge_index[1]
        message = torch.relu(h.index_select(0, source) + self.edge(edge_attr))
        z = h + core.segment_sum(message, target, h.shape[0])
        z = torch.relu(self.first_norm(self.first(z)))
        return h + self.second_norm(self.second(z))


class Readout(nn.Module):
    """From the states of all layers to one row per molecule: their sums and their means.

    The sum tells size, the mean composition; all layers tell neighbourhoods of all radii.
    The rows are normalised over the batch.

    Parameters
    ----------
    d_state : int
        Width of the concatenated states; a row has twice that.
    """

    def __init__(self, d_state: int):
        super().__init__()
        self.norm = nn.BatchNorm1d(2 * d_state)

    def forward(self, states: Tensor, batch: Tensor, ptr: Tensor) -> Tensor:
        """Return float32 [molecule, 2 d_state] from states float32 [atom, d_state]."""
        total = core.segment_sum(states, batch, ptr.shape[0] - 1)
        n_atom = (ptr[1:] - ptr[:-1]).to(states.dtype)
        return self.norm(torch.cat([total, total / n_atom[:, None]], dim=1))


def _narrow(spec: core.LayerSpec) -> core.LayerSpec:
    """Return the specification of a layer too narrow for blocks: dense, in the same formats."""
    return core.LayerSpec(
        density=1.0,
        block=spec.block,
        weight_format=spec.weight_format,
        activation_format=spec.activation_format,
    )
