"""Runs, records and reports: what both applications share, and no science."""
