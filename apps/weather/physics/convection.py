"""Moist convection and large-scale condensation; both keep cp T + L q of every column."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from apps.weather.atmosphere.constants import (
    GAS_CONSTANT,
    HEAT_CAPACITY,
    KAPPA,
    LATENT_HEAT,
    VIRTUAL,
)
from apps.weather.physics.thermodynamics import (
    layer_mass,
    saturation_humidity,
    saturation_slope,
)


class MoistStep(NamedTuple):
    """Temperature K and humidity kg/kg [column, level] after a step; rain kg/m2/s [column]."""

    temperature: Tensor
    humidity: Tensor
    precipitation: Tensor


@dataclass(frozen=True)
class Convection:
    """Simplified Betts-Miller: relax towards a moist adiabat of fixed relative humidity.

    Source: Frierson 2007 (J. Atmos. Sci. 64, 1959, section 2a). A parcel rises from the lowest
    layer; between there and its level of neutral buoyancy the reference is its temperature, and
    `relative_humidity` of saturation at it. Deep convection (net drying) shifts the reference
    temperature so that enthalpy is kept; shallow convection (net moistening) does not rain: the
    reference is moved so that neither heat nor vapour changes in sum.

    Parameters
    ----------
    time_scale : float
        s.
    relative_humidity : float
        Of the reference profile.
    """

    time_scale: float = 7200.0
    relative_humidity: float = 0.7

    def step(
        self,
        temperature: Tensor,
        humidity: Tensor,
        pressure: Tensor,
        pressure_half: Tensor,
        dt: float,
    ) -> MoistStep:
        """Advance by `dt` seconds."""
        mass = layer_mass(pressure_half)
        parcel, buoyant, rises = rising_parcel(temperature, humidity, pressure)
        inside = buoyant.to(temperature.dtype) * mass
        depth = inside.sum(1, keepdim=True).clamp(min=torch.finfo(mass.dtype).tiny)

        def mean(field: Tensor) -> Tensor:
            return (field * inside).sum(1, keepdim=True) / depth

        reference_q = self.relative_humidity * saturation_humidity(parcel, pressure)
        warming = HEAT_CAPACITY * mean(parcel - temperature)
        drying = LATENT_HEAT * mean(humidity - reference_q)
        deep = (drying > 0) & (warming > 0) & rises
        shallow = (drying <= 0) & (warming > 0) & rises
        # Deep: shift T so that heating equals drying. Shallow: shift T to no heating, scale q.
        shift = torch.where(deep, (drying - warming), -warming) / HEAT_CAPACITY
        scale = torch.where(shallow, mean(humidity) / mean(reference_q).clamp(min=1e-12), 1.0)
        acts = (deep | shallow) & buoyant
        rate = 1.0 - math.exp(-dt / self.time_scale)
        change_t = torch.where(acts, rate * (parcel + shift - temperature), 0.0)
        change_q = torch.where(acts, rate * (scale * reference_q - humidity), 0.0)
        rain = -(change_q * mass).sum(1) / dt
        return MoistStep(temperature + change_t, humidity + change_q, rain)


def rising_parcel(
    temperature: Tensor, humidity: Tensor, pressure: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Lift the lowest layer's air: dry, then saturated without its water (pseudo-adiabatic).

    Returns
    -------
    parcel : Tensor [column, level]
        Its temperature, K, wherever it gets to.
    buoyant : Tensor, bool [column, level]
        From the lowest layer up to the highest where it is lighter than the air around it,
        without a gap above the level of free convection.
    rises : Tensor, bool [column, 1]
        Whether it is lighter than its surroundings anywhere, and at all above the lowest layer.
    """
    n_level = temperature.shape[1]
    t, q = temperature[:, -1], humidity[:, -1].clamp(min=0)
    parcel = [t]
    lighter = [torch.ones_like(t, dtype=torch.bool)]
    for k in reversed(range(n_level - 1)):
        ratio = pressure[:, k] / pressure[:, k + 1]
        dry = t * ratio**KAPPA
        saturated = q >= saturation_humidity(dry, pressure[:, k])
        moist = _lift_saturated(t, q, pressure[:, k + 1], pressure[:, k])
        t = torch.where(saturated, moist, dry)
        q = torch.minimum(q, saturation_humidity(t, pressure[:, k]))
        parcel.append(t)
        around = temperature[:, k] * (1.0 + VIRTUAL * humidity[:, k])
        lighter.append(t * (1.0 + VIRTUAL * q) > around)
    profile = torch.stack(parcel[::-1], dim=1)
    light = torch.stack(lighter[::-1], dim=1)
    # The cloud: from the ground through any inhibition to the end of the first buoyant run.
    above = light[:, :-1].flip(1)
    begun = above.int().cummax(1).values.bool()
    ended = (begun & ~above).int().cummax(1).values.bool()
    reached = begun & ~ended
    base = reached.any(1, keepdim=True)
    inhibited = ~begun & base  # layers below the level of free convection
    buoyant = torch.cat([(reached | inhibited).flip(1), base], dim=1)
    return profile, buoyant, base


def _lift_saturated(t: Tensor, q: Tensor, p: Tensor, p_to: Tensor) -> Tensor:
    """Temperature after lifting to saturation, by Newton's method.

    Solves cp ln(T'/T) - R ln(p'/p) + L (q' - q) / T = 0 with 1/T at its mean over the two ends and
    q' at saturation there: the pseudo-adiabat without the vapour's and the water's heat capacity.
    """
    work = GAS_CONSTANT * (p_to / p).log()
    new = t * (p_to / p) ** (0.5 * KAPPA)
    for _ in range(3):
        saturation = saturation_humidity(new, p_to)
        inverse = 0.5 * (1.0 / t + 1.0 / new)
        gained = LATENT_HEAT * (saturation - q)
        value = HEAT_CAPACITY * (new / t).log() - work + gained * inverse
        slope = (
            HEAT_CAPACITY / new
            + LATENT_HEAT * saturation_slope(new, saturation) * inverse
            - 0.5 * gained / new**2
        )
        new = new - value / slope
    return new


def condense(
    temperature: Tensor, humidity: Tensor, pressure: Tensor, pressure_half: Tensor, dt: float
) -> MoistStep:
    """Rain out what exceeds saturation, with the warming that this brings (one Newton step)."""
    saturation = saturation_humidity(temperature, pressure)
    slope = saturation_slope(temperature, saturation)
    excess = (humidity - saturation).clamp(min=0) / (1.0 + LATENT_HEAT / HEAT_CAPACITY * slope)
    rain = (excess * layer_mass(pressure_half)).sum(1) / dt
    warmed = temperature + LATENT_HEAT / HEAT_CAPACITY * excess
    return MoistStep(warmed, humidity - excess, rain)
