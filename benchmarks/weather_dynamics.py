"""The rates of the dynamics beside those of dinosaur, an independent spectral core.

Needs the extra `compare` (dinosaur, with jax). Both codes get the same random smooth state, levels,
vertical scheme and constants. ``--fixture`` keeps dinosaur's answers, so that the tests compare
without it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from apps.lab.checkpoint import save_checkpoint
from apps.weather.atmosphere import constants as c
from apps.weather.atmosphere.dynamics import PrimitiveEquations
from apps.weather.atmosphere.grid import GaussianGrid
from apps.weather.atmosphere.levels import SigmaLevels
from apps.weather.atmosphere.spectral import HarmonicTransform
from apps.weather.atmosphere.state import GridState, State
from benchmarks.weather import present
from core.errors import ConfigError

FIELDS = ("vorticity", "divergence", "temperature", "humidity", "log_pressure")


def trapezoidal_equations(truncation: int, n_level: int) -> PrimitiveEquations:
    """Equations in float64 with the vertical scheme that both codes have.

    Dinosaur holds half levels in float32: take a power of two of levels, or 1e-8 remains.
    """
    transform = HarmonicTransform(GaussianGrid(truncation), dtype=torch.float64)
    return PrimitiveEquations(transform, SigmaLevels.equidistant(n_level, "trapezoidal"))


def random_state(equations: PrimitiveEquations, *, moist: bool, seed: int) -> GridState:
    """Winds of tens of m/s, a stable stratification and waves in every field, as grid values.

    Waves end at a third of the truncation, so that products of three fields are resolved.
    """
    transform, n = equations.transform, equations.levels.n_level
    n_wave = transform.grid.truncation // 3
    generator = torch.Generator().manual_seed(seed)

    def field(scale: float, n_field: int = n) -> torch.Tensor:
        drawn = torch.randn(2, transform.n_m, transform.n_n, n_field, generator=generator)
        wave = transform.total_wavenumber.reshape(1, 1, -1, 1)
        out = scale * drawn.double() * (1.0 + wave) ** -1.5 * (wave <= n_wave) * transform.mask
        out[1, 0] = 0.0
        out[:, 0, 0] = 0.0
        return out

    temperature = field(6.0)
    temperature[0, 0, 0] = torch.linspace(215.0, 290.0, n, dtype=torch.float64)
    humidity = field(1e-3)
    humidity[0, 0, 0] = torch.linspace(0.0, 0.01, n, dtype=torch.float64)
    state = State(
        field(2e-5), field(4e-6), temperature, humidity * float(moist), field(0.01, 1)
    )  # fmt: skip
    return equations.to_grid(state)


def our_tendencies(equations: PrimitiveEquations, grid: GridState) -> dict[str, np.ndarray]:
    """Whole adiabatic rates on the grid [lon, lat, level], per second."""
    rate = equations.tendency(equations.from_grid(grid))
    return {
        name: equations.transform.synthesise(field).numpy()
        for name, field in zip(FIELDS, rate, strict=True)
    }


class Peer:
    """Dinosaur on our grid, levels and constants, in SI units outside."""

    def __init__(self, truncation: int, n_level: int, *, moist: bool = False, double: bool = True):
        try:
            import jax
            from dinosaur import (
                coordinate_systems,
                primitive_equations,
                scales,
                sigma_coordinates,
                spherical_harmonic,
                units,
            )
        except ImportError as error:
            raise ConfigError(
                f"the peer is not installed ({error}); install the extra: pip install "
                "'tessera[compare]'"
            ) from error
        jax.config.update("jax_enable_x64", double)
        u = self.unit = scales.units
        self.specs = units.SimUnits.from_si(
            radius_si=c.RADIUS * u.m,
            angular_velocity_si=c.ROTATION / u.s,
            gravity_acceleration_si=c.GRAVITY * u.m / u.s**2,
            ideal_gas_constant_si=c.GAS_CONSTANT * u.J / u.kg / u.degK,
            water_vapor_gas_constant_si=c.GAS_CONSTANT_VAPOUR * u.J / u.kg / u.degK,
            water_vapor_isobaric_heat_capacity_si=c.HEAT_CAPACITY * u.J / u.kg / u.degK,
            kappa_si=c.KAPPA * u.dimensionless,
        )
        grid = spherical_harmonic.Grid.construct(
            truncation, GaussianGrid(truncation).n_lat // 2, radius=self.specs.radius
        )
        levels = sigma_coordinates.SigmaCoordinates.equidistant(n_level)
        self.coords = coordinate_systems.CoordinateSystem(grid, levels)
        self.reference = np.full(n_level, 288.0)
        self.equations = primitive_equations.PrimitiveEquationsSigma(
            self.reference,
            np.zeros(grid.modal_shape),
            self.coords,
            self.specs,
            humidity_key="specific_humidity" if moist else None,
        )
        self.moist, self.state_class = moist, primitive_equations.State
        self.spherical = spherical_harmonic

    def state(self, grid: GridState) -> Any:
        """Give their state of our grid values."""
        spec, u, horizontal = self.specs, self.unit, self.coords.horizontal

        def nodal(field: torch.Tensor) -> np.ndarray:  # ours [lon, lat, level]
            return np.moveaxis(field.numpy(), -1, 0)

        wind = [
            spec.nondimensionalize(nodal(field) * u.m / u.s) for field in (grid.u, grid.v)
        ]  # fmt: skip
        vorticity, divergence = self.spherical.uv_nodal_to_vor_div_modal(horizontal, *wind)
        excess = nodal(grid.temperature) - self.reference[:, None, None]
        pressure = spec.nondimensionalize(grid.surface_pressure.numpy()[None] * u.pascal)
        q = {"specific_humidity": horizontal.to_modal(nodal(grid.humidity))} if self.moist else {}
        return self.state_class(
            vorticity=vorticity,
            divergence=divergence,
            temperature_variation=horizontal.to_modal(excess),
            log_surface_pressure=horizontal.to_modal(np.log(pressure)),
            tracers=q,
        )

    def grid_state(self, state: Any) -> GridState:
        """Give our grid values, in SI units, of their (dry) state."""
        spec, u, horizontal = self.specs, self.unit, self.coords.horizontal
        second, metre, pascal = (
            float(spec.nondimensionalize(1.0 * unit)) for unit in (u.s, u.m, u.pascal)
        )
        wind = self.spherical.vor_div_to_uv_nodal(horizontal, state.vorticity, state.divergence)
        east, north, excess = (
            torch.from_numpy(np.moveaxis(np.array(field), 0, -1))
            for field in (*wind, horizontal.to_nodal(state.temperature_variation))
        )
        pressure = np.exp(np.array(horizontal.to_nodal(state.log_surface_pressure))[0]) / pascal
        return GridState(
            east * second / metre,
            north * second / metre,
            excess + torch.from_numpy(self.reference),
            torch.zeros_like(excess),
            torch.from_numpy(pressure),
        )

    def rates(self, state: Any) -> dict[str, np.ndarray]:
        """Give explicit and implicit rates together, [lon, lat, level], per second."""
        total = self.equations.explicit_terms(state) + self.equations.implicit_terms(state)
        second = float(self.specs.nondimensionalize(1.0 * self.unit.s))
        fields = {
            "vorticity": (total.vorticity, second**2),
            "divergence": (total.divergence, second**2),
            "temperature": (total.temperature_variation, second),
            "log_pressure": (total.log_surface_pressure, second),
        }
        if self.moist:
            fields["humidity"] = (total.tracers["specific_humidity"], second)
        to_nodal = self.coords.horizontal.to_nodal
        return {
            name: factor * np.moveaxis(np.asarray(to_nodal(field)), 0, -1)
            for name, (field, factor) in fields.items()
        }


def relative(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Root mean square of the difference over that of theirs."""
    return float(np.sqrt(((ours - theirs) ** 2).mean() / (theirs**2).mean()))


