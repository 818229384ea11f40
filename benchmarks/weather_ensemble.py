"""An ensemble's skill by lead, and what resolution the cores of a machine buy in two hours.

``--emulator`` puts a trained scheme in the place of the exact radiation. The truth starts from the
analysis in error by a balanced pattern that the members' own are drawn like (or, with ``bred``,
bred vectors of the same size), so that a good ensemble has spread as large as the error of its
mean. The second part times a day of each resolution on one core: an ensemble of 50 members and 14
days shares nothing between members.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from apps.weather.atmosphere.constants import DAY_S
from apps.weather.forecast import load_sample
from apps.weather.model import Model, ModelState
from apps.weather.physics import ExactRadiation, Physics, Radiation
from apps.weather.verdict import (
    balanced_error,
    bred,
    fair_crps,
    hours_to_solution,
    rank_histogram,
    spread_skill,
)
from apps.weather.verdict.ensemble import temperature_rms
from benchmarks.weather import present

RESOLUTIONS = ("T21L8", "T31L8", "T42L8", "T63L8")
CORES = (1, 2, 8, 32, 64)
DEADLINE_H = 2.0
SIZE = 0.1  # of an analysis error, in climatological standard deviations
LEVEL = 1  # near sigma 0.2


def radiation_of(args: argparse.Namespace) -> Radiation:
    """Give the learned scheme of a folder, or the exact one."""
    if args.emulator is None:
        return ExactRadiation(args.n_longwave, args.n_shortwave)
    from apps.weather.learned import LearnedRadiation, load_emulator

    return LearnedRadiation(load_emulator(args.emulator)[0])


def scheme_of(args: argparse.Namespace) -> str:
    """Name the radiation."""
    return "learned" if args.emulator else f"{args.n_longwave} + {args.n_shortwave} points"


def beginnings(
    model: Model, kind: str, n_member: int, seed: int
) -> tuple[ModelState, list[ModelState]]:
    """Give the truth's start, and the members about an analysis."""
    generator = torch.Generator().manual_seed(seed)
    state, kept = load_sample(model), []
    for _ in range(8):
        state = model.run(state, 3 * DAY_S)
        kept.append(state)
    if kind == "bred":
        size_k = SIZE * temperature_rms(model, kept[0], kept[4]) / 2**0.5
        analysis, members = bred(
            model, state, (n_member + 1) // 2, size_k=size_k, cycle_s=DAY_S, n_cycle=4,
            generator=generator,
        )  # fmt: skip
        return balanced_error(analysis, kept, SIZE, generator), members[:n_member]
    drawn = [balanced_error(state, kept, SIZE, generator) for _ in range(n_member + 1)]
    return drawn[0], drawn[1:]


def skill(args: argparse.Namespace, kind: str) -> Iterator[dict[str, Any]]:
    """One row for each lead: CRPS, spread over skill, share of truths beyond every member."""
    model = Model("T21L8", physics=Physics(radiation_of(args)))
    truth, members = beginnings(model, kind, args.n_member, args.seed)
    weight = model.grid.area_weight
    for day in range(1, args.n_day + 1):
        truth = model.run(truth, DAY_S)
        members = [model.run(member, DAY_S) for member in members]
        true, *fields = (
            model.transform.synthesise(s.levels.current.temperature[..., LEVEL : LEVEL + 1])
            .squeeze(-1)
            .double()
            for s in (truth, *members)
        )
        stack = torch.stack(fields)
        ranks = rank_histogram(stack, true).double()
        yield {
            "ensemble": kind,
            "radiation": scheme_of(args),
            "day": day,
            "crps_k": float((weight * fair_crps(stack, true)).sum()),
            "spread_skill": float(spread_skill(stack, true, weight)),
            "outliers": float((ranks[0] + ranks[-1]) / ranks.sum()),
            "outliers_if_reliable": 2.0 / (len(fields) + 1),
        }


def times(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row for each resolution: CPU time of a day, and hours of 50 x 14 days by cores."""
    cpu_s: dict[str, float] = {}
    for resolution in RESOLUTIONS:
        model = Model(resolution, physics=Physics(radiation_of(args)))
        state = model.run(load_sample(model), DAY_S / 2)
        begun = time.process_time()
        model.run(state, DAY_S / 2)
        cpu_s[resolution] = 2.0 * (time.process_time() - begun)
    for resolution, second in cpu_s.items():
        hours = {f"hours_{n}_core": hours_to_solution(cpu_s, n)[resolution] for n in CORES}
        enough = [n for n in CORES if hours[f"hours_{n}_core"] <= DEADLINE_H]
        row = {"ensemble": f"{resolution}, 50 x 14 days", "radiation": scheme_of(args)}
        yield {
            **row,
            "cpu_s_per_day": second,
            **hours,
            "core_for_deadline": enough[0] if enough else f"> {CORES[-1]}",
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """Print both parts."""
    parser = argparse.ArgumentParser(prog="tessera bench weather --part ensemble")
    parser.add_argument("--emulator", type=Path, help="a `weather train` run's folder")
    parser.add_argument("--n-longwave", type=int, default=128, help="of the exact scheme")
    parser.add_argument("--n-shortwave", type=int, default=32)
    parser.add_argument("--n-member", type=int, default=10)
    parser.add_argument("--n-day", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="a JSON line for each row")
    parser.add_argument("--keep", action="store_true", help="add rows to results/weather.jsonl")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    columns = (
        "ensemble",
        "radiation",
        "day",
        "crps_k",
        "spread_skill",
        "outliers",
        "outliers_if_reliable",
    )
    for kind in ("balanced", "bred"):
        present(
            "ensemble", skill(args, kind), columns, key=("ensemble", "day"),
            title=f"{args.n_member} members at T21L8, temperature near sigma 0.2.",
            is_json=args.json, is_kept=args.keep,
        )  # fmt: skip
    hours = tuple(f"hours_{n}_core" for n in CORES)
    present(
        "deadline",
        times(args),
        ("ensemble", "radiation", "cpu_s_per_day", *hours, "core_for_deadline"),
        key=("ensemble", "radiation"),
        title=f"Hours to the end of 50 members and 14 days; deadline {DEADLINE_H:g} hours.",
        is_json=args.json, is_kept=args.keep,
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
