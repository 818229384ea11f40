"""Shortwave radiation: two-stream layers joined by adding, at any number of spectral points.

Each layer's reflectance and transmittance follow the two-stream equations with the coefficients of
Zdunkowski et al. 1980 (Beitr. Phys. Atmos. 53, 147), as in Meador and Weaver 1980 (J. Atmos. Sci.
37, 630, table 1 and equations 14 to 16), written here through the particular solution so that the
limit without absorption needs no special case; the layers are joined from the ground up.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from apps.weather.physics.columns import Columns
from apps.weather.physics.radiation.longwave import ENTRIES_PER_CHUNK
from apps.weather.physics.radiation.spectrum import solar_spectrum
from apps.weather.physics.radiation.sun import SOLAR_CONSTANT
from apps.weather.physics.thermodynamics import layer_mass

STANDARD_PA = 1.01325e5

# Green's ozone above a height of h: a (1 + e^(-b/c)) / (1 + e^((h - b)/c)), with h from a scale
# height; values a (here .30 cm, the global mean), b and c as used by Lacis and Hansen 1974.
OZONE_CM = 0.30
OZONE_HEIGHT_M, OZONE_DEPTH_M, SCALE_HEIGHT_M = 20e3, 5e3, 7e3

COS_ZENITH_MIN = 1e-3  # below it the beam grazes; its energy is what it is, its path is capped
# Near k mu = 1 the particular solution is singular; the angle moves by this share to avoid it.
_RESONANCE = 2e-3
_TAU_MIN = 1e-8


def ozone_above(pressure: Tensor) -> Tensor:
    """Ozone above a pressure, cm at standard temperature and pressure."""
    ratio = (pressure / STANDARD_PA) ** (SCALE_HEIGHT_M / OZONE_DEPTH_M)
    ground = math.exp(-OZONE_HEIGHT_M / OZONE_DEPTH_M)
    return OZONE_CM * (1.0 + ground) * ratio / (ratio + ground)


class Shortwave:
    """Shortwave fluxes at `n_point` points of the solar spectrum (at least 8)."""

    def __init__(self, n_point: int, entries_per_chunk: int = ENTRIES_PER_CHUNK) -> None:
        self.n_point, self.entries_per_chunk = n_point, entries_per_chunk
        spectrum = solar_spectrum(n_point)
        self._weight = torch.from_numpy(spectrum.weight)
        # One product gives optical depth, scattered depth and asymmetric depth.
        self._optics = torch.stack(
            [torch.from_numpy(table) for table in spectrum[1:]], dim=0
        )  # [3, absorber, point]

    def net_down(self, columns: Columns, cloud_water: Tensor) -> Tensor:
        """Net downward flux, W/m2 [column, level + 1]; exactly zero where the sun is down."""
        n_column, n_level = columns.temperature.shape
        net = columns.temperature.new_zeros(n_column, n_level + 1)
        day = torch.nonzero(columns.cos_zenith > 0).squeeze(1)
        if len(day) == 0:
            return net
        return net.index_copy(0, day, self.sunlit(columns.take(day), cloud_water[day]))

    def sunlit(self, columns: Columns, cloud_water: Tensor) -> Tensor:
        """`net_down` of columns that are all in the sun (no data-dependent shape)."""
        n_column, n_level = columns.temperature.shape
        chunk = max(1, self.entries_per_chunk // (n_level * self.n_point))
        mass = layer_mass(columns.pressure_half)
        depth = (columns.pressure_half[:, 1:] - columns.pressure_half[:, :-1]) / STANDARD_PA
        vapour = columns.humidity.clamp(min=0) * mass * columns.pressure / STANDARD_PA
        above = ozone_above(columns.pressure_half)
        ozone = above[:, 1:] - above[:, :-1]
        amounts = torch.stack([vapour, ozone, depth, cloud_water], dim=-1).transpose(0, 1)
        parts = [
            self._chunk(
                amounts[:, i : i + chunk],
                columns.cos_zenith[i : i + chunk],
                columns.albedo[i : i + chunk],
            )
            for i in range(0, n_column, chunk)
        ]
        incoming = SOLAR_CONSTANT * columns.cos_zenith
        return incoming[:, None] * torch.cat(parts, dim=1).T

    def _chunk(self, amounts: Tensor, cos_zenith: Tensor, albedo: Tensor) -> Tensor:
        """Net downward share of the incoming flux [level + 1, column]."""
        n_level = amounts.shape[0]
        optics = self._optics.to(amounts)
        tau = torch.matmul(amounts, optics[0]) + _TAU_MIN
        scattered = torch.matmul(amounts, optics[1])
        asymmetric = torch.matmul(amounts, optics[2])
        mu = cos_zenith.clamp(min=COS_ZENITH_MIN)[:, None]
        reflect, transmit, beam, beam_up, beam_down = layer_optics(tau, scattered, asymmetric, mu)

        # From the ground up: albedo of all below each interface, and what the beam sends up there.
        direct = [torch.ones_like(tau[0])]
        for k in range(n_level):
            direct.append(direct[k] * beam[k])
        below = albedo[:, None].expand_as(direct[0])
        source = direct[n_level] * below
        belows, sources, bounces = [below], [source], []
        for k in reversed(range(n_level)):
            bounce = 1.0 / (1.0 - reflect[k] * below)
            sent = source + below * (direct[k] * beam_down[k])
            source = direct[k] * beam_up[k] + transmit[k] * bounce * sent
            below = reflect[k] + transmit[k] ** 2 * bounce * below
            belows.append(below)
            sources.append(source)
            bounces.append(bounce)
        belows, sources, bounces = belows[::-1], sources[::-1], bounces[::-1]

        weight = self._weight.to(amounts)
        diffuse = torch.zeros_like(direct[0])
        net = [(direct[0] - sources[0]) @ weight]
        for k in range(n_level):
            lit = direct[k] * beam_down[k]
            diffuse = (transmit[k] * diffuse + reflect[k] * sources[k + 1] + lit) * bounces[k]
            up = diffuse * belows[k + 1] + sources[k + 1]
            net.append((direct[k + 1] + diffuse - up) @ weight)
        return torch.stack(net)


def layer_optics(
    tau: Tensor, scattered: Tensor, asymmetric: Tensor, mu: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Two-stream properties of layers.

    Parameters
    ----------
    tau, scattered, asymmetric : Tensor
        Optical depth, depth times single scattering albedo, and that times asymmetry.
    mu : Tensor
        Cosine of the beam's zenith angle, broadcastable.

    Returns
    -------
    tuple of Tensor
        Diffuse reflectance and transmittance; transmittance of the beam; what part of the beam
        leaves upward and downward as diffuse light.
    """
    # gamma1 tau, gamma2 tau, and gamma3, gamma4 times the scattered depth
    g1 = 2.0 * tau - 1.25 * scattered - 0.75 * asymmetric
    g2 = 0.75 * (scattered - asymmetric)
    g3 = 0.5 * scattered - 0.75 * asymmetric * mu
    g4 = scattered - g3
    k = torch.sqrt((2.0 * (tau - scattered)).clamp(min=_TAU_MIN) * (g1 + g2))
    lost = -torch.expm1(-k)
    sinh_over_k = 0.5 * lost * (2.0 - lost) / k  # times exp(-k), as is all below
    denominator = 1.0 / (0.5 * (1.0 + (1.0 - lost) ** 2) + g1 * sinh_over_k)
    reflect = g2 * sinh_over_k * denominator
    transmit = (1.0 - lost) * denominator

    ratio = mu / tau
    near = (k * ratio - 1.0).abs() < 0.5 * _RESONANCE
    ratio = torch.where(near, ratio * (1.0 + _RESONANCE), ratio)
    beam = torch.exp(-1.0 / ratio)
    scale = 1.0 / (tau * (1.0 - (k * ratio) ** 2))
    particular_up = (g3 - ratio * (g1 * g3 + g2 * g4)) * scale
    particular_down = -(g4 + ratio * (g1 * g4 + g2 * g3)) * scale
    beam_up = particular_up * (1.0 - transmit * beam) - reflect * particular_down
    beam_down = particular_down * (beam - transmit) - reflect * particular_up * beam
    # Rounding and the two-stream closure itself may leave the physical range by a hair.
    beam_up = beam_up.clamp(min=0)
    beam_up = torch.minimum(beam_up, 1.0 - beam)
    beam_down = torch.minimum(beam_down.clamp(min=0), 1.0 - beam - beam_up)
    return reflect, transmit, beam, beam_up, beam_down
