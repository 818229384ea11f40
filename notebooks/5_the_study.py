# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # The study
# One file names the levers; every run is kept by the hash of its settings, so that a study can be stopped and go on.

# %%
import tempfile
from pathlib import Path

from apps.suite.study import run_study

folder = Path(tempfile.mkdtemp())
(folder / "small.toml").write_text(
    """
title = "Two levers in ten minutes"
seeds = [0]
machines = ["ipu_bow", "a100"]

[[sweep]]
application = "chemistry"
base.train.n_epoch = 2

[sweep.grid]
variant.density = [1.0, 0.25]
variant.weight_format = ["fp32", "int8"]
"""
)
run_study(folder / "small.toml", folder / "runs", n_job=2, device="cpu", resume=False)

# %% [markdown]
# The study shows what its report says first: accuracy, what the same accuracy costs, and what each lever does.

# %%
from apps.suite.study import StudyView

StudyView(folder / "runs")

# %% [markdown]
# Every run has its record; reports are made of nothing else.

# %%
from apps.lab.record import read_record

records = [read_record(path) for path in sorted((folder / "runs").rglob("record.json"))]
records[0]

# %%
for record in records:
    cost = {entry.machine: entry.time_s for entry in record.cost if entry.phase == "inference"}
    print(record.config["variant"]["name"], record.accuracy["test"]["rmse"], cost)

# %% [markdown]
# The whole report, with Pareto fronts and the break-even map, is one file that opens anywhere.

# %%
(folder / "runs" / "report.html").stat().st_size
