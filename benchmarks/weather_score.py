"""The scorecard of trained networks as rows: error over the noise floor, hours of skill lost.

Runs `tessera weather score`, goes on with a run that was stopped, or reads one that is done.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from apps.weather.verdict.score import ScoreConfig, run
from benchmarks.weather import present, record_of


def rows(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row for each line of the scorecard, learned ones first."""
    record = record_of(args, ScoreConfig, run)
    config = ScoreConfig.model_validate(record.config)
    learned = {"learned": record.accuracy["test"]}
    for name, scores in (learned | {k: v["test"] for k, v in record.baselines.items()}).items():
        yield {
            "line": name,
            "resolution": config.model.resolution,
            "n_date": config.n_date,
            "seed": record.seed,
            **scores,
        }


COLUMNS = ("line", "resolution", "n_date", "t_upper_rmse_k_day1", "t_upper_rmse_k_day10")
COLUMNS += ("t_upper_over_noise_day10", "z500_rmse_m_day10", "z500_acc_day10")
COLUMNS += ("hours_lost_z500", "hours_lost_worst_variable", "noise_doubling_day")
TITLE = "Forecasts against the exact scheme's: upper temperature, height, hours of skill lost."


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a row for each line."""
    parser = argparse.ArgumentParser(prog="tessera bench weather --part score")
    parser.add_argument(
        "--emulator", action="append", type=Path, default=[], help="a `weather train` run's folder"
    )
    parser.add_argument("--set", action="append", default=[], help="as in `tessera weather score`")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", type=Path, default=Path("runs/weather-score"), help="folder of the run"
    )
    parser.add_argument("--json", action="store_true", help="a JSON line for each row")
    parser.add_argument("--keep", action="store_true", help="add rows to results/weather.jsonl")
    args = parser.parse_args(arguments)
    if not args.emulator and not (args.out / "record.json").exists():
        print("score: give --emulator, or the --out of a run that is done", file=sys.stderr)
        return 2
    present(
        "score", rows(args), COLUMNS,
        title=TITLE,
        key=("line", "resolution", "n_date", "seed"), is_json=args.json, is_kept=args.keep,
    )  # fmt: skip
    return 0