def rows(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Compare the adiabatic rates of one state in both codes; keep a fixture if asked."""
    kept: dict[str, torch.Tensor] = {}
    m, n = torch.triu_indices(args.truncation + 1, args.truncation + 1)
    for label, moist in (("dry", False), ("moist", True)):
        equations = trapezoidal_equations(args.truncation, args.n_level)
        grid = random_state(equations, moist=moist, seed=args.seed)
        peer = Peer(args.truncation, args.n_level, moist=moist)
        theirs, ours = peer.rates(peer.state(grid)), our_tendencies(equations, grid)
        for name, values in theirs.items():
            yield {"case": label, "field": name, "relative_rms": relative(ours[name], values)}
            field = equations.transform.analyse(torch.from_numpy(values.copy()))
            kept[f"{label}.{name}"] = field[:, m, n]
    if args.fixture:
        meta = {"truncation": args.truncation, "n_level": args.n_level, "seed": args.seed}
        save_checkpoint(args.fixture, kept, meta)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a row for each field, dry and moist."""
    parser = argparse.ArgumentParser(prog="tessera bench weather --part dynamics")
    parser.add_argument("--truncation", type=int, default=21)
    parser.add_argument("--n-level", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fixture", type=Path, help="write dinosaur's answers to this file")
    parser.add_argument("--json", action="store_true", help="a JSON line for each row")
    parser.add_argument("--keep", action="store_true", help="add rows to results/weather.jsonl")
    args = parser.parse_args(arguments)
    title = f"Adiabatic rates at T{args.truncation}L{args.n_level} against dinosaur, float64."
    present(
        "dynamics", rows(args), ("case", "field", "relative_rms"), title=title,
        key=("title", "case", "field"), is_json=args.json, is_kept=args.keep,
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
