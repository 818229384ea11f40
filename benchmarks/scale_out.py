"""`tessera bench scale_out`: what a second process is worth, to a study and to one training.

Workers: the same short trainings, one after the other in a process, and by `apps.lab.pool` with two
workers, each timed from the start of its process to its end. Training: weak scaling under torchrun,
one batch a process, beside what `hw.scale` expects of two chips, and beside two processes that
train without a word to each other, which is the most that two cores of this machine can give. They
alternate within one pair of processes. About seven minutes, with two cores free.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

import core
from apps.lab import parallel
from apps.lab.fit import fit
from apps.lab.pool import has_dask, map_tasks
from apps.lab.recipe import Recipe
from apps.lab.variant import REFERENCE_MACHINES

ROOT = Path(__file__).resolve().parents[1]
APPLICATIONS = ("chemistry", "weather")
SIZE = {"chemistry": 256, "weather": 4096}  # items a process in a step
N_STEP = {"chemistry": 8, "weather": 50}
N_STEP_OF_TASK = 4800  # some three seconds; a run of studies/two_sciences.toml takes six

Parts = tuple[torch.nn.Module, Callable[[Any, Any], Any], np.ndarray, Callable[[Any], Any]]


def parts_of(application: str, size: int) -> Parts:
    """Give a network at demo size, its loss, the size of each item, and what packs some of them."""
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
        sizes = np.array([graph.n_atom + graph.n_edge for graph in graphs])

        def packed(some: np.ndarray) -> Any:
            return pack([graphs[i] for i in some], target[some])

        return model, lambda net, batch: net.loss(batch), sizes, packed
    from apps.weather.learned.fitting import NetworkConfig, make_emulator, training_loss
    from core import LayerSpec

    emulator = make_emulator(8, NetworkConfig(), LayerSpec(), generator)
    n_in, n_out = len(emulator.input_mean), len(emulator.output_mean)
    x, y = (torch.randn(8 * size, n, generator=generator) for n in (n_in, n_out))

    def batch_of(some: np.ndarray) -> Any:
        rows = torch.from_numpy(some)
        return x[rows], y[rows], torch.ones(len(some), n_out)

    return emulator, training_loss, np.ones(8 * size), batch_of


def rates(application: str, size: int, n_step: int, n_round: int) -> dict[str, float]:
    """Give items a second by who trains, `size` items a step in each process; run on both ranks.

    `one`: the first process, while the other waits; `apart`: both, each for itself, added up;
    `two`: both together, one model. Best of the rounds, as others may use the machine.
    """
    core.keep_freed_memory()  # as every training does
    model, loss, sizes, packed = parts_of(application, size)
    optimizer = Recipe().make_optimizer(model, 1e-3, weight_decay=0.0)

    def batches(epoch: int) -> Iterable[Any]:
        whole = size * parallel.n_rank()
        for step in range(n_step):
            pick = np.random.default_rng([epoch, step]).integers(len(sizes), size=whole)
            is_even = application == "weather"  # as each of them shares its batches
            mine = parallel.share(pick) if is_even else parallel.share_evenly(pick, sizes[pick])
            yield packed(mine)

    def count(batch: Any) -> int:
        return int(getattr(batch, "num_graphs", 0)) or len(batch[0])

    def rate() -> float:
        done = fit(
            model=model, optimizer=optimizer, batches=batches, loss=loss, n_epoch=1,
            item_count=count, steps_per_epoch=n_step,
        )  # fmt: skip
        return done.item_per_s

    best = {"one": 0.0, "apart": 0.0, "two": 0.0}
    start = {name: value.clone() for name, value in model.state_dict().items()}
    first = parallel.is_first()
    for i_round in range(n_round + 1):
        found = {}
        model.load_state_dict(start)  # weights that grew apart would be refused
        dist.barrier()
        found["two"] = rate()
        dist.barrier()
        with parallel.alone():
            mine = torch.tensor(rate())
        dist.all_reduce(mine)
        found["apart"] = float(mine)
        if first:
            with parallel.alone():
                found["one"] = rate()
        dist.barrier()
        if i_round:  # the first round warms up
            best = {who: max(best[who], found.get(who, 0.0)) for who in best}
    return best


def under_torchrun(application: str, size: int, n_step: int, n_round: int) -> dict[str, float]:
    """Run `rates` in two processes of one thread each."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rates.json"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", "2", "-m", "benchmarks.scale_out", "--rank-of", application]
        command += ["--size", str(size), "--steps", str(n_step), "--rounds", str(n_round)]
        return dict(json.loads(_ended([*command, "--out", str(out)]) or out.read_text()))


def _ended(command: list[str]) -> str:
    """Run a command with one thread a process; give nothing, or fail with what it said."""
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return ""


