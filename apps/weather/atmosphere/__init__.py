"""The dynamical core: spectral primitive equations on sigma levels."""

from apps.weather.atmosphere.baroclinic import baroclinic_wave
from apps.weather.atmosphere.dynamics import GridForcing, PrimitiveEquations
from apps.weather.atmosphere.grid import GaussianGrid, parse_resolution
from apps.weather.atmosphere.levels import SigmaLevels
from apps.weather.atmosphere.spectral import HarmonicTransform
from apps.weather.atmosphere.state import GridState, State
from apps.weather.atmosphere.stepping import SemiImplicitLeapfrog, TimeLevels, longest_step, start

__all__ = [
    "GaussianGrid",
    "GridForcing",
    "GridState",
    "HarmonicTransform",
    "PrimitiveEquations",
    "SemiImplicitLeapfrog",
    "SigmaLevels",
    "State",
    "TimeLevels",
    "baroclinic_wave",
    "longest_step",
    "parse_resolution",
    "start",
]
