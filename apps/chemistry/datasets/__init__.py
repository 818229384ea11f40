"""Datasets: tables of molecules, the embedded pocket set, splits."""

from apps.chemistry.datasets.table import SPLITS, RowReport, Table

__all__ = ["SPLITS", "RowReport", "Table"]
