"""What the dynamics may hold in fewer bits: forecasts against float64, and drift of mass.

The moist aquaplanet of the sample (T21L8, few spectral points) runs from the same states in
float64 and with one thing rounded at a time: tables of the transforms, their operands, the state
stored between steps. Errors are of upper temperature, over the error that a disturbance of 0.001 K
makes (the noise floor): one or less means that the rounding does not matter. Mass is not fixed,
so that its drift is seen.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from apps.weather.atmosphere import constants as c
from apps.weather.atmosphere.precision import RoundedTransform, Storage
from apps.weather.atmosphere.spectral import HarmonicTransform
from apps.weather.atmosphere.state import State
from apps.weather.atmosphere.stepping import TimeLevels
from apps.weather.forecast import load_sample
from apps.weather.forecast.verify import NOISE_K
from apps.weather.model import Model, ModelState
from apps.weather.physics import ExactRadiation, Physics
from benchmarks.weather import present

SPACING_DAY = 5
# label: dtype, settings of the transform, settings of the store
Case = tuple[torch.dtype, dict[str, Any], dict[str, Any]]
SINGLE = torch.float32
CASES: dict[str, Case] = {
    "fp32": (SINGLE, {}, {}),
    "tables tf32": (SINGLE, {"tables": "tf32"}, {}),
    "tables bf16": (SINGLE, {"tables": "bf16"}, {}),
    "tables bf16, n < 4 whole": (SINGLE, {"tables": "bf16", "keep": 4}, {}),
    "tables fp16": (SINGLE, {"tables": "fp16"}, {}),
    "transforms fp16": (SINGLE, {"tables": "fp16", "operands": "fp16"}, {}),
    "transforms bf16": (SINGLE, {"tables": "bf16", "operands": "bf16"}, {}),
    "state bf16": (SINGLE, {}, {"name": "bf16"}),
    "state bf16, n < 4 whole": (SINGLE, {}, {"name": "bf16", "keep": 4}),
    "state bf16, stochastic": (SINGLE, {}, {"name": "bf16", "rounding": "stochastic"}),
    "state bf16, compensated": (SINGLE, {}, {"name": "bf16", "rounding": "compensated"}),
    "state fp16": (SINGLE, {}, {"name": "fp16"}),
    "state fp16, n < 4 whole": (SINGLE, {}, {"name": "fp16", "keep": 4}),
    "state fp16, compensated": (SINGLE, {}, {"name": "fp16", "rounding": "compensated"}),
}


def build(dtype: torch.dtype, transform: dict[str, Any]) -> Model:
    """Make the model, its transform rounded as asked."""
    model = Model("T21L8", physics=Physics(ExactRadiation(16, 8)), dtype=dtype, fix_mass=False)
    if transform:
        model.transform = RoundedTransform(model.grid, dtype=dtype, **transform)
        model.equations.transform = model.transform
    return model


def cast(state: ModelState, dtype: torch.dtype) -> ModelState:
    """Give the state in another dtype, without the radiation of the last call."""
    previous, current = (State(*(x.to(dtype) for x in level)) for level in state.levels[:2])
    levels = TimeLevels(previous, current, state.levels.n_step)
    return ModelState(levels, state.time_s)


def seen(model: Model, state: ModelState) -> tuple[torch.Tensor, float]:
    """Temperature near sigma 0.2 on the grid, and mean pressure over its norm, in float64."""
    whole = HarmonicTransform(model.grid, dtype=torch.float64)
    level = state.levels.current
    both = torch.cat([level.temperature[..., 1:2], level.log_pressure], dim=-1).double()
    temperature, log_pressure = whole.synthesise(both).unbind(-1)
    return temperature, float(model.grid.mean(log_pressure.exp()))


def forecast(
    model: Model,
    start: ModelState,
    n_day: int,
    store: Callable[[TimeLevels], TimeLevels] | None,
) -> tuple[list[torch.Tensor], float]:
    """Upper temperature day by day, and the relative drift of mass in a day."""
    state, out = start, []
    mass = seen(model, start)[1]
    with torch.no_grad():
        for _ in range(n_day):
            for _ in range(round(c.DAY_S / model.dt)):
                state = model.step(state)
                if store is not None:
                    state = state._replace(levels=store(state.levels))
            out.append(seen(model, state))
    return [field for field, _ in out], (out[-1][1] / mass - 1.0) / n_day


def rows(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row for each case, the noise floor first."""
    truth_model = build(torch.float64, {})
    state = cast(load_sample(truth_model), torch.float64)
    starts = []
    for _ in range(args.n_date):
        starts.append(state._replace(radiation=None))
        state = truth_model.run(state, SPACING_DAY * c.DAY_S)
    truths = [forecast(truth_model, start, args.n_day, None)[0] for start in starts]
    generator = torch.Generator().manual_seed(args.seed)
    days = [day for day in (1, 5, 10) if day <= args.n_day]

    def errors(made: Callable[[ModelState], tuple[list[torch.Tensor], float]]) -> dict[str, float]:
        square, drift = torch.zeros(args.n_day, dtype=torch.float64), 0.0
        for start, truth in zip(starts, truths, strict=True):
            fields, drifted = made(start)
            drift += abs(drifted) / len(starts)
            for i, (a, b) in enumerate(zip(fields, truth, strict=True)):
                square[i] += truth_model.grid.mean((a - b).square()) / len(starts)
        rmse = square.sqrt()
        return {f"rmse_k_day{d}": float(rmse[d - 1]) for d in days} | {"mass_drift_per_day": drift}

    floor = errors(
        lambda start: forecast(
            truth_model, truth_model.perturbed(start, NOISE_K, generator), args.n_day, None
        )
    )
    last = f"rmse_k_day{days[-1]}"
    yield {"case": "fp64 + 0.001 K", **floor, "over_noise": 1.0}
    for name, (dtype, transform, store) in CASES.items():
        model = build(dtype, transform)

        def run(
            start: ModelState, model: Model = model, store: dict[str, Any] = store
        ) -> tuple[list[torch.Tensor], float]:
            keeper = Storage(generator=generator, **store) if store else None
            return forecast(model, cast(start, model.transform.dtype), args.n_day, keeper)

        try:
            found = errors(run)
        except (RuntimeError, ValueError) as error:
            yield {"case": name, "over_noise": f"stopped: {error}"}
            continue
        yield {"case": name, **found, "over_noise": found[last] / floor[last]}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a row for each case."""
    parser = argparse.ArgumentParser(prog="tessera bench weather --part precision")
    parser.add_argument("--n-date", type=int, default=2)
    parser.add_argument("--n-day", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="a JSON line for each row")
    parser.add_argument("--keep", action="store_true", help="add rows to results/weather.jsonl")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    days = [f"rmse_k_day{day}" for day in (1, 5, 10) if day <= args.n_day]
    present(
        "precision", rows(args), ("case", *days, "over_noise", "mass_drift_per_day"),
        title=f"T at sigma 0.2 against float64, {args.n_date} dates, {args.n_day} days.",
        key=("case",), is_json=args.json, is_kept=args.keep,
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
