"""Datasets: tables of molecules, the embedded pocket set, splits."""

from apps.chemistry.datasets.load import BACE_SPLITS, load_table
from apps.chemistry.datasets.split import split_molecules
from apps.chemistry.datasets.table import SPLITS, RowReport, Table, join_tables

__all__ = [
    "BACE_SPLITS",
    "SPLITS",
    "RowReport",
    "Table",
    "join_tables",
    "load_table",
    "split_molecules",
]
