"""The climate of Held and Suarez 1994: jets, surface winds, eddies; and why two cores differ.

``--resolution T42L20 --paper`` gives the climate to compare with published models, with the filter
of the paper's spectral core; ``--isca`` the one on the levels of Isca's own test case. ``--peer``
adds rows that tell apart what makes this core and dinosaur (extra `compare`) differ at low
resolution: each core with its own scale-selective filter and with the other's. A run is kept in
`--folder` every `CHUNK_DAY` days and goes on from there. Daily states after the first `--skip` days
are averaged; eddies are deviations from the zonal mean.
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

CHUNK_DAY, BLOCK_DAY = 20, 100
# Filters: (power of the Laplacian, e-folding time of the smallest scale in s). The paper's spectral
# core, and Isca's after it, damps the smallest scale in a tenth of a day. Dinosaur's default damps
# n as (n / T)^36 with 16 e-folds in each step of twenty minutes.
OURS, PAPER, THEIRS = (4, 6 * 3600.0), (4, 8640.0), (18, 75.0)
# Isca's held_suarez_test_case.py: half levels exp(-6 z), z = (x + x^7.5) / 2 for x from 1 at the
# top to 0.
ISCA = "T42L25"
REST_K = 264.0  # of Isca's air at rest
KINDS = ("u", "t", "heat_flux", "momentum_flux", "t_variance")
COLUMNS = (
    "core", "resolution", "filter", "n_day", "jet_m_s", "jet_m_s_error", "jet_latitude",
    "jet_latitude_error", "jet_latitude_240", "jet_sigma", "westerly_m_s", "westerly_latitude",
    "westerly_latitude_error", "easterly_m_s", "heat_flux_k_m_s", "momentum_flux_m2_s2",
    "t_variance_k2",
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
    from_rest: bool = False,
) -> tuple[Model, np.ndarray, list[int]]:
    """Run this core on; give the model, mean `KINDS` of each chunk, and days in each."""
    model = _model(resolution, filter_, levels)
    isca, rest = "" if levels is None else "_isca", "_rest" if from_rest else ""
    label = f"held_suarez_{resolution}_{filter_[0]}_{filter_[1]:.0f}{isca}{rest}"
    restart, kept = folder / f"{label}.safetensors", folder / f"{label}_sums.safetensors"
    shape = (len(KINDS), model.grid.n_lat, model.levels.n_level)
    total, done, counts = torch.zeros(0, *shape, dtype=torch.float64), 0, []
    if restart.exists() and kept.exists():
        tensors, meta = load_checkpoint(kept)
        total, done, counts = tensors["total"], meta["done"], meta["counts"]
        state = load_state(restart, model)
    elif from_rest:
        state = model.initial(temperature=REST_K)
    else:
        state = _spun_up(model, label, filter_, folder)
    for day in track(range(done + 1, n_day + 1), f"{resolution}, days"):
        state = model.run(state, DAY_S)
        if day > skip:
            if not counts or counts[-1] == CHUNK_DAY:
                total, counts = torch.cat([total, total.new_zeros(1, *shape)]), [*counts, 0]
            total[-1] += sums_of(model.equations.to_grid(state.levels.current))
            counts[-1] += 1
        if day % CHUNK_DAY == 0 or day == n_day:
            save_state(restart, model, state)
            save_checkpoint(kept, {"total": total}, {"done": day, "counts": counts})
    weight = torch.tensor(counts, dtype=torch.float64).reshape(-1, 1, 1, 1)
    return model, (total / weight).numpy(), counts


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
    """Run dinosaur from our state at rest with its own forcing; mean `KINDS` of each chunk."""
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
    chunks: list[list[torch.Tensor]] = []
    for i in track(range(n_day), "dinosaur, days"):
        state = day(state)
        if i >= skip:
            if (i - skip) % CHUNK_DAY == 0:
                chunks.append([])
            chunks[-1].append(sums_of(peer.grid_state(state)))
    return torch.stack([torch.stack(chunk).mean(0) for chunk in chunks]).numpy()


def between_rows(field: np.ndarray, truncation: int, latitude: np.ndarray) -> np.ndarray:
    """Zonal-mean wind [lat, level] of a Gaussian grid at other latitudes (degrees).

    The mean wind is the cosine of latitude times a polynomial in its sine, of a degree below the
    truncation: nothing is lost between the rows.
    """
    nodes, weight = np.polynomial.legendre.leggauss(len(field))
    degree = np.arange(truncation + 1)
    basis = np.polynomial.legendre.legvander(nodes, truncation)
    over_cosine = field / np.sqrt(1.0 - nodes**2)[:, None]
    coefficient = (degree + 0.5)[:, None] * ((basis * weight[:, None]).T @ over_cosine)
    phi = np.radians(latitude)
    values = np.polynomial.legendre.legvander(np.sin(phi), truncation) @ coefficient
    return np.cos(phi)[:, None] * values


def mirrored(mean: np.ndarray) -> np.ndarray:
    """Exchange the hemispheres of [..., kind, lat, level]; fluxes to the north are odd."""
    flipped = mean[..., ::-1, :].copy()
    flipped[..., [KINDS.index("heat_flux"), KINDS.index("momentum_flux")], :, :] *= -1.0
    return flipped


def summary(model: Model, mean: np.ndarray) -> dict[str, float]:
    """Give the numbers by which Held-Suarez climates are compared, of the northern half."""
    fine = np.arange(1800) / 20.0
    u = between_rows(mean[0], model.grid.truncation, fine)
    lat, level = np.unravel_index(np.argmax(u), u.shape)
    north = model.grid.latitude.numpy() > 0
    return {
        "jet_m_s": float(u.max()),
        "jet_latitude": float(fine[lat]),
        "jet_sigma": float(model.levels.full[level]),
        "westerly_m_s": float(u[:, -1].max()),
        "westerly_latitude": float(fine[np.argmax(u[:, -1])]),
        "easterly_m_s": float(u[fine < 25, -1].min()),
        "heat_flux_k_m_s": float(mean[2][north].max()),
        "momentum_flux_m2_s2": float(mean[3][north].max()),
        "t_variance_k2": float(mean[4][north].max()),
    }


def climate(model: Model, chunks: np.ndarray, counts: Sequence[int]) -> dict[str, Any]:
    """`summary` of the mean over all chunks and both hemispheres, which are samples of one climate.

    A standard error stands beside the jet and the westerlies: a jackknife over blocks of
    `BLOCK_DAY` of one hemisphere. `jet_latitude_240` is the least and the greatest latitude that
    means over 240 days of one hemisphere have, the length of Isca's published one.
    """
    both = np.stack([chunks, mirrored(chunks)])
    weight = np.asarray(counts, dtype=float)

    def mean(keep: np.ndarray) -> np.ndarray:
        kept = keep * weight
        return np.einsum("hc,hcklz->klz", kept, both) / kept.sum()

    whole = np.ones(both.shape[:2])
    found: dict[str, Any] = summary(model, mean(whole))
    part = np.arange(len(weight)) * CHUNK_DAY // BLOCK_DAY
    left_out = []
    for hemisphere in range(2):
        for block in range(int(part[-1]) + 1):
            keep = whole.copy()
            keep[hemisphere, part == block] = 0.0
            left_out.append(summary(model, mean(keep)))
    for name in ("jet_m_s", "jet_latitude", "westerly_m_s", "westerly_latitude"):
        values = np.array([one[name] for one in left_out])
        found[f"{name}_error"] = float(np.sqrt((len(values) - 1) * values.var()))
    length = 240 // CHUNK_DAY
    windows = []
    for hemisphere in range(2):
        for first in range(len(weight) - length + 1):
            keep = np.zeros_like(whole)
            keep[hemisphere, first : first + length] = 1.0
            windows.append(summary(model, mean(keep))["jet_latitude"])
    found["jet_latitude_240"] = [min(windows), max(windows)] if windows else None
    return found


def rows(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row for each core and filter."""
    args.folder.mkdir(parents=True, exist_ok=True)
    if args.isca:
        levels = isca_levels(parse_resolution(ISCA)[1])
        found = ours(ISCA, PAPER, args.n_day, args.skip, args.folder, levels, args.rest)
        name = "ours, levels of Isca" + (f", from rest, day {args.skip} on" if args.rest else "")
        yield _row(name, _spelt(PAPER), ISCA, found)
        return
    filters = (OURS, THEIRS) if args.peer else (PAPER,) if args.paper else (OURS,)
    for filter_ in filters:
        found = ours(args.resolution, filter_, args.n_day, args.skip, args.folder)
        yield _row("ours", _spelt(filter_), args.resolution, found)
        if args.peer:
            mean = theirs(args.resolution, filter_, args.n_day, args.skip)
            yield _row("dinosaur", _spelt(filter_), args.resolution, (found[0], mean, found[2]))


