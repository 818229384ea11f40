"""The sun's spectrum as weighted points, each with its absorption and scattering.

A toy in its resolution, not in its sums: each part is made so that broad-band absorption follows
the parameterisations of Lacis and Hansen 1974 (J. Atmos. Sci. 31, 118), and the tests hold it to
them. Three parts, ordered by the share of sunlight they hold:

- ultraviolet, four points: strengths and shares fitted here (least squares of relative error, for
  paths of .005 to 8 cm of ozone, within 1.1 %) to their equation 9;
- visible to .94 micrometre, where vapour hardly absorbs: Rayleigh scattering at the wavelengths of
  a 5772 K black body (Hansen and Travis 1974, Space Sci. Rev. 16, 527, equation 2.30) and the
  Chappuis band of ozone with the strength of their equation 10 at short paths;
- near infrared: their k-distribution of water vapour (table 1), taken as a continuous function of
  the cumulated share, so that any number of points can sample it.

Clouds: extinction 1.5 / (density of water * effective radius 10 micrometre), asymmetry .85, single
scattering albedo .99999 in the first two parts and .992 in the near infrared (Slingo 1989,
J. Atmos. Sci. 46, 1419, rounded), delta-scaled (Joseph et al. 1976, J. Atmos. Sci. 33, 2452).
Left out: absorption by carbon dioxide and oxygen, aerosol.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from core.errors import ConfigError

# Strength in 1/cm of ozone at standard temperature and pressure, and share of sunlight.
OZONE_ULTRAVIOLET_PER_CM = np.array([199.84, 28.083, 3.3194, 0.25648])
OZONE_ULTRAVIOLET_SHARE = np.array([0.0046454, 0.0058038, 0.0067091, 0.0150848])
CHAPPUIS_PER_CM = 0.02118  # of all sunlight at short paths; Lacis and Hansen, equation 10
CHAPPUIS_CENTRE_UM, CHAPPUIS_WIDTH_UM = 0.60, 0.07

# Lacis and Hansen 1974, table 1: strength in cm2/g at 1013 hPa and share of sunlight.
VAPOUR_CM2_PER_G = np.array([0.002, 0.035, 0.377, 1.95, 9.40, 44.6, 190.0])
VAPOUR_SHARE = np.array([0.0698, 0.1443, 0.0584, 0.0335, 0.0225, 0.0158, 0.0087])
VAPOUR_FREE_SHARE = 1.0 - VAPOUR_SHARE.sum()

SUN_K = 5772.0
CLOUD_EXTINCTION_M2_PER_KG = 1.5 / (1000.0 * 10e-6)
CLOUD_ASYMMETRY = 0.85
CLOUD_ALBEDO_VISIBLE, CLOUD_ALBEDO_INFRARED = 0.99999, 0.992

ABSORBERS = ("vapour", "ozone", "air", "cloud")
N_POINT_MIN = 8


class Spectrum(NamedTuple):
    """Points of the solar spectrum, float64; absorbers in the order of `ABSORBERS`.

    Attributes
    ----------
    weight : array [point]
        Share of sunlight; sums to one.
    extinction, scattering, asymmetric : array [absorber, point]
        Optical depth, its scattered part, and that part times its asymmetry, per unit of absorber:
        vapour kg/m2 (scaled by p / 1013 hPa), ozone cm at standard temperature and pressure, air
        in units of 1013 hPa, cloud water kg/m2; the cloud's are delta-scaled.
    """

    weight: np.ndarray
    extinction: np.ndarray
    scattering: np.ndarray
    asymmetric: np.ndarray


def sun_wavelength_um(share: np.ndarray) -> np.ndarray:
    """Wavelength in micrometre below which a 5772 K black body emits that share of its flux."""
    wavelength = np.geomspace(0.1, 20.0, 4000)
    x = 14387.77 / (wavelength * SUN_K)  # second radiation constant in micrometre kelvin
    emission = 1.0 / (wavelength**5 * np.expm1(x))
    steps = 0.5 * (emission[1:] + emission[:-1]) * np.diff(wavelength)
    total = np.concatenate([[0.0], np.cumsum(steps)])
    return np.interp(share, total / total[-1], wavelength)


def rayleigh_depth(wavelength_um: np.ndarray) -> np.ndarray:
    """Optical depth of 1013 hPa of air."""
    inverse = wavelength_um**-2.0
    return 0.008569 * inverse**2 * (1.0 + 0.0113 * inverse + 0.00013 * inverse**2)


def vapour_strength(share: np.ndarray) -> np.ndarray:
    """Strength in cm2/g at a cumulated share of the near infrared, weakest first.

    Logarithm linear between the middles of the table's rows, constant beyond them.
    """
    middle = np.cumsum(VAPOUR_SHARE) - 0.5 * VAPOUR_SHARE
    return np.exp(np.interp(share, middle, np.log(VAPOUR_CM2_PER_G)))


def solar_spectrum(n_point: int) -> Spectrum:
    """Sample the spectrum with `n_point` points: 4 ultraviolet, about a third of the rest visible.

    Raises
    ------
    ConfigError
        With fewer than 8 points.
    """
    if n_point < N_POINT_MIN:
        raise ConfigError(
            f"solar_spectrum: n_point must be at least {N_POINT_MIN} (four of them ultraviolet), "
            f"got {n_point}"
        )
    n_ultraviolet = len(OZONE_ULTRAVIOLET_SHARE)
    n_visible = (n_point - n_ultraviolet) // 3
    n_infrared = n_point - n_ultraviolet - n_visible

    visible_share = VAPOUR_FREE_SHARE - OZONE_ULTRAVIOLET_SHARE.sum()
    visible = np.full(n_visible, visible_share / n_visible)
    # Points crowd where absorption is strong: equal steps of the cube root of what remains.
    edge = 1.0 - (1.0 - np.linspace(0.0, 1.0, n_infrared + 1)) ** 3
    infrared = VAPOUR_SHARE.sum() * np.diff(edge)

    weight = np.concatenate([OZONE_ULTRAVIOLET_SHARE, visible, infrared])
    middle = np.cumsum(weight) - 0.5 * weight
    wavelength = sun_wavelength_um(middle)
    is_visible = np.arange(n_point) - n_ultraviolet < n_visible
    is_visible[:n_ultraviolet] = False

    ozone = np.zeros(n_point)
    ozone[:n_ultraviolet] = OZONE_ULTRAVIOLET_PER_CM
    shape = np.exp(-0.5 * ((wavelength - CHAPPUIS_CENTRE_UM) / CHAPPUIS_WIDTH_UM) ** 2)
    shape = np.where(is_visible, shape, 0.0)
    ozone += CHAPPUIS_PER_CM * shape / (shape @ weight)

    vapour = np.zeros(n_point)
    start = n_ultraviolet + n_visible
    vapour[start:] = 0.1 * vapour_strength(middle[start:] - VAPOUR_FREE_SHARE)  # m2/kg

    air = rayleigh_depth(wavelength)
    albedo = np.where(np.arange(n_point) < start, CLOUD_ALBEDO_VISIBLE, CLOUD_ALBEDO_INFRARED)
    forward = CLOUD_ASYMMETRY**2
    zero = np.zeros(n_point)
    cloud_scattering = CLOUD_EXTINCTION_M2_PER_KG * albedo * (1.0 - forward)
    cloud_asymmetry = (CLOUD_ASYMMETRY - forward) / (1.0 - forward)
    cloud_extinction = CLOUD_EXTINCTION_M2_PER_KG * (1.0 - albedo * forward)
    return Spectrum(
        weight=weight,
        extinction=np.stack([vapour, ozone, air, cloud_extinction]),
        scattering=np.stack([zero, zero, air, cloud_scattering]),
        asymmetric=np.stack([zero, zero, zero, cloud_scattering * cloud_asymmetry]),
    )
