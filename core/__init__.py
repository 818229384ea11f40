"""Sparse and low-precision kernels, numerics and optimizers; knows no machine and no application."""
