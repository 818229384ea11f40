"""Physics of single columns: surface, convection, clouds and radiation."""

from apps.weather.physics.columns import Columns, RadiationResult, Tendencies

__all__ = ["Columns", "RadiationResult", "Tendencies"]
