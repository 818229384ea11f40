"""What one training step and one inference step of a network cost on each machine."""

import copy
import math
from collections.abc import Callable, Sequence

import torch

import hw
from apps.chemistry.network import BindingNetwork, MolBatch
from apps.chemistry.predictor import freeze
from apps.lab.record import CostEntry
from apps.lab.variant import REFERENCE_MACHINES


def cost_reports(
    model: BindingNetwork,
    batch: MolBatch,
    *,
    make_optimizer: Callable[[BindingNetwork], torch.optim.Optimizer],
    machines: Sequence[str] = (),
) -> list[hw.CostReport]:
    """Return what a training step and inference cost on each machine.

    Parameters
    ----------
    model : BindingNetwork
        Left as it is; copies are traced, the one for inference frozen (`core.freeze`).
    batch : MolBatch
        One packed batch of real molecules, on the device of the model.
    make_optimizer : callable
        Makes the optimizer of a model; its step is part of the training step.
    machines : sequence of str
        Names or paths; all known machines where empty.
    """
    trained = copy.deepcopy(model).train()
    optimizer = make_optimizer(trained)

    def train_step(batch: MolBatch) -> None:
        optimizer.zero_grad(set_to_none=True)
        trained.loss(batch).backward()
        optimizer.step()

    train_step(batch)  # the first step makes the optimizer's state, which is not part of the cost
    frozen = freeze(model)

    @torch.no_grad()
    def infer(batch: MolBatch) -> torch.Tensor:
        return frozen.predict(batch)

    train_program, infer_program = hw.trace(train_step, batch), hw.trace(infer, batch)
    return [
        report
        for machine in machines or REFERENCE_MACHINES
        for report in (
            hw.cost_program(train_program, machine, phase="train_step"),
            hw.cost_program(infer_program, machine, phase="inference"),
        )
    ]


def cost_entries(reports: Sequence[hw.CostReport], variant: str) -> list[CostEntry]:
    """Return the cost entries of a record; `variant` is the name in it."""
    return [
        CostEntry.model_validate(
            report.entry(variant)
            | {"peak_tile_memory_byte": math.ceil(report.peak_tile_memory_byte)}
        )
        for report in reports
    ]
