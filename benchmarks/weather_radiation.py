"""Learned radiation against exact radiation with fewer points: error and CPU time in one process.

Truth is the exact scheme with 512 longwave and 128 shortwave points on unseen days. Times are CPU
time of one thread for a call on the T21 grid, the quickest of many that take turns. The learned
scheme runs compiled (`apps.weather.learned.fused`) and as plain torch, as the exact schemes do.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from apps.weather.learned import (
    ColumnsConfig,
    Emulator,
    LabelledColumns,
    LearnedRadiation,
    cached_columns,
    load_emulator,
    score_scheme,
)
from apps.weather.learned.columns import split_index
from apps.weather.physics import Columns, ExactRadiation, Radiation
from benchmarks.weather import present

TRUTH = (512, 128)
EXACT = ((16, 8), (41, 16), (64, 32), (128, 32))
#: CPU time is compared with this scheme's, whose accuracy the labels have.
LABELLING = "exact-128+32"


def quickest(schemes: dict[str, Radiation], columns: Columns, seconds: float) -> dict[str, float]:
    """CPU seconds of one call; schemes take turns, each for the same share of `seconds`."""
    best = dict.fromkeys(schemes, float("inf"))
    n_turn = 8
    for _ in range(n_turn):
        for name, scheme in schemes.items():
            end = time.thread_time() + seconds / n_turn / len(schemes)
            while time.thread_time() < end:
                begun = time.thread_time()
                scheme(columns)
                best[name] = min(best[name], time.thread_time() - begun)
    return best


def named(net: Emulator) -> str:
    """Spell what a network's hidden layers are, and its width."""
    weight, activation = net.spec.weight_format, net.spec.activation_format
    formats = weight if activation == weight else f"{weight}-{activation}"
    if activation == "fp32" != weight:
        formats = f"{weight} weights"
    density = "" if net.spec.density == 1 else f" density {net.spec.density:g}"
    return f"learned {formats}{density} {net.width}"


def rows(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row for each scheme."""
    schemes: dict[str, Radiation] = {f"exact-{lw}+{sw}": ExactRadiation(lw, sw) for lw, sw in EXACT}
    config = ColumnsConfig()
    for folder in args.emulator:
        net, meta = load_emulator(folder)
        config = ColumnsConfig(**meta["columns"])
        name = named(net)
        schemes[name] = LearnedRadiation(net)
        schemes[f"{name}, torch"] = LearnedRadiation(net, is_fused=False)
    found, _ = cached_columns(config, seed=args.seed, folder=args.folder)
    test = found.take(split_index(found.time_s, config)["test"])
    some = test.take(torch.arange(0, len(test), max(1, len(test) // 2048))[:2048])
    truth = LabelledColumns(some.columns, ExactRadiation(*TRUTH)(some.columns), some.time_s)
    with torch.no_grad():
        times = quickest(schemes, some.columns, args.seconds)
    for name, scheme in schemes.items():
        yield {
            "scheme": name,
            "cpu_us_per_column": 1e6 * times[name] / len(some),
            "cheaper_than_128": times[LABELLING] / times[name],
            "cheaper_than_41": times["exact-41+16"] / times[name],
            **score_scheme(scheme, truth),
        }


COLUMNS = ("scheme", "cpu_us_per_column", "cheaper_than_128", "cheaper_than_41")
COLUMNS += ("lw_rmse_k_per_day", "sw_rmse_k_per_day", "olr_rmse_w_m2", "olr_bias_w_m2")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a row for each scheme."""
    parser = argparse.ArgumentParser(prog="tessera bench weather --part radiation")
    parser.add_argument(
        "--emulator",
        action="append",
        type=Path,
        default=[],
        help="a `weather train` run's folder, or a network's file",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=20.0, help="of CPU time for all timings")
    parser.add_argument("--folder", type=Path, default=Path("runs"), help="keeps the columns")
    parser.add_argument("--json", action="store_true", help="a JSON line for each row")
    parser.add_argument("--keep", action="store_true", help="add rows to results/weather.jsonl")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    title = f"Error against {TRUTH[0]} + {TRUTH[1]} points, and CPU time of one thread."
    present(
        "radiation", rows(args), COLUMNS, title=title, key=("scheme",),
        is_json=args.json, is_kept=args.keep,
    )  # fmt: skip
    return 0
