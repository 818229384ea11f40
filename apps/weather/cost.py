"""What radiation costs on each machine: the exact scheme, and the learned one in its formats."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

import hw
from apps.lab.variant import REFERENCE_MACHINES, Variant
from apps.weather.forecast.simulate import ModelConfig, first_state
from apps.weather.learned.emulator import Emulator, features, targets
from apps.weather.learned.fitting import (
    Batch,
    NetworkConfig,
    make_emulator,
    make_optimizer,
    training_loss,
)
from apps.weather.learned.scheme import LearnedRadiation
from apps.weather.physics import (
    Clouds,
    Columns,
    ExactRadiation,
    Physics,
    Radiation,
    RadiationResult,
    soundings,
)
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


def cost_reports(
    emulator: Emulator,
    batch: Batch,
    *,
    variant: str,
    make_optimizer: Callable[[torch.nn.Module], torch.optim.Optimizer],
    exact_points: Sequence[tuple[int, int]] = (),
    n_column: int = N_COLUMN,
    machines: Sequence[str] = (),
) -> list[tuple[str, hw.CostReport]]:
    """Give what each variant costs on each machine.

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
    return [
        (name, hw.cost_program(program, machine, phase=phase))
        for machine in machines or REFERENCE_MACHINES
        for name, phase, program in programs
    ]


def cost_entries(reports: Sequence[tuple[str, hw.CostReport]]) -> list[dict[str, Any]]:
    """Give the cost entries of a record."""
    entries = [report.entry(name) for name, report in reports]
    return [e | {"peak_tile_memory_byte": math.ceil(e["peak_tile_memory_byte"])} for e in entries]


