"""What the moist model conserves, and the climate that its energy makes.

Mass: the relative change of mean surface pressure over a run, with the fixer and without, in both
dtypes. Energy: what the air gains beyond every flux into it, in W/m2; and the fluxes themselves,
means over the days after `--skip` from the sample. Water: what rains less what evaporates.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from apps.weather.atmosphere import constants as c
from apps.weather.forecast import EnergyBudget, load_sample
from apps.weather.model import Model, ModelState
from apps.weather.physics import ExactRadiation, Physics
from apps.weather.physics.surface import Surface
from benchmarks.weather import present

DTYPES = {"fp64": torch.float64, "fp32": torch.float32}


def mean_pressure(model: Model, state: ModelState) -> float:
    """Mean surface pressure, Pa, of the stored harmonics, transformed in float64."""
    whole = Model(model.resolution, levels=model.levels, dtype=torch.float64).transform
    log_pressure = whole.synthesise(state.levels.current.log_pressure.double())
    return c.MEAN_PRESSURE * float(model.grid.mean(log_pressure.exp()))


def mass_rows(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row for each dtype, with the fixer and without."""
    for name, dtype in DTYPES.items():
        for fixed in (True, False):
            physics = Physics(ExactRadiation(16, 8))
            model = Model("T21L8", physics=physics, dtype=dtype, fix_mass=fixed)
            start = model.step(load_sample(model))
            state = model.run(start, args.n_mass_day * c.DAY_S)
            drift = mean_pressure(model, state) / mean_pressure(model, start) - 1.0
            case = f"mass, {name}, {'with' if fixed else 'without'} the fixer"
            yield {"case": case, "n_day": args.n_mass_day, "relative": abs(drift)}


def energy_row(args: argparse.Namespace) -> dict[str, Any]:
    """Fluxes and residual of one run."""
    radiation = ExactRadiation(args.n_longwave, args.n_shortwave)
    surface = Surface(critical_richardson=args.richardson)
    model = Model(args.resolution, physics=Physics(radiation, surface))
    state = load_sample(model)
    if args.skip:
        state = model.run(state, args.skip * c.DAY_S)
    budget, coldest, rain, begun = EnergyBudget(model), [], [], time.process_time()

    def observe(new: ModelState) -> None:
        budget(new)
        if new.precipitation is not None:
            rain.append(float(model.grid.mean(new.precipitation)))
        if len(rain) % round(c.DAY_S / model.dt) == 0:
            coldest.append(model.diagnose(new)["min_temperature_k"])

    model.run(state, args.n_day * c.DAY_S, observe)
    found = budget.close()
    usual = args.richardson == Surface.critical_richardson
    mixing = "" if usual else f", critical Richardson number {args.richardson:g}"
    return {
        "case": f"{args.resolution}, {args.n_longwave} + {args.n_shortwave} points{mixing}",
        "n_day": args.n_day,
        "residual_w_m2": found["residual"],
        "asr_w_m2": found["asr"],
        "olr_w_m2": found["olr"],
        "imbalance_w_m2": found["asr"] - found["olr"],
        "sensible_w_m2": found["sensible_heat"],
        "latent_w_m2": found["latent_heat"],
        "rain_mm_per_day": c.DAY_S * sum(rain) / len(rain),
        "min_temperature_k": min(coldest),
        "cpu_s_per_day": (time.process_time() - begun) / args.n_day,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser(prog="tessera bench weather --part budget")
    parser.add_argument("--resolution", default="T21L8")
    parser.add_argument("--n-day", type=int, default=20)
    parser.add_argument("--skip", type=int, default=0, help="days from the sample left out")
    parser.add_argument("--n-mass-day", type=int, default=5, help="0 leaves the mass out")
    parser.add_argument("--n-longwave", type=int, default=64)
    parser.add_argument("--n-shortwave", type=int, default=32)
    parser.add_argument(
        "--richardson",
        type=float,
        default=Surface.critical_richardson,
        help="critical, of the boundary layer; inf for mixing that does not know stability",
    )
    parser.add_argument("--json", action="store_true", help="a JSON line for each row")
    parser.add_argument("--keep", action="store_true", help="add rows to results/weather.jsonl")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if args.n_mass_day:
        present(
            "mass", mass_rows(args), ("case", "n_day", "relative"), key=("case",),
            title="Change of the mass of the moist T21L8 model's air over a run.",
            is_json=args.json, is_kept=args.keep,
        )  # fmt: skip
    row = energy_row(args)
    present(
        "budget", [row], tuple(row), key=("case",),
        title="Energy of the moist model: residual, and mean fluxes from the sample on.",
        is_json=args.json, is_kept=args.keep,
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
