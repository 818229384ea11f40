"""`tessera bench scale_out`: what a second process is worth, to a study and to one training.

Workers: the same short trainings through `apps.lab.pool`, one worker and two. Training: weak
scaling under torchrun, one batch a process, beside what `hw.scale` expects of two chips. Both
orders alternate in one call and the best of each counts, as others may use the machine.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from apps.lab import parallel
from apps.lab.fit import fit
from apps.lab.pool import has_dask, run_tasks
from apps.lab.recipe import Recipe
from apps.lab.variant import REFERENCE_MACHINES

ROOT = Path(__file__).resolve().parents[1]
APPLICATIONS = ("chemistry", "weather")
N_STEP = 40

Parts = tuple[torch.nn.Module, Callable[[Any, Any], Any], list[Any], Callable[[Any], Any]]


def parts_of(application: str, size: int) -> Parts:
    """Give a network at demo size, its loss, a list of items, and what packs some of them."""
    generator = torch.Generator().manual_seed(0)
    if application == "chemistry":
        from apps.chemistry.config import TrainConfig
        from apps.chemistry.network import pack
        from apps.chemistry.predictor import build_network
        from apps.chemistry.train import read_table

        table = read_table(TrainConfig(), 0).select("train")
        model = build_network(TrainConfig(), n_task=1, seed=0)
        model.set_scale(table.target)
        graphs, target = table.graphs, table.target
        rows = list(range(len(graphs)))

        def packed(some: list[int]) -> Any:
            return pack([graphs[i] for i in some], target[some])

        return model, lambda net, batch: net.loss(batch), rows, packed
    from apps.weather.learned.fitting import NetworkConfig, make_emulator, training_loss
    from core import LayerSpec

    emulator = make_emulator(8, NetworkConfig(), LayerSpec(), generator)
    n_in, n_out = len(emulator.input_mean), len(emulator.output_mean)
    x, y = (torch.randn(8 * size, n, generator=generator) for n in (n_in, n_out))

    def batch_of(some: list[int]) -> Any:
        return x[some], y[some], torch.ones(len(some), n_out)

    return emulator, training_loss, list(range(8 * size)), batch_of


def train(application: str, size: int, n_step: int) -> float:
    """Give items a second over all processes, `size` items a step in each of them."""
    model, loss, items, packed = parts_of(application, size)
    whole = size * parallel.n_rank()

    def batches(epoch: int) -> Iterable[Any]:
        for step in range(n_step):
            order = torch.Generator().manual_seed(1000 * epoch + step)
            pick = torch.randint(len(items), (whole,), generator=order).tolist()
            yield packed(parallel.share(pick))

    def count(batch: Any) -> int:
        return int(getattr(batch, "num_graphs", 0)) or len(batch[0])

    optimizer = Recipe().make_optimizer(model, 1e-3, weight_decay=0.0)
    run = functools.partial(fit, model=model, optimizer=optimizer, batches=batches, loss=loss)
    rates = []
    for _ in range(3):
        done = run(n_epoch=1, item_count=count, steps_per_epoch=n_step)
        rates.append(done.item_per_s)
    return max(rates[1:])


def under_torchrun(application: str, size: int, n_step: int, n: int) -> float:
    """Train with `n` processes of one thread each; give items a second."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rate.json"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", str(n), "-m", "benchmarks.scale_out"]
        command += ["--rank-of", application, "--size", str(size), "--steps", str(n_step)]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        command += ["--out", str(out)]
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
        return float(json.loads(out.read_text()))


def expected(application: str, size: int) -> dict[str, float]:
    """Give speed-up of two chips over one by the machine model, for each reference machine."""
    import hw
    from hw.scale import Layout, scale, step_work

    model, loss, items, packed = parts_of(application, size)
    batch = packed(items[:size])
    optimizer = Recipe().make_optimizer(model, 1e-3, weight_decay=0.0)

    def step(batch: Any) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss(model, batch).backward()
        optimizer.step()

    step(batch)
    program = hw.trace(step, batch)
    found = {}
    for name in REFERENCE_MACHINES:
        report = hw.cost_program(program, name, phase="train_step")
        work = step_work(report, program, size)
        found[name] = 2 * scale(work, hw.load_machine(name), Layout(data=2)).efficiency
    return found


def short_training(seed: int) -> float:
    """Train a little, as a worker's task; about two seconds on one core."""
    torch.set_num_threads(1)
    start = time.perf_counter()
    train("weather", 256, 400)
    return time.perf_counter() - start


def two_workers(n_task: int, n_round: int) -> dict[str, Any]:
    """Compare one worker with two on the same tasks, from the first start to the last result."""
    walls: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(n_round):
        for n_job in walls:
            start = time.perf_counter()
            ended = list(run_tasks(short_training, range(n_task), n_job=n_job))
            walls[n_job].append(time.perf_counter() - start)
            assert all(e.error is None for e in ended)
    one, two = min(walls[1]), min(walls[2])
    return {
        "what": f"{n_task} trainings on two workers",
        "engine": "dask" if has_dask() else "processes",
        "one_s": one,
        "two_s": two,
        "speed_up": one / two,
    }


def two_ranks(application: str, size: int, n_step: int, n_round: int) -> dict[str, Any]:
    """Compare one process with two under torchrun, each with `size` items a step."""
    rates: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(n_round):
        for n in rates:
            rates[n].append(under_torchrun(application, size, n_step, n))
    return {
        "what": f"{application} training, {size} items a process",
        "one_item_per_s": max(rates[1]),
        "two_item_per_s": max(rates[2]),
        "speed_up": max(rates[2]) / max(rates[1]),
        "expected_by_hw": {k: round(v, 3) for k, v in expected(application, size).items()},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a JSON line for each comparison."""
    parser = argparse.ArgumentParser(prog="tessera bench scale_out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tasks", type=int, default=16, help="for the workers; 0 leaves them out")
    parser.add_argument("--only", choices=(*APPLICATIONS, "workers"))
    parser.add_argument("--size", type=int, help="items a process in a step [256; weather 4096]")
    parser.add_argument("--steps", type=int, default=N_STEP)
    parser.add_argument("--rank-of", choices=APPLICATIONS, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.rank_of:
        torch.set_num_threads(1)
        parallel.join()
        rate = train(args.rank_of, args.size, args.steps)
        if parallel.is_first():
            args.out.write_text(json.dumps(rate))
        parallel.leave_unless_first()
        return 0
    torch.set_num_threads(1)
    if args.only in (None, "workers"):
        print(json.dumps(two_workers(args.tasks, args.rounds)), flush=True)
    for application in APPLICATIONS:
        if args.only in (None, application):
            size = args.size or {"chemistry": 256, "weather": 4096}[application]
            row = two_ranks(application, size, args.steps, args.rounds)
            print(json.dumps(row), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
