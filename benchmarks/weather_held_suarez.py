"""The climate of Held and Suarez 1994: jets, surface winds, eddies; and why two cores differ.

``--resolution T42L10`` gives the climate to compare with published models, ``--isca`` the one on
levels and with the filter of Isca's own test case. ``--peer`` adds rows that tell apart what makes
this core and dinosaur (extra `compare`) differ at low resolution: each core with its own
scale-selective filter and with the other's. A run is kept in `--folder` every
`CHUNK_DAY` days and goes on from there. Daily states after the first `--skip` days are averaged;
eddies are deviations from the zonal mean.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from apps.lab.checkpoint import load_checkpoint, save_checkpoint
from apps.lab.progress import track
from apps.weather.atmosphere.constants import DAY_S
from apps.weather.atmosphere.held_suarez import HeldSuarez
from apps.weather.atmosphere.levels import SigmaLevels
from apps.weather.atmosphere.state import GridState
from apps.weather.atmosphere.stepping import SemiImplicitLeapfrog
from apps.weather.forecast.restart import begin_finer, load_state, save_state
from apps.weather.model import Model, ModelState, parse_resolution
from benchmarks.weather import present
from benchmarks.weather_dynamics import Peer

CHUNK_DAY = 20
# Filters: (power of the Laplacian, e-folding time of the smallest scale in s). Dinosaur's default
# damps n as (n / T)^36 with 16 e-folds in each step of twenty minutes.
OURS, THEIRS = (4, 6 * 3600.0), (18, 75.0)
# Isca's held_suarez_test_case.py: half levels exp(-6 z), z = (x + x^7.5) / 2 for x from 1 at the
# top to 0; its core damps the smallest scale in a tenth of a day by the fourth power.
ISCA, ISCA_FILTER = "T42L25", (4, 8640.0)
KINDS = ("u", "t", "heat_flux", "momentum_flux", "t_variance")
COLUMNS = (
    "core", "resolution", "filter", "n_day", "jet_m_s", "jet_latitude", "jet_sigma", "westerly_m_s",
    "westerly_latitude", "easterly_m_s", "heat_flux_k_m_s", "t_variance_k2",
)  # fmt: skip


def sums_of(grid: GridState) -> torch.Tensor:
    """Zonal means of `KINDS` of one state, float64 [kind, lat, level]."""
    u, v, t = (field.double() for field in (grid.u, grid.v, grid.temperature))
    eddy_u, eddy_v, eddy_t = (field - field.mean(0) for field in (u, v, t))
    fields = (u, t, eddy_v * eddy_t, eddy_u * eddy_v, eddy_t.square())
    return torch.stack([field.mean(0) for field in fields])


def isca_levels(n_level: int) -> SigmaLevels:
    """Give levels that are close to each other near the ground, nought on top."""
    x = 1.0 - np.arange(1, n_level) / n_level
    return SigmaLevels.of([0.0, *np.exp(-3.0 * (x + x**7.5)), 1.0])


def ours(
    resolution: str,
    filter_: tuple[int, float],
    n_day: int,
    skip: int,
    folder: Path,
    levels: SigmaLevels | None = None,
) -> tuple[Model, np.ndarray, int]:
    """Run this core on; give the model, mean `KINDS` and the number of days averaged."""
    model = _model(resolution, filter_, levels)
    label = f"held_suarez_{resolution}_{filter_[0]}{'' if levels is None else '_isca'}"
    restart, kept = folder / f"{label}.safetensors", folder / f"{label}_sums.safetensors"
    total, done, counted = torch.zeros(len(KINDS), 1, 1, dtype=torch.float64), 0, 0
    if restart.exists() and kept.exists():
        tensors, meta = load_checkpoint(kept)
        total, done, counted = tensors["total"], meta["done"], meta["counted"]
        state = load_state(restart, model)
    else:
        state = _spun_up(model, label, filter_, folder)
    for day in track(range(done + 1, n_day + 1), f"{resolution}, days"):
        state = model.run(state, DAY_S)
        if day > skip:
            total = total + sums_of(model.equations.to_grid(state.levels.current))
            counted += 1
        if day % CHUNK_DAY == 0 or day == n_day:
            save_state(restart, model, state)
            save_checkpoint(kept, {"total": total}, {"done": day, "counted": counted})
    return model, (total / max(counted, 1)).numpy(), counted


def _model(resolution: str, filter_: tuple[int, float], levels: SigmaLevels | None) -> Model:
    model = Model(resolution, physics=HeldSuarez(), levels=levels)
    order, time_s = filter_
    model.stepper = SemiImplicitLeapfrog(
        model.equations, model.dt, diffusion_time=time_s, diffusion_order=order
    )
    return model


def _spun_up(model: Model, label: str, filter_: tuple[int, float], folder: Path) -> ModelState:
    """Start from rest, or for a finer grid from 200 days of T21 on the same levels."""
    if model.grid.truncation <= 21:
        return model.initial()
    coarse = _model(f"T21L{model.levels.n_level}", filter_, model.levels)
    path = folder / f"{label}_start.safetensors"
    if not path.exists():
        save_state(path, coarse, coarse.run(coarse.initial(), 200 * DAY_S))
    return begin_finer(path, model)


def theirs(resolution: str, filter_: tuple[int, float], n_day: int, skip: int) -> np.ndarray:
    """Run dinosaur from our state at rest with its own forcing; mean `KINDS`."""
    truncation, n_level = (int(x) for x in resolution[1:].split("L"))
    peer = Peer(truncation, n_level, double=False)
    import jax
    from dinosaur import held_suarez, time_integration

    forcing = held_suarez.HeldSuarezForcingSigma(peer.coords, peer.specs, peer.reference)
    whole = time_integration.compose_equations([peer.equations, forcing])
    dt = 1800.0
    step_s = float(peer.specs.nondimensionalize(dt * peer.unit.s))
    grid, order = peer.coords.horizontal, filter_[0]
    tau = float(peer.specs.nondimensionalize(filter_[1] * peer.unit.s))
    step = time_integration.step_with_filters(
        time_integration.imex_rk_sil3(whole, step_s),
        [time_integration.horizontal_diffusion_step_filter(grid, step_s, tau, order)],
    )
    day = jax.jit(time_integration.repeated(step, round(DAY_S / dt)))
    model = Model(resolution, dtype=torch.float64)
    rest = model.equations.to_grid(model.initial().levels.current)
    state = jax.tree.map(lambda x: jax.numpy.asarray(x, jax.numpy.float32), peer.state(rest))
    total = torch.zeros(len(KINDS), 1, 1, dtype=torch.float64)
    for i in track(range(n_day), "dinosaur, days"):
        state = day(state)
        if i >= skip:
            total = total + sums_of(peer.grid_state(state))
    return (total / (n_day - skip)).numpy()


def summary(model: Model, mean: np.ndarray) -> dict[str, float]:
    """Give the numbers by which Held-Suarez climates are compared, hemispheres averaged."""
    latitude = np.degrees(model.grid.latitude.numpy())
    # by symmetry both hemispheres are samples of one; fluxes of heat are odd
    flip = mean[:, ::-1].copy()
    flip[2:4] *= -1.0
    u, _, heat, _, variance = 0.5 * (mean + flip)
    north = latitude > 0
    lat, level = np.unravel_index(np.argmax(u), u.shape)
    low = np.where(north, u[:, -1], -np.inf)
    return {
        "jet_m_s": float(u.max()),
        "jet_latitude": abs(float(latitude[lat])),
        "jet_sigma": float(model.levels.full[level]),
        "westerly_m_s": float(low.max()),
        "westerly_latitude": float(latitude[np.argmax(low)]),
        "easterly_m_s": float(u[np.abs(latitude) < 25, -1].min()),
        "heat_flux_k_m_s": float(heat[north].max()),
        "t_variance_k2": float(variance.max()),
    }


def rows(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row for each core and filter."""
    args.folder.mkdir(parents=True, exist_ok=True)
    if args.isca:
        levels = isca_levels(parse_resolution(ISCA)[1])
        found = ours(ISCA, ISCA_FILTER, args.n_day, args.skip, args.folder, levels)
        yield _row("ours, levels of Isca", _spelt(ISCA_FILTER), ISCA, found)
        return
    filters = (OURS, THEIRS) if args.peer else (OURS,)
    for filter_ in filters:
        found = ours(args.resolution, filter_, args.n_day, args.skip, args.folder)
        yield _row("ours", _spelt(filter_), args.resolution, found)
        if args.peer:
            mean = theirs(args.resolution, filter_, args.n_day, args.skip)
            yield _row("dinosaur", _spelt(filter_), args.resolution, (found[0], mean, found[2]))


