"""One self-contained page from the records of runs."""

from apps.lab.report.page import summary_rows, write_report

__all__ = ["summary_rows", "write_report"]
