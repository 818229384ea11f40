"""How many days the moist dynamics simulate in a minute of CPU time, beside dinosaur.

Both codes step the spun-up sample, refined, on the same grid and levels in float32 on one thread,
without physics, by turns in one process. Dinosaur (extra `compare`; left out without it) takes its
three-stage IMEX scheme and its exponential filter, as in its own examples, with the step of the
semi-implicit leapfrog and with the step of twenty minutes that it is usually run with.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from apps.weather.atmosphere.constants import DAY_S
from apps.weather.atmosphere.grid import parse_resolution
from apps.weather.forecast import load_sample
from apps.weather.model import Model
from benchmarks.weather import present
from benchmarks.weather_dynamics import Peer
from core.errors import ConfigError

PEER_STEP_S = 1200.0
COLUMNS = ("code", "step_s", "day_per_cpu_minute", "quartile_low", "quartile_high", "ms_per_step")


def ours(resolution: str) -> tuple[float, Callable[[int], Any]]:
    """Our step in seconds, and a function that runs some steps and gives the state."""
    model = Model(resolution)
    held = [load_sample(model)]

    @torch.no_grad()
    def run(n_step: int) -> Any:
        for _ in range(n_step):
            held[0] = model.step(held[0])
        return held[0].levels.current.temperature

    return model.dt, run


def theirs(resolution: str, dt: float) -> Callable[[int], Any]:
    """Give a function that runs some steps of dinosaur, compiled at its first call."""
    truncation, n_level = parse_resolution(resolution)
    peer = Peer(truncation, n_level, moist=True, double=False)
    import jax
    from dinosaur import time_integration

    model = Model(resolution, dtype=torch.float64)
    grid = model.equations.to_grid(load_sample(model).levels.current)
    held = [jax.tree.map(lambda x: jax.numpy.asarray(x, jax.numpy.float32), peer.state(grid))]
    step_s = float(peer.specs.nondimensionalize(dt * peer.unit.s))
    step = time_integration.step_with_filters(
        time_integration.imex_rk_sil3(peer.equations, step_s),
        [time_integration.exponential_step_filter(peer.coords.horizontal, step_s)],
    )
    many = jax.jit(
        lambda state, n: jax.lax.fori_loop(0, n, lambda _, x: step(x), state), static_argnums=1
    )

    def run(n_step: int) -> Any:
        held[0] = jax.block_until_ready(many(held[0], n_step))
        return torch.tensor(float(abs(held[0].temperature_variation).max()))

    return run


def rows(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row for each code and step."""
    dt, run = ours(args.resolution)
    codes: dict[str, tuple[float, Callable[[int], Any]]] = {"ours": (dt, run)}
    try:
        for step in (PEER_STEP_S, dt):
            codes[f"dinosaur {step:.0f} s"] = (step, theirs(args.resolution, step))
    except ConfigError as error:
        print(error, file=sys.stderr)
    times: dict[str, list[float]] = {name: [] for name in codes}
    for name, (step, run) in codes.items():
        run(args.n_step)  # compiles, warms up
        assert bool(torch.isfinite(run(args.n_step)).all()), f"{name} at {step} s"
    for _ in range(args.n_repeat):
        for name, (_, run) in codes.items():
            begun = time.process_time()
            run(args.n_step)
            times[name].append((time.process_time() - begun) / args.n_step)
    for name, (step, _) in codes.items():
        days = [60.0 / second * step / DAY_S for second in times[name]]
        low, middle, high = statistics.quantiles(days, n=4)
        yield {
            "code": name,
            "resolution": args.resolution,
            "step_s": step,
            "day_per_cpu_minute": middle,
            "quartile_low": low,
            "quartile_high": high,
            "ms_per_step": 1e3 * statistics.median(times[name]),
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a row for each code."""
    parser = argparse.ArgumentParser(prog="tessera bench weather --part speed")
    parser.add_argument("--resolution", default="T31L8")
    parser.add_argument("--n-step", type=int, default=24, help="steps of one timed run")
    parser.add_argument("--n-repeat", type=int, default=20)
    parser.add_argument("--json", action="store_true", help="a JSON line for each row")
    parser.add_argument("--keep", action="store_true", help="add rows to results/weather.jsonl")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    # one thread for the peer, too; it reads this when jax starts
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    present(
        "speed", rows(args), COLUMNS, key=("resolution", "code"),
        title=f"Moist dynamics at {args.resolution}, float32, one thread: days per CPU minute.",
        is_json=args.json, is_kept=args.keep,
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
