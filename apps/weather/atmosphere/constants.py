"""Physical constants of the planet and its air, SI.

Earth's radius, rotation, gravity and the gas constants are those of the aquaplanet experiment
(Blackburn and Hoskins 2013, J. Meteorol. Soc. Japan 91A, table 1); latent heat at 0 degrees C.
"""

RADIUS = 6.371e6  # m
ROTATION = 7.292e-5  # rad s-1
GRAVITY = 9.80616  # m s-2
GAS_CONSTANT = 287.04  # J kg-1 K-1, dry air
HEAT_CAPACITY = 1004.64  # J kg-1 K-1, dry air at constant pressure
KAPPA = GAS_CONSTANT / HEAT_CAPACITY
GAS_CONSTANT_VAPOUR = 461.50  # J kg-1 K-1
VIRTUAL = GAS_CONSTANT_VAPOUR / GAS_CONSTANT - 1.0  # Tv = T (1 + VIRTUAL q)
LATENT_HEAT = 2.501e6  # J kg-1, vaporisation
MEAN_PRESSURE = 1.0e5  # Pa, mean surface pressure of the aquaplanet
DAY_S = 86400.0