def _spelt(filter_: tuple[int, float]) -> str:
    return f"del^{2 * filter_[0]}, {filter_[1]:.0f} s"


def _row(
    core: str, name: str, resolution: str, found: tuple[Model, np.ndarray, list[int]]
) -> dict[str, Any]:
    numbers = climate(*found)
    return {
        "core": core, "filter": name, "resolution": resolution, "n_day": sum(found[2]), **numbers
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a row for each climate."""
    parser = argparse.ArgumentParser(prog="tessera bench weather --part held_suarez")
    parser.add_argument("--resolution", default="T21L8")
    parser.add_argument("--n-day", type=int, default=600)
    parser.add_argument("--skip", type=int, default=200, help="days left out of the means")
    parser.add_argument("--peer", action="store_true", help="dinosaur too, and filters exchanged")
    parser.add_argument("--paper", action="store_true", help="with the filter of the paper")
    parser.add_argument("--isca", action="store_true", help="that, on the levels of Isca, T42L25")
    parser.add_argument("--rest", action="store_true", help="begin --isca at rest, as that does")
    parser.add_argument("--folder", type=Path, default=Path("runs"), help="keeps what is done")
    parser.add_argument("--json", action="store_true", help="a JSON line for each row")
    parser.add_argument("--keep", action="store_true", help="add rows to results/weather.jsonl")
    args = parser.parse_args(arguments)
    if not 0 <= args.skip < args.n_day:
        parser.error(f"--skip {args.skip} leaves no day of --n-day {args.n_day} to average")
    torch.set_num_threads(1)
    present(
        "held_suarez", rows(args), COLUMNS, title="Held-Suarez climate, mean of daily states.",
        key=("resolution", "core", "filter"), is_json=args.json, is_kept=args.keep,
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
