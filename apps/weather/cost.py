"""What radiation costs on each machine: the exact scheme, and the learned one in its formats."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

import hw
from apps.lab.variant import REFERENCE_MACHINES, Variant
from apps.weather.learned.emulator import Emulator
from apps.weather.learned.fitting import (
    Batch,
    NetworkConfig,
    make_emulator,
    make_optimizer,
    training_loss,
)
from apps.weather.learned.scheme import LearnedRadiation
from apps.weather.physics import Columns, ExactRadiation, RadiationResult, soundings
from apps.weather.physics.radiation import result_from_fluxes

# Longwave and shortwave points of the exact schemes: converged, and Williams's.
EXACT_POINTS = ((128, 32), (41, 16))
# Columns of one call: the T21 grid.
N_COLUMN = 64 * 32


def exact_step(scheme: ExactRadiation, columns: Columns) -> RadiationResult:
    """Give what `scheme` does with columns of which the first half lies in the sun.

    The scheme itself looks up which columns are lit, a shape that no machine can plan for; here
    the share is the planet's own and the work is the same.
    """
    water = scheme.clouds.water_path(columns)
    net_up = scheme.longwave.net_up(columns, water)
    lit = slice(0, len(columns.sst) // 2)
    day = scheme.shortwave.sunlit(columns.take(lit), water[lit])
    return result_from_fluxes(
        net_up, torch.cat([day, torch.zeros_like(day)]), columns.pressure_half
    )


def cost_entries(
    emulator: Emulator,
    batch: Batch,
    *,
    variant: str,
    make_optimizer: Callable[[torch.nn.Module], torch.optim.Optimizer],
    exact_points: Sequence[tuple[int, int]] = (),
    n_column: int = N_COLUMN,
    machines: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Give the cost entries of a record on each machine.

    One radiation call of `n_column` columns by the learned scheme and by each exact scheme
    (longwave, shortwave points; variants ``exact-128+32`` ...), and one training step on `batch`.

    Parameters
    ----------
    emulator : Emulator
        Left as it is: copies are traced, the one for inference frozen.
    batch : tuple of Tensor
        Features, targets and weights of one training batch.
    machines : sequence of str
        Names or paths; all known machines where empty.
    """
    columns = soundings(n_column, emulator.n_level, generator=torch.Generator().manual_seed(0))
    trained = copy.deepcopy(emulator).train()
    optimizer = make_optimizer(trained)

    def train_step(x: Tensor, y: Tensor, weight: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        training_loss(trained, (x, y, weight)).backward()
        optimizer.step()

    train_step(*batch)  # the first step makes the optimizer's state, which is no part of the cost
    learned = LearnedRadiation(emulator, columns_per_chunk=n_column, is_fused=False)
    programs: list[tuple[str, Literal["train_step", "inference"], hw.Program]] = [
        (variant, "train_step", hw.trace(train_step, *batch)),
        (variant, "inference", hw.trace(learned, columns)),
    ]
    with torch.no_grad():
        for points in exact_points:
            # in one piece: chunks serve a processor's cache, and would multiply launches here
            scheme = ExactRadiation(*points, entries_per_chunk=1 << 40)
            name = f"exact-{points[0]}+{points[1]}"
            programs.append((name, "inference", hw.trace(exact_step, scheme, columns)))
    entries = []
    for machine in machines or REFERENCE_MACHINES:
        for name, phase, program in programs:
            entry = hw.cost_program(program, machine, phase=phase).entry(name)
            peak = math.ceil(entry["peak_tile_memory_byte"])
            entries.append(entry | {"peak_tile_memory_byte": peak})
    return entries


def untrained_cost(
    network: NetworkConfig, variant: Variant, *, n_level: int = 8, machines: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Give `cost_entries` of a network that was never trained: cost needs shapes only."""
    generator = torch.Generator().manual_seed(0)
    emulator = make_emulator(n_level, network, variant.layer_spec(), generator)
    n_in, n_out = len(emulator.input_mean), len(emulator.output_mean)
    x, y = torch.randn(network.batch, n_in), torch.randn(network.batch, n_out)
    return cost_entries(
        emulator,
        (x, y, torch.ones_like(y)),
        variant=variant.name,
        make_optimizer=lambda model: make_optimizer(model, network),
        exact_points=EXACT_POINTS,
        machines=machines,
    )


def cost_table(entries: Sequence[dict[str, Any]]) -> str:
    """Spell cost entries as a table."""
    head = f"{'machine':12s}{'what':24s}{'phase':12s}{'time, us':>12s}{'energy, mJ':>12s}  fits"
    rows = [
        f"{e['machine']:12s}{e['variant']:24s}{e['phase']:12s}"
        f"{1e6 * e['time_s']:12.1f}{1e3 * e['energy_j']:12.2f}  {'yes' if e['fits'] else 'no'}"
        for e in entries
    ]
    return "\n".join([head, *rows])
