"""The benchmark: a graph network, a kernel mix, their hybrid, and what is published."""

from apps.chemistry.benchmark.run import BenchmarkConfig, run_benchmark, suite_sources
from apps.chemistry.benchmark.summary import (
    SCHEMA,
    benchmark_document,
    benchmark_markdown,
    benchmark_summary,
    merge_documents,
    read_document,
)
from apps.chemistry.hybrid import paired_bootstrap

__all__ = [
    "SCHEMA",
    "BenchmarkConfig",
    "benchmark_document",
    "benchmark_markdown",
    "benchmark_summary",
    "merge_documents",
    "paired_bootstrap",
    "read_document",
    "run_benchmark",
    "suite_sources",
]
