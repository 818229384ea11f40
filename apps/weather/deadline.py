"""What resolution a machine buys before a deadline: whole steps of the model, traced and modelled.

A step without a radiation call is traced at each resolution, a radiation call once, for the columns
of the T21 grid: a finer grid calls it as often as it takes. Members share nothing and run one after
the other on one chip, which the small grids leave mostly idle; several at a time would be faster.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

import hw
from apps.lab.variant import REFERENCE_MACHINES, Variant
from apps.weather.atmosphere.constants import DAY_S
from apps.weather.cost import EXACT_POINTS, N_COLUMN, untrained_cost
from apps.weather.forecast.simulate import ModelConfig, first_state
from apps.weather.learned.fitting import NetworkConfig
from apps.weather.model import Model

EXACT = f"exact-{EXACT_POINTS[0][0]}+{EXACT_POINTS[0][1]}"


def traced_step(resolution: str) -> tuple[Model, hw.Program]:
    """Give the moist model and one step of it, physics and all but the radiation call."""
    model = ModelConfig(resolution=resolution, n_longwave=8, n_shortwave=8).build()
    with torch.no_grad():
        state = model.run(first_state(model, "rest", 0), 2.0 * model.dt)
        # the second of the steps between two radiation calls
        state = state._replace(levels=state.levels._replace(n_step=1))
        return model, hw.trace(model.step, state)


def ensemble_hours(
    resolutions: Sequence[str],
    variant: Variant,
    *,
    network: NetworkConfig | None = None,
    machines: Sequence[str] = (),
    n_member: int = 50,
    n_day: int = 14,
) -> list[dict[str, Any]]:
    """Give the modelled hours of an ensemble forecast on one chip.

    Parameters
    ----------
    resolutions : sequence of str
    variant : Variant
        Formats and density of the learned radiation.
    machines : sequence of str
        Names or paths; the reference machines where empty.

    Returns
    -------
    list of dict
        By machine and resolution: ``step_s`` and ``fits`` (the step's working set on the chip);
        ``radiation_s`` of a call by the learned and ``exact_s`` of one by the exact scheme of
        `EXACT`; ``hour`` and ``hour_exact`` of all members with either; ``joule`` of the former.
    """
    rows = []
    for resolution in resolutions:
        model, program = traced_step(resolution)
        calls = math.ceil(model.grid.n_lon * model.grid.n_lat / N_COLUMN)
        n_step = n_member * n_day * round(DAY_S / model.dt)
        for machine in machines or REFERENCE_MACHINES:
            step = hw.cost_program(program, machine, phase="inference")
            entries = untrained_cost(
                network or NetworkConfig(),
                variant,
                n_level=model.levels.n_level,
                machines=[machine],
            )
            radiation = {e["variant"]: e for e in entries if e["phase"] == "inference"}
            own, exact = radiation[variant.name], radiation[EXACT]
            n_call = calls * n_step / model.n_step_radiation
            rows.append(
                {
                    "machine": machine,
                    "resolution": resolution,
                    "step_s": step.time_s,
                    "radiation_s": calls * own["time_s"],
                    "exact_s": calls * exact["time_s"],
                    "hour": (n_step * step.time_s + n_call * own["time_s"]) / 3600.0,
                    "hour_exact": (n_step * step.time_s + n_call * exact["time_s"]) / 3600.0,
                    "joule": n_step * step.energy_j + n_call * own["energy_j"],
                    "fits": bool(step.fits and own["fits"]),
                }
            )
    return rows
