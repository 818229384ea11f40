"""Physics of single columns: surface, convection, clouds and radiation."""

from apps.weather.physics.clouds import Clouds
from apps.weather.physics.columns import Columns, RadiationResult, Tendencies
from apps.weather.physics.convection import Convection
from apps.weather.physics.physics import Physics
from apps.weather.physics.radiation import MOST_POINTS, ExactRadiation, Radiation, cos_zenith
from apps.weather.physics.soundings import soundings
from apps.weather.physics.surface import SURFACE_ALBEDO, Surface, aquaplanet_sst

__all__ = [
    "MOST_POINTS",
    "SURFACE_ALBEDO",
    "Clouds",
    "Columns",
    "Convection",
    "ExactRadiation",
    "Physics",
    "Radiation",
    "RadiationResult",
    "Surface",
    "Tendencies",
    "aquaplanet_sst",
    "cos_zenith",
    "soundings",
]