def untrained_cost(
    network: NetworkConfig, variant: Variant, *, n_level: int = 8, machines: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Give the cost entries of a network that was never trained: cost needs shapes only."""
    generator = torch.Generator().manual_seed(0)
    emulator = make_emulator(n_level, network, variant.layer_spec(), generator)
    n_in, n_out = len(emulator.input_mean), len(emulator.output_mean)
    x, y = torch.randn(network.batch, n_in), torch.randn(network.batch, n_out)
    reports = cost_reports(
        emulator,
        (x, y, torch.ones_like(y)),
        variant=variant.name,
        make_optimizer=lambda model: make_optimizer(model, network),
        exact_points=EXACT_POINTS,
        machines=machines,
    )
    return cost_entries(reports)


def measured_steps(
    network: NetworkConfig,
    variants: Sequence[Variant],
    *,
    resolution: str = "T21L8",
    n_round: int = 6,
) -> list[dict[str, Any]]:
    """Measure a moist step of the model here, part by part, with each radiation scheme.

    One thread's CPU seconds, the quickest of `n_round` turns that the parts of all variants take
    one after the other, so that every ratio is to the same measurement of the exact scheme. The
    learned schemes are untrained, compiled where they can be (``learned, VARIANT``) and as plain
    torch (``learned-torch, VARIANT``).

    Returns
    -------
    list of dict
        By scheme: ``radiation_s`` of a call; ``physics_s`` (the rest of it) and ``dynamics_s`` of a
        step; ``radiation_share`` of a step that calls it and, ``..._3h``, of the mean step when it
        is called every 3 hours; ``radiation_ratio``, ``step_ratio`` and ``step_ratio_3h``: times
        that the exact scheme (`EXACT_POINTS` first) takes as long.
    """
    model = ModelConfig(resolution=resolution).build()
    assert isinstance(model.physics, Physics)
    state = model.run(first_state(model, "rest", 0), 2.0 * model.dt)
    columns = model.columns(model.equations.to_grid(state.levels.previous), state.time_s)
    label = ExactRadiation(16, 8)(columns)
    radiation: dict[str, Radiation] = {
        f"exact-{a}+{b}": ExactRadiation(a, b) for a, b in EXACT_POINTS
    }
    for variant in variants:
        emulator = _untrained(network, variant, columns, label)
        radiation[f"learned, {variant.name}"] = LearnedRadiation(emulator)
        radiation[f"learned-torch, {variant.name}"] = LearnedRadiation(emulator, is_fused=False)
    kept = state._replace(levels=state.levels._replace(n_step=1), radiation=label)
    physics = model.physics
    parts: dict[str, Callable[[], object]] = {
        name: partial(scheme, columns) for name, scheme in radiation.items()
    }
    parts["physics"] = lambda: physics.tendencies(columns, 2.0 * model.dt, label)
    parts["step"] = lambda: model.step(kept)
    least = _least_cpu_s(parts, n_round)
    first, every = next(iter(radiation)), model.n_step_radiation
    rest, exact = least["step"], least[first]
    return [
        {
            "scheme": name,
            "resolution": resolution,
            "radiation_s": least[name],
            "physics_s": least["physics"],
            "dynamics_s": rest - least["physics"],
            "radiation_share": least[name] / (rest + least[name]),
            "radiation_share_3h": least[name] / (every * rest + least[name]),
            "radiation_ratio": exact / least[name],
            "step_ratio": (rest + exact) / (rest + least[name]),
            "step_ratio_3h": (every * rest + exact) / (every * rest + least[name]),
        }
        for name in radiation
    ]


def _untrained(
    network: NetworkConfig, variant: Variant, columns: Columns, label: RadiationResult
) -> Emulator:
    """Give a network of `variant` that has seen the range of the columns, and nothing else."""
    generator = torch.Generator().manual_seed(0)
    n_level = columns.temperature.shape[1]
    emulator = make_emulator(n_level, network, variant.layer_spec(), generator)
    sun = columns.cos_zenith
    x = features(columns, Clouds())
    emulator.normalise(x, targets(label, sun), sun.clamp(min=0).square())
    with torch.no_grad():
        emulator.train()(emulator.scaled(x))  # the range of the activations
    return emulator.eval()


def _least_cpu_s(parts: dict[str, Callable[[], object]], n_round: int) -> dict[str, float]:
    """Give the least CPU seconds of each part on one thread, in turns."""
    least = dict.fromkeys(parts, math.inf)
    n_thread = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            for _ in range(n_round):
                for name, part in parts.items():
                    # short parts again and again, so that all find the quiet moments
                    end = time.thread_time() + 0.05
                    while time.thread_time() < end:
                        begun = time.thread_time()
                        part()
                        least[name] = min(least[name], time.thread_time() - begun)
    finally:
        torch.set_num_threads(n_thread)
    return least


def step_table(rows: Sequence[dict[str, Any]]) -> str:
    """Spell `measured_steps` as a table."""
    first = rows[0]
    dynamics, physics = 1e3 * first["dynamics_s"], 1e3 * first["physics_s"]
    head = (
        f"a step of {first['resolution']} measured here, CPU time of one thread: dynamics "
        f"{dynamics:.2f} ms, physics but radiation {physics:.2f} ms"
    )
    names = (
        f"{'radiation':28s}{'a call, ms':>12s}{'cheaper':>9s}"
        f"{'share':>8s}{'step cheaper':>14s}{'share, 3 h':>12s}{'step cheaper':>14s}"
    )
    body = [
        f"{r['scheme']:28s}{1e3 * r['radiation_s']:12.3f}{r['radiation_ratio']:8.1f}x"
        f"{100 * r['radiation_share']:7.1f}%{r['step_ratio']:13.2f}x"
        f"{100 * r['radiation_share_3h']:11.1f}%{r['step_ratio_3h']:13.2f}x"
        for r in rows
    ]
    return "\n".join([head, names, *body])


def cost_table(entries: Sequence[dict[str, Any]]) -> str:
    """Spell cost entries as a table."""
    head = f"{'machine':12s}{'what':24s}{'phase':12s}{'time, us':>12s}{'energy, mJ':>12s}  fits"
    rows = [
        f"{e['machine']:12s}{e['variant']:24s}{e['phase']:12s}"
        f"{1e6 * e['time_s']:12.1f}{1e3 * e['energy_j']:12.2f}  {'yes' if e['fits'] else 'no'}"
        for e in entries
    ]
    return "\n".join([head, *rows])
