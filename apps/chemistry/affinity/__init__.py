"""Affinity of drugs with proteins: Davis and KIBA."""

from apps.chemistry.affinity.document import affinity_document, affinity_markdown
from apps.chemistry.affinity.pairs import SPLITS, SUITES, PairTable, draw_splits, read_pairs
from apps.chemistry.affinity.run import AffinityConfig, affinity_summary, run_affinity

__all__ = [
    "SPLITS",
    "SUITES",
    "AffinityConfig",
    "PairTable",
    "affinity_document",
    "affinity_markdown",
    "affinity_summary",
    "draw_splits",
    "read_pairs",
    "run_affinity",
]
