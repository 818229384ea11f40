"""What resolution each machine buys within the deadline of an ensemble: modelled, one chip.

Beside it stand the hours of processor cores, which `--part ensemble` measures.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from apps.lab.variant import REFERENCE_MACHINES, VARIANTS
from apps.weather.deadline import ensemble_hours
from benchmarks.weather import present

RESOLUTIONS = ("T21L8", "T31L10", "T42L20", "T63L20")
DEADLINE_H = 2.0
COLUMNS = (
    "machine", "resolution", "step_us", "radiation_us", "exact_us", "hour", "hour_exact",
    "within_deadline", "energy_kj", "fits",
)  # fmt: skip


def rows(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row for each machine and resolution."""
    found = ensemble_hours(
        args.resolution or RESOLUTIONS, VARIANTS[args.variant], machines=args.machine or ()
    )
    for row in found:
        yield {
            **row,
            "variant": args.variant,
            "step_us": 1e6 * row["step_s"],
            "radiation_us": 1e6 * row["radiation_s"],
            "exact_us": 1e6 * row["exact_s"],
            "energy_kj": 1e-3 * row["joule"],
            "within_deadline": row["hour"] <= DEADLINE_H,
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a row for each machine and resolution."""
    parser = argparse.ArgumentParser(prog="tessera bench weather --part machines")
    parser.add_argument("--variant", choices=list(VARIANTS), default="sparse-16x16-75-int8")
    parser.add_argument("--resolution", action="append", help=f"{', '.join(RESOLUTIONS)} without")
    parser.add_argument("--machine", action="append", help=f"{', '.join(REFERENCE_MACHINES)}")
    parser.add_argument("--json", action="store_true", help="a JSON line for each row")
    parser.add_argument("--keep", action="store_true", help="add rows to results/weather.jsonl")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    present(
        "machines", rows(args), COLUMNS,
        title="Modelled: 50 members of 14 days, one after the other on one chip, learned radiation "
        f"every 3 hours (and exact, 128 + 32 points); deadline {DEADLINE_H:g} hours.",
        key=("machine", "resolution", "variant"), is_json=args.json, is_kept=args.keep,
    )  # fmt: skip
    return 0
