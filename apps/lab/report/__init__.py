"""One self-contained page from the records of runs."""

from apps.lab.report.page import write_report

__all__ = ["write_report"]
