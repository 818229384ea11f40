"""The dynamical core: spectral primitive equations on sigma levels."""
