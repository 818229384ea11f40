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
# # The machine, read plan by plan
# A training step is traced once and costed on a tile machine, a GPU and a systolic array.

# %%
import torch

import core
import hw

generator = torch.Generator().manual_seed(0)

# %%
spec = core.LayerSpec(density=0.25, block=16, weight_format="bf16", activation_format="bf16")
model = torch.nn.Sequential(
    core.build_linear(1024, 2048, spec, generator=generator),
    torch.nn.GELU(),
    core.build_linear(2048, 1024, spec, generator=generator),
)
optimizer = torch.optim.AdamW(model.parameters())


def step(x):
    optimizer.zero_grad()
    model(x).square().mean().backward()
    optimizer.step()


program = hw.trace(step, torch.randn(256, 1024, generator=generator))
print(len(program.ops), "ops")

# %% [markdown]
# ## One report
# Bars say where time goes, the timeline shows supersteps, the last figure the memory of a tile over the program.

# %%
hw.cost_program(program, "ipu_bow", phase="train_step")

# %% [markdown]
# ## Side by side

# %%
for name in hw.machine_names():
    report = hw.cost_program(program, name, phase="train_step")
    lo, hi = report.time_interval_s
    print(
        f"{name:10s} {1e6 * report.time_s:8.1f} us [{1e6 * lo:.1f}, {1e6 * hi:.1f}], {report.energy_j:.2e} J"
    )

# %% [markdown]
# ## One op in words, with the plan that won and the one that came second

# %%
from hw.explain import explain
from hw.single import parse_op

item = parse_op("spmm m=4096 k=4096 n=1024 block=16 density=0.0625 dtype=fp16 mode=static")
print(explain(item, hw.load_machine("ipu_bow")))

# %% [markdown]
# ## A machine that does not exist
# What if a tile could receive twice as much in a cycle? A file with three lines answers.

# %%
import tempfile
from pathlib import Path

wide = Path(tempfile.mkdtemp()) / "wide_bow.toml"
wide.write_text(
    'name = "wide_bow"\nlike = "ipu_bow"\n'
    'exchange_byte_per_cycle = { value = 8, mark = "derived", source = "what if doubled" }\n'
)
for machine in ("ipu_bow", str(wide)):
    print(machine[-14:], hw.cost_program(program, machine, phase="train_step").time_s)
