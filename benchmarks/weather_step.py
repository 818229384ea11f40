"""A step of the whole model by radiation scheme: what learned radiation saves (Amdahl).

CPU time of one thread, the quickest of many calls that take turns in one process
(`apps.weather.cost.measured_steps`). "Every step" calls radiation in each step, as the learned
scheme can afford; "3 h" is the usual interval, at which the exact scheme's share is smaller.
Networks are untrained: their time does not depend on the weights.
"""

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from apps.lab.config import load_config
from apps.lab.variant import Variant
from apps.weather.cost import measured_steps
from apps.weather.train import TrainConfig
from benchmarks.weather import present

#: density, format of weights and activations
VARIANTS = ((1.0, "fp32"), (1.0, "bf16"), (1.0, "int8"), (0.25, "int8"), (0.125, "int8"))


def rows(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row for each scheme."""
    network = load_config(TrainConfig, overrides=args.set).network
    variants = [
        Variant(density=density, weight_format=form, activation_format=form)
        for density, form in VARIANTS
    ]
    for row in measured_steps(network, variants, resolution=args.resolution, n_round=args.n_round):
        yield {
            **row,
            "width": network.width,
            "radiation_ms": 1e3 * row["radiation_s"],
            "physics_ms": 1e3 * row["physics_s"],
            "dynamics_ms": 1e3 * row["dynamics_s"],
        }


COLUMNS = ("scheme", "resolution", "width", "radiation_ms", "physics_ms", "dynamics_ms")
COLUMNS += ("radiation_share", "radiation_ratio", "step_ratio", "radiation_share_3h")
COLUMNS += ("step_ratio_3h",)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a row for each scheme."""
    parser = argparse.ArgumentParser(prog="tessera bench weather --part step")
    parser.add_argument("--set", action="append", default=[], help="as in `tessera weather train`")
    parser.add_argument("--resolution", default="T21L8")
    parser.add_argument("--n-round", type=int, default=6, help="turns of every part")
    parser.add_argument("--json", action="store_true", help="a JSON line for each row")
    parser.add_argument("--keep", action="store_true", help="add rows to results/weather.jsonl")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    title = "CPU time of a step by radiation scheme; ratios to exact radiation of 128 + 32 points, "
    title += "called every step or every 3 h."
    present(
        "step", rows(args), COLUMNS, title=title, key=("scheme", "resolution", "width"),
        is_json=args.json, is_kept=args.keep,
    )  # fmt: skip
    return 0
