"""Time of the simulator itself, in processor seconds of one thread.

    python -m benchmarks.hw

A training step of each application traced, planned and costed on a tile machine, a GPU and a
systolic array; 1,000 plans of block-sparse products; a transformer block of GPT-3's size on fake
tensors. Each is new to the planner's memory.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

import hw
from apps.chemistry.config import TrainConfig
from apps.chemistry.fitting import make_optimizer as chemistry_optimizer
from apps.chemistry.predictor import build_network
from apps.chemistry.train import first_batch, read_table
from apps.lab.variant import VARIANTS
from apps.weather.learned.fitting import NetworkConfig, make_emulator, training_loss
from apps.weather.learned.fitting import make_optimizer as weather_optimizer
from hw.machine import load_machine
from hw.model_text import trace_model
from hw.targets import cost_item
from hw.work import SparseContraction

MACHINES = ("ipu_bow", "a100", "tpu_v3")
N_PLAN = 1000


def chemistry_step() -> None:
    """Cost a training step of the default network on molecules of the default table."""
    config = TrainConfig()
    table = read_table(config, 0)
    model = build_network(config, n_task=table.target.shape[1], seed=0).train()
    optimizer, batch = chemistry_optimizer(model, config.train), first_batch(table, config)
    _cost_step("chemistry", model.loss, (batch,), optimizer)


def weather_step() -> None:
    """Cost a training step of the default emulator of radiation on eight levels."""
    config, generator = NetworkConfig(), torch.Generator().manual_seed(0)
    model = make_emulator(8, config, VARIANTS["dense-fp32"].layer_spec(), generator).train()
    x = torch.randn(config.batch, len(model.input_mean), generator=generator)
    y = torch.randn(config.batch, len(model.output_mean), generator=generator)
    optimizer = weather_optimizer(model, config)
    weight = torch.ones_like(y)
    _cost_step("weather", lambda *b: training_loss(model, b), (x, y, weight), optimizer)


def _cost_step(
    name: str,
    loss: Callable[..., torch.Tensor],
    batch: tuple[Any, ...],
    optimizer: torch.optim.Optimizer,
) -> None:
    def step(*batch: Any) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss(*batch).backward()
        optimizer.step()

    step(*batch)  # the first step makes the optimizer's state
    for machine in MACHINES:
        start = time.process_time()
        program = hw.trace(step, *batch)
        hw.cost_program(program, machine, phase="train_step")
        _say(f"{name} training step, {len(program)} ops, {machine}", start, 5)


def sparse_plans() -> None:
    """Plan block-sparse products of different sizes, static and dynamic in turn."""
    machine, f = load_machine("ipu_bow"), ("fp16",) * 3
    start = time.process_time()
    for i in range(N_PLAN):
        mode, n_block = ("static" if i % 2 else "dynamic"), 1000 + 37 * i
        shape = ("spmm", 4096, 4096, 64 + i, (16, 16), n_block)
        cost_item(SparseContraction(*shape, *f, mode), machine)  # type: ignore[arg-type]
    _say(f"{N_PLAN} block-sparse plans", start, 10)


def large_block() -> None:
    """Cost the training step of one block of GPT-3's size."""
    start = time.process_time()
    program, _ = trace_model(
        "transformer width=12288 depth=1 head=96 length=2048 batch=1 dtype=fp16"
    )
    hw.cost_program(program, "ipu_bow", phase="train_step")
    _say("block of GPT-3's size", start, 10)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print(f"{'largest memory of this process so far':<52}{peak:>8.2f} GB   goal   2 GB")


def _say(what: str, start: float, goal_s: float) -> None:
    print(f"{what:<52}{time.process_time() - start:>8.2f} s    goal {goal_s:>3.0f} s")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure everything and print one line each."""
    argparse.ArgumentParser(description=__doc__).parse_args(arguments)
    torch.set_num_threads(1)
    for part in (large_block, sparse_plans, weather_step, chemistry_step):
        part()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
