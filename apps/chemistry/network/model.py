"""The binding network: embed atoms, pass messages, read out, predict each task."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import core
from apps.chemistry.network.deployed import deployed
from apps.chemistry.network.layers import EdgeMessageLayer, Readout, VirtualNode
from apps.chemistry.network.products import by_rows
from core.errors import ConfigError


class BindingNetwork(nn.Module):
    """Affinities of molecules from their graphs.

    Parameters
    ----------
    n_atom_feature, n_edge_feature : int
        Widths that the featuriser reports.
    n_task : int
    d_hidden : int
        Width of an atom's state; a multiple of `spec.block` where the layers are block-sparse.
    n_layer : int
        Rounds of messages.
    virtual_node : bool
        Between rounds, a node per molecule that all of its atoms share (`VirtualNode`).
    spec : core.LayerSpec
        How the large layers are built; the embedding of atoms and bonds and the last layer are
        narrow and stay dense, the last one in float32.
    generator : torch.Generator
        Source of the first weights and of the patterns.

    Notes
    -----
    Batch normalisation, residual steps and a readout of sums and means over all layers are what
    lets a graph network learn from a thousand molecules; without them the error of the same
    network was .2 pK higher in the project's trials.
    Where activations are bf16, the states of the atoms travel from layer to layer in bf16 too; sums
    into molecules and everything behind them are float32.
    The network works in scaled units (mean 0, variance 1 on the training part); `target_mean` and
    `target_sd` travel with it, and `predict` gives the unit of the data.
    """

    target_mean: Tensor
    target_sd: Tensor

    def __init__(
        self,
        n_atom_feature: int,
        n_edge_feature: int,
        *,
        n_task: int = 1,
        d_hidden: int = 128,
        n_layer: int = 4,
        virtual_node: bool = False,
        spec: core.LayerSpec,
        generator: torch.Generator,
    ):
        super().__init__()
        if spec.density < 1 and d_hidden % spec.block:
            raise ConfigError(
                f"BindingNetwork: d_hidden must be a multiple of the block side {spec.block}, "
                f"got {d_hidden}; try {-(-d_hidden // spec.block) * spec.block}"
            )
        dense = core.LayerSpec(
            weight_format=spec.weight_format, activation_format=spec.activation_format
        )
        self.state_dtype = torch.bfloat16 if spec.activation_format == "bf16" else torch.float32
        self.embed: nn.Module
        self.head: nn.Module
        self.mix: nn.Module
        self.embed = core.build_linear(n_atom_feature, d_hidden, dense, generator=generator)
        self.layers = nn.ModuleList(
            EdgeMessageLayer(d_hidden, n_edge_feature, spec=spec, generator=generator)
            for _ in range(n_layer)
        )
        self.virtual = nn.ModuleList(
            VirtualNode(d_hidden, spec=spec, generator=generator)
            for _ in range(n_layer - 1 if virtual_node else 0)
        )
        self.readout = Readout(
            d_hidden, n_state=n_layer + 1, d_count=d_hidden, spec=spec, generator=generator
        )
        d_row, d_head = 2 * (n_layer + 1) * d_hidden, 2 * d_hidden
        self.head = core.build_linear(d_row, d_head, spec, generator=generator)
        self.mix = core.build_linear(d_head, d_head, spec, generator=generator)
        self.out = core.build_linear(d_head, n_task, core.LayerSpec(), generator=generator)
        self.register_buffer("target_mean", torch.zeros(n_task))
        self.register_buffer("target_sd", torch.ones(n_task))

    def forward(self, batch: Any) -> Tensor:
        """Return scaled predictions, float32 [molecule, task], of a MolBatch or a PyG Batch."""
        return self.answer(self.count(batch), batch.ptr)

    def count(self, batch: Any) -> Tensor:
        """Return the learned fingerprint, float32 [molecule, count]: see `Readout`."""
        states = [by_rows(self.embed, batch.x).to(self.state_dtype)]
        order = core.EdgeOrder.from_index(batch.edge_index, batch.x.shape[0])
        kind = getattr(batch, "edge_kind", None)
        edge_attr = batch.edge_attr if kind is None else batch.edge_table
        node = None
        for i, layer in enumerate(self.layers):
            h = layer(states[-1], order, edge_attr, kind)
            if i < len(self.virtual):
                h, node = self.virtual[i](h, node, batch.batch, batch.ptr)
            states.append(h)
        return self.readout.count(states, batch.batch, batch.ptr).float()

    def answer(self, count: Tensor, ptr: Tensor) -> Tensor:
        """Return scaled predictions, float32 [molecule, task], from what `count` gave."""
        row = torch.relu(by_rows(self.head, self.readout(count, ptr)))
        return self.out(row + torch.relu(by_rows(self.mix, row)))

    def deploy(self) -> "BindingNetwork":
        """Make a frozen network (`core.freeze`) faster, in place; what it says changes by rounding.

        Dense float32 products take over the normalisation behind them, see `deployed`; others, and
        the training of a network, are not touched.
        """
        for part in (*self.layers, self.readout):
            part.deploy()
        self.embed, self.head, self.mix = (deployed(x) for x in (self.embed, self.head, self.mix))
        return self

    def set_scale(self, target: np.ndarray) -> None:
        """Take mean and sd of each task from the training values [molecule, task], NaN skipped.

        Raises
        ------
        ConfigError
            If a task has no value at all.
        """
        n_value = (~np.isnan(target)).sum(axis=0)
        if (n_value == 0).any():
            task = int(np.nonzero(n_value == 0)[0][0])
            raise ConfigError(
                f"BindingNetwork.set_scale: task {task} has no value in the training part; "
                "leave its column out"
            )
        sd = np.nanstd(target, axis=0)
        self.target_mean.copy_(torch.from_numpy(np.nanmean(target, axis=0)))
        self.target_sd.copy_(torch.from_numpy(np.where(sd > 0, sd, 1.0)))

    def loss(self, batch: Any) -> Tensor:
        """Return the loss in scaled units: squared errors over the number of measured values.

        A value that is a bound costs nothing on its right side. Where the batch brings answers of
        a teacher (`MolBatch.hint`), distances from them are added as `MolBatch.hint_weight` says.
        """
        return self.loss_of(self(batch), batch)

    def loss_of(self, out: Tensor, batch: Any) -> Tensor:
        """Return `loss` where the scaled predictions, float32 [molecule, task], are at hand."""
        error = out - (batch.y - self.target_mean) / self.target_sd
        bound = getattr(batch, "bound", None)
        if bound is not None:
            error = error * (bound * error <= 0)
        total = (batch.y_weight * error * error).sum()
        hint = getattr(batch, "hint", None)
        if hint is not None:
            distance = out - (hint - self.target_mean) / self.target_sd
            total = total + (batch.hint_weight * distance * distance).sum()
        return total / batch.y_weight.sum().clamp(min=1.0)

    def predict(self, batch: Any) -> Tensor:
        """Return predictions in the unit of the data, float32 [molecule, task]."""
        return self.to_unit(self(batch))

    def to_unit(self, scaled: Tensor) -> Tensor:
        """Return scaled predictions, float32 [molecule, task], in the unit of the data."""
        return scaled * self.target_sd + self.target_mean
