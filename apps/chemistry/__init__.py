"""Molecular binding prediction with a graph network."""