def expected(application: str, size: int) -> dict[str, float]:
    """Give speed-up of two chips over one by the machine model, for each reference machine."""
    import hw
    from hw.scale import Layout, scale, step_work

    model, loss, _, packed = parts_of(application, size)
    batch = packed(np.arange(size))
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
    """Train a little, as a worker's task. Gives the seconds that it took."""
    core.keep_freed_memory()  # as every training does
    start = time.perf_counter()
    torch.set_num_threads(1)
    model, loss, sizes, packed = parts_of("weather", 256)
    optimizer = Recipe().make_optimizer(model, 1e-3, weight_decay=0.0)

    def batches(epoch: int) -> Iterable[Any]:
        order = np.random.default_rng([seed, epoch])
        for _ in range(N_STEP_OF_TASK):
            yield packed(order.integers(len(sizes), size=256))

    fit(
        model=model, optimizer=optimizer, batches=batches, loss=loss, n_epoch=1,
        item_count=lambda batch: len(batch[0]), steps_per_epoch=N_STEP_OF_TASK,
    )  # fmt: skip
    return time.perf_counter() - start


def do_tasks(n_task: int, n_job: int) -> list[float]:
    """Give the seconds that each task took: in this process, or with `n_job` workers."""
    return map_tasks(short_training, range(n_task), n_job=n_job)


def two_workers(n_task: int, n_round: int) -> dict[str, Any]:
    """Compare serial work with two workers: processes from start to end, best of the rounds."""
    walls: dict[int, list[float]] = {1: [], 2: []}
    within: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "seconds.json"
        for _ in range(n_round):
            for n_job in walls:
                command = [sys.executable, "-m", "benchmarks.scale_out", "--tasks", str(n_task)]
                start = time.perf_counter()
                _ended([*command, "--jobs-of", str(n_job), "--out", str(out)])
                walls[n_job].append(time.perf_counter() - start)
                within[n_job].append(sum(json.loads(out.read_text())))
    one, two = min(walls[1]), min(walls[2])
    return {
        "what": f"{n_task} trainings on two workers",
        "engine": "dask" if has_dask() else "processes",
        "serial_s": round(one, 2),
        "two_s": round(two, 2),
        "speed_up": round(one / two, 3),
        # a task takes longer where its neighbour shares memory or the processor
        "task_s": round(min(within[1]) / n_task, 3),
        "task_beside_another_s": round(min(within[2]) / n_task, 3),
        # what is left of the processes' time: loading, starting workers, ending
        "serial_rest_s": round(one - min(within[1]), 2),
        "two_rest_s": round(two - min(within[2]) / 2, 2),
    }


def two_ranks(application: str, size: int, n_step: int, n_round: int) -> dict[str, Any]:
    """Compare one process with two under torchrun, each with `size` items a step."""
    found = under_torchrun(application, size, n_step, n_round)
    return {
        "what": f"{application} training, {size} items a process",
        "one_item_per_s": round(found["one"], 1),
        "two_item_per_s": round(found["two"], 1),
        "speed_up": round(found["two"] / found["one"], 3),
        "apart_speed_up": round(found["apart"] / found["one"], 3),
        "expected_by_hw": {k: round(v, 3) for k, v in expected(application, size).items()},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a JSON line for each comparison."""
    parser = argparse.ArgumentParser(prog="tessera bench scale_out")
    parser.add_argument("--rounds", type=int, help="of each comparison [training 16, workers 1]")
    parser.add_argument("--tasks", type=int, default=60, help="for the workers")
    parser.add_argument("--only", choices=(*APPLICATIONS, "workers"))
    parser.add_argument("--size", type=int, help="items a process in a step [256; weather 4096]")
    parser.add_argument("--steps", type=int, help="of a round [8; weather 50]")
    parser.add_argument("--rank-of", choices=APPLICATIONS, help=argparse.SUPPRESS)
    parser.add_argument("--jobs-of", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if args.rank_of:
        parallel.join()
        found = rates(args.rank_of, args.size, args.steps, args.rounds)
        if parallel.is_first():
            args.out.write_text(json.dumps(found))
        parallel.leave_unless_first()
        return 0
    if args.jobs_of:
        args.out.write_text(json.dumps(do_tasks(args.tasks, args.jobs_of)))
        return 0
    if args.only in (None, "workers"):
        print(json.dumps(two_workers(args.tasks, args.rounds or 1)), flush=True)
    for application in APPLICATIONS:
        if args.only in (None, application):
            size = args.size or SIZE[application]
            n_step = args.steps or N_STEP[application]
            print(json.dumps(two_ranks(application, size, n_step, args.rounds or 16)), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
