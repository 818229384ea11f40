"""Runs, records and reports: what both applications share, and no science.

Import the modules by name (`apps.lab.config`, `apps.lab.record`, ...); nothing is loaded here, so
that the commands, which need only `apps.lab.options`, answer at once.
"""