def _spelt(filter_: tuple[int, float]) -> str:
    return f"del^{2 * filter_[0]}, {filter_[1]:.0f} s"


def _row(
    core: str, name: str, resolution: str, found: tuple[Model, np.ndarray, int]
) -> dict[str, Any]:
    model, mean, n_day = found
    numbers = summary(model, mean)
    return {"core": core, "filter": name, "resolution": resolution, "n_day": n_day, **numbers}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a row for each climate."""
    parser = argparse.ArgumentParser(prog="tessera bench weather --part held_suarez")
    parser.add_argument("--resolution", default="T21L8")
    parser.add_argument("--n-day", type=int, default=600)
    parser.add_argument("--skip", type=int, default=200, help="days left out of the means")
    parser.add_argument("--peer", action="store_true", help="dinosaur too, and filters exchanged")
    parser.add_argument("--isca", action="store_true", help="levels and filter of Isca, T42L25")
    parser.add_argument("--folder", type=Path, default=Path("runs"), help="keeps what is done")
    parser.add_argument("--json", action="store_true", help="a JSON line for each row")
    parser.add_argument("--keep", action="store_true", help="add rows to results/weather.jsonl")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    present(
        "held_suarez", rows(args), COLUMNS, title="Held-Suarez climate, mean of daily states.",
        key=("resolution", "core", "filter"), is_json=args.json, is_kept=args.keep,
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
