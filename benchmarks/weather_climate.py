"""The climate of a trained network as a row: bias beyond the noise of twins, drift, audit.

Runs `tessera weather climate`, goes on with a run that was stopped, or reads one that is done.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from apps.weather.verdict.climate import ClimateConfig, run
from benchmarks.weather import present, record_of


def rows(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Give the one row."""
    record = record_of(args, ClimateConfig, run)
    config = ClimateConfig.model_validate(record.config)
    scores = record.accuracy["test"]
    kinds = ("lw", "sw")
    yield {
        "network": args.name,
        "resolution": config.model.resolution,
        "n_day": config.n_day,
        "n_twin": config.n_twin,
        "seed": record.seed,
        **scores,
        **{
            f"audit_{kind}_ratio": scores[f"audit_{kind}_rmse_k_per_day_end"]
            / scores[f"audit_{kind}_rmse_k_per_day_start"]
            for kind in kinds
        },
    }


COLUMNS = ("network", "resolution", "n_day", "n_twin", "temperature_bias_rms")
COLUMNS += ("temperature_noise_rms", "temperature_beyond_noise", "olr_drift_per_year")
COLUMNS += ("olr_drift_per_year_exact", "audit_lw_ratio", "audit_sw_ratio", "share_outside")
TITLE = "Free-running learned radiation beside twins of the exact scheme; K, W/m2 in 360 days."


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the row."""
    parser = argparse.ArgumentParser(prog="tessera bench weather --part climate")
    parser.add_argument("--emulator", type=Path, help="a `weather train` run's folder")
    parser.add_argument("--name", default="learned", help="of the network in the table")
    parser.add_argument(
        "--set", action="append", default=[], help="as in `tessera weather climate`"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", type=Path, default=Path("runs/weather-climate"), help="folder of the run"
    )
    parser.add_argument("--json", action="store_true", help="a JSON line for each row")
    parser.add_argument("--keep", action="store_true", help="add rows to results/weather.jsonl")
    args = parser.parse_args(arguments)
    if args.emulator is None and not (args.out / "record.json").exists():
        print("climate: give --emulator, or the --out of a run that is done", file=sys.stderr)
        return 2
    present(
        "climate", rows(args), COLUMNS,
        title=TITLE,
        key=("network", "resolution", "n_day", "seed"), is_json=args.json, is_kept=args.keep,
    )  # fmt: skip
    return 0
