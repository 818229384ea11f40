"""Longwave radiation at any number of wavenumbers: the simple spectral model.

Source: Williams 2026, "A simple spectral model" (JAMES, 10.1029/2025MS005405; arXiv 2508.09353),
clear sky: absorption by water vapour lines, water vapour continuum and carbon dioxide as analytic
functions of wavenumber at (260 K, 500 hPa, 100 % relative humidity), scaled by pressure. Clouds
are grey absorbers here. The 9.6 micrometre band of ozone is left out, as in the source: ozone acts
by its heating in the shortwave, which holds the top above 180 K. No scattering; diffusivity factor
1.5. Within a layer the Planck source
is linear in optical depth between the layer's centre and its two faces (Clough et al. 1992,
J. Geophys. Res. 97, 15761), so an isothermal column in balance with its surface has no net
heating to rounding and a two-level wave is felt.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from apps.weather.atmosphere.constants import GRAVITY
from apps.weather.physics.columns import Columns
from apps.weather.physics.thermodynamics import EPSILON, layer_mass

PLANCK = 6.62607015e-34  # J s
LIGHT = 2.99792458e8  # m/s
BOLTZMANN = 1.380649e-23  # J/K

WAVENUMBER_PER_CM = (10.0, 2510.0)  # first and last point
DIFFUSIVITY = 1.5
REFERENCE_K = 260.0
REFERENCE_PA = 5.0e4
REFERENCE_VAPOUR_PA = 224.92
CONTINUUM_PER_K = 0.02
CO2_MASS_RATIO = 44.0 / 29.0
CLOUD_M2_PER_KG = 100.0  # grey absorption of cloud water, before the diffusivity factor

# Optical depth added to each layer, so that a layer without absorber divides by no zero.
_TAU_MIN = 1e-8
# Layers x columns x points handled at a time: a working set that stays in a core's cache.
ENTRIES_PER_CHUNK = 1 << 17


def absorption_coefficients(wavenumber: np.ndarray) -> np.ndarray:
    """Absorption in m2/kg, float64 [absorber, point], at the reference state.

    Absorbers: vapour lines, vapour continuum, carbon dioxide, cloud water. `wavenumber` in 1/cm.
    Source: Williams 2026, equations 4 to 6 and table 1.
    """
    nu = wavenumber
    rotation = 37.0 * np.exp(-np.maximum(nu - 200.0, 0.0) / 56.0)
    below, above = np.maximum(1450.0 - nu, 0.0), np.maximum(nu - 1700.0, 0.0)
    vibration = 5.0 * np.exp(-below / 37.0 - above / 52.0)
    lines = np.where(nu <= 1000.0, rotation, vibration)
    continuum = np.where(nu < 1700.0, 0.004, 0.0002)
    dioxide = np.where(np.abs(nu - 675.0) < 175.0, 110.0 * np.exp(-np.abs(nu - 667.0) / 12.0), 0.0)
    return np.stack([lines, continuum, dioxide, np.full_like(nu, CLOUD_M2_PER_KG)])


class Longwave:
    """Longwave fluxes at `n_point` equally spaced wavenumbers.

    Parameters
    ----------
    n_point : int
        Wavenumbers from 10 to 2510 per cm: 41 are Williams's, 128 are converged.
    entries_per_chunk : int
        Layers x columns x points worked on at a time.
    """

    def __init__(self, n_point: int, entries_per_chunk: int = ENTRIES_PER_CHUNK) -> None:
        self.n_point, self.entries_per_chunk = n_point, entries_per_chunk
        nu = np.linspace(*WAVENUMBER_PER_CM, n_point)
        width = np.full(n_point, nu[1] - nu[0])
        width[[0, -1]] /= 2.0  # trapezoidal rule
        per_m = 100.0 * nu
        self._planck_scale = torch.from_numpy(
            2.0 * np.pi * PLANCK * LIGHT**2 * per_m**3 * 100.0 * width
        )
        self._planck_rate = torch.from_numpy(PLANCK * LIGHT * per_m / BOLTZMANN)
        self._absorption = torch.from_numpy(DIFFUSIVITY * absorption_coefficients(nu))

    def planck(self, temperature: Tensor) -> Tensor:
        """Black-body flux of each point, W/m2 [..., point]; the sum is sigma T^4."""
        rate = self._planck_rate.to(temperature)
        return self._planck_scale.to(temperature) / torch.exp(rate / temperature[..., None]).sub(1)

    def net_up(self, columns: Columns, cloud_water: Tensor) -> Tensor:
        """Net upward flux, W/m2 [column, level + 1]; `cloud_water` in kg/m2 [column, level]."""
        n_column, n_level = columns.temperature.shape
        chunk = max(1, self.entries_per_chunk // (n_level * self.n_point))
        amounts = self._amounts(columns, cloud_water)
        source = self._source_temperature(columns)
        parts = [
            self._chunk(amounts[:, i : i + chunk], source[:, i : i + chunk])
            for i in range(0, n_column, chunk)
        ]
        return torch.cat(parts, dim=1).T

    def _amounts(self, columns: Columns, cloud_water: Tensor) -> Tensor:
        """Absorber amounts scaled to the reference state, kg/m2 [level, column, absorber]."""
        mass = layer_mass(columns.pressure_half)
        vapour = columns.humidity.clamp(min=0) * mass
        share = columns.humidity.clamp(min=0) / (EPSILON + (1.0 - EPSILON) * columns.humidity)
        warmth = torch.exp(CONTINUUM_PER_K * (REFERENCE_K - columns.temperature))
        squared = columns.pressure_half**2
        dioxide = (squared[:, 1:] - squared[:, :-1]) / (2.0 * GRAVITY * REFERENCE_PA)
        return torch.stack(
            [
                vapour * columns.pressure / REFERENCE_PA,
                vapour * share * columns.pressure / REFERENCE_VAPOUR_PA * warmth,
                dioxide * (1e-6 * CO2_MASS_RATIO * columns.co2_ppmv)[:, None],
                cloud_water,
            ],
            dim=-1,
        ).transpose(0, 1)

    @staticmethod
    def _source_temperature(columns: Columns) -> Tensor:
        """Temperatures whose Planck source is needed, K [level + 2, column].

        The layers, the air at the ground (extrapolated in ln p) and the surface.
        """
        log_p = columns.pressure[:, -2:].log()
        slope = (columns.pressure_half[:, -1].log() - log_p[:, 1]) / (log_p[:, 1] - log_p[:, 0])
        t = columns.temperature
        ground = t[:, -1] + slope * (t[:, -1] - t[:, -2])
        return torch.cat([t.T, ground[None], columns.sst[None]])

    def _chunk(self, amounts: Tensor, source_temperature: Tensor) -> Tensor:
        """Net upward flux of some columns, W/m2 [level + 1, column]."""
        n_level = amounts.shape[0]
        planck = self.planck(source_temperature)
        layer, ground, surface = planck[:n_level], planck[n_level], planck[n_level + 1]
        tau = torch.matmul(amounts, self._absorption.to(amounts)) + _TAU_MIN
        absorbed = -torch.expm1(-tau)
        passed = 1.0 - absorbed
        # The share of emission that leaves with the temperature of the face it leaves through.
        face = 1.0 + passed - 2.0 * absorbed / tau
        own = layer * (absorbed - face)
        between = 0.5 * (layer[1:] + layer[:-1])

        downs = [torch.zeros_like(surface)]
        for k in range(n_level):
            below = between[k] if k < n_level - 1 else ground
            downs.append(downs[k] * passed[k] + own[k] + below * face[k])
        up = surface
        net = [(up - downs[n_level]).sum(-1)]
        for k in reversed(range(n_level)):
            above = between[k - 1] if k > 0 else layer[0]
            up = up * passed[k] + own[k] + above * face[k]
            net.append((up - downs[k]).sum(-1))
        return torch.stack(net[::-1])
