"""The parts of the network: one round of messages, and the readout from atoms to molecules."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

import core
from apps.chemistry.network.deployed import deployed, folded
from apps.chemistry.network.products import by_rows


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
        self.first: nn.Module
        self.first = core.build_linear(d_hidden, d_hidden, spec, generator=generator, bias=False)
        self.first_norm: nn.Module = nn.BatchNorm1d(d_hidden)
        self.second: nn.Module
        self.second = core.build_linear(d_hidden, d_hidden, spec, generator=generator, bias=False)
        self.second_norm: nn.Module = nn.BatchNorm1d(d_hidden)

    def forward(
        self, h: Tensor, order: core.EdgeOrder, edge_attr: Tensor, kind: Tensor | None = None
    ) -> Tensor:
        """Return the new states, float32 [atom, d_hidden].

        `order` is that of the edges; with `kind`, int32 [edge], `edge_attr` is a table of kinds.
        """
        edge = by_rows(self.edge, edge_attr).to(h.dtype)
        z = core.pass_messages(h, order, edge, kind=kind, activation="relu", own=True)
        has_relu = getattr(self.first, "relu", False)
        z = core.batch_norm(self.first_norm, by_rows(self.first, z), relu=not has_relu)
        return core.batch_norm(self.second_norm, by_rows(self.second, z), base=h)

    def deploy(self) -> None:
        """Fold the normalisations into the products; see `BindingNetwork.deploy`."""
        self.first, self.first_norm = folded(self.first, self.first_norm, relu=True)
        self.second, self.second_norm = folded(self.second, self.second_norm, relu=False)


class VirtualNode(nn.Module):
    """A node per molecule that hears all of its atoms and answers each: ends far apart meet.

    Its state becomes ``relu(BN(W (v + sum of h / sqrt(atoms))))`` and is added to every atom's.

    Parameters
    ----------
    d_hidden : int
        Width of an atom's state, and of the node's.
    spec : core.LayerSpec
    generator : torch.Generator

    Notes
    -----
    Source: Gilmer et al., Neural message passing for quantum chemistry, arXiv:1704.01212, sec. 5.3.
    """

    def __init__(self, d_hidden: int, *, spec: core.LayerSpec, generator: torch.Generator):
        super().__init__()
        self.mix = core.build_linear(d_hidden, d_hidden, spec, generator=generator, bias=False)
        self.norm = nn.BatchNorm1d(d_hidden)

    def forward(
        self, h: Tensor, v: Tensor | None, batch: Tensor, ptr: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the new states of atoms and nodes, float32 [atom, d] and [molecule, d]."""
        heard = core.pass_messages(h, to_molecules(batch, ptr))
        heard = heard / (ptr[1:] - ptr[:-1]).to(h.dtype).sqrt()[:, None]
        mixed = by_rows(self.mix, heard if v is None else v + heard)
        v = core.batch_norm(self.norm, mixed, relu=True)
        return h + v.index_select(0, batch), v


def to_molecules(batch: Tensor, ptr: Tensor) -> core.EdgeOrder:
    """Return edges from each atom to its molecule: sums in one fused pass in either direction."""
    atoms = torch.arange(batch.shape[0], device=batch.device)
    return core.EdgeOrder.from_index(torch.stack([atoms, batch]), batch.shape[0], ptr.shape[0] - 1)


class Readout(nn.Module):
    """From the states of all layers to one row per molecule: counts of what the atoms show.

    Each layer has `d_count` detectors ``relu(W h + b)``. What they find in the atoms of a molecule
    is summed up, a learned fingerprint of counts: all layers tell neighbourhoods of all radii.
    A row holds the logarithms of the counts (1 + count) and their means over the atoms, normalised
    over the batch.

    Parameters
    ----------
    d_hidden : int
        Width of an atom's state.
    n_state : int
        Number of states: the embedding and one per layer.
    d_count : int
        Detectors per state; a row has ``2 n_state d_count`` entries.
    spec : core.LayerSpec
        How the detectors are built.
    generator : torch.Generator

    Notes
    -----
    The idea of summed detectors is that of Duvenaud et al., Convolutional networks on graphs for
    learning molecular fingerprints, arXiv:1509.09292. Out of fold on 22 MoleculeACE targets it took
    .021 off the RMSE that sums and means of the states themselves gave.
    """

    def __init__(
        self,
        d_hidden: int,
        *,
        n_state: int,
        d_count: int,
        spec: core.LayerSpec,
        generator: torch.Generator,
    ):
        super().__init__()
        self.detect = nn.ModuleList(
            core.build_linear(d_hidden, d_count, spec, generator=generator) for _ in range(n_state)
        )
        self.n_count = n_state * d_count
        self.norm = nn.BatchNorm1d(2 * self.n_count)

    def count(self, states: Sequence[Tensor], batch: Tensor, ptr: Tensor) -> Tensor:
        """Return float32 [molecule, n_state d_count] from one float32 [atom, d_hidden] each."""
        order = to_molecules(batch, ptr)
        return torch.cat(
            [
                core.pass_messages(by_rows(detect, state), order, activation="relu")
                for detect, state in zip(self.detect, states, strict=True)
            ],
            dim=1,
        )

    def forward(self, count: Tensor, ptr: Tensor) -> Tensor:
        """Return float32 [molecule, 2 n_state d_count] from what `count` gave."""
        n_atom = (ptr[1:] - ptr[:-1]).to(count.dtype)
        row = torch.cat([torch.log1p(count), count / n_atom[:, None]], dim=1)
        return core.batch_norm(self.norm, row)

    def deploy(self) -> None:
        """Make the detectors faster; see `BindingNetwork.deploy`."""
        self.detect = nn.ModuleList(deployed(detect) for detect in self.detect)


def _narrow(spec: core.LayerSpec) -> core.LayerSpec:
    """Return the specification of a layer too narrow for blocks: dense, in the same formats."""
    return core.LayerSpec(
        density=1.0,
        block=spec.block,
        weight_format=spec.weight_format,
        activation_format=spec.activation_format,
    )
