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
# # Sparse and low precision in ten minutes
# A layer that holds a tenth of its weights, trains, and rests in eight bits; what that does to the answer, and to the clock.

# %%
import time

import torch

import core

torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)

# %% [markdown]
# ## A task that a network can learn
# The teacher is a random network; students of several kinds learn from its answers.

# %%
x = torch.randn(2048, 256, generator=generator)
teacher = torch.nn.Sequential(torch.nn.Linear(256, 64), torch.nn.Tanh(), torch.nn.Linear(64, 16))
with torch.no_grad():
    y = teacher(x)

# %%
SPECS = {
    "dense": core.LayerSpec(),
    "quarter, blocks of 16": core.LayerSpec(density=0.25, block=16),
    "quarter, blocks of 4": core.LayerSpec(density=0.25, block=4),
    "quarter, blocks of 16, int8": core.LayerSpec(
        density=0.25, block=16, weight_format="int8", activation_format="int8"
    ),
    "dense, fp8": core.LayerSpec(weight_format="fp8_e4m3"),
    "dense, int4": core.LayerSpec(weight_format="int4"),
}


def student(spec):
    draw = torch.Generator().manual_seed(1)
    return torch.nn.Sequential(
        core.build_linear(256, 512, spec, generator=draw),
        torch.nn.GELU(),
        core.build_linear(512, 16, core.LayerSpec(), generator=draw),
    )


def train(model, n_step=150):
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for i in range(n_step):
        rows = slice((i % 8) * 256, (i % 8 + 1) * 256)
        loss = (model(x[rows]) - y[rows]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


# %% [markdown]
# ## What each costs in accuracy
# `freeze` gives the form for inference, in which narrow weights really rest as codes.

# %%
variance = float(y.var())
for name, spec in SPECS.items():
    frozen = core.freeze(train(student(spec)))
    with torch.no_grad():
        error = float((frozen(x) - y).square().mean()) / variance
    print(f"{name:30s} unexplained variance {100 * error:5.2f} %")

# %% [markdown]
# ## What it does to the clock
# One training step of a single layer, beside `torch.nn.Linear`, interleaved. `tessera bench kernels` measures this with care.


# %%
def step_s(layer, batch):
    start = time.thread_time()
    layer(batch).sum().backward()
    return time.thread_time() - start


wide = torch.randn(512, 1024, generator=generator, requires_grad=True)
dense = torch.nn.Linear(1024, 1024)
for density in (0.5, 0.1, 0.02):
    pattern = core.BlockPattern.random((1024, 1024), (16, 16), density, generator)
    sparse = core.BlockSparseLinear(1024, 1024, pattern=pattern)
    pairs = [(step_s(dense, wide), step_s(sparse, wide)) for _ in range(7)]
    ratio = min(d for d, _ in pairs) / min(s for _, s in pairs)
    print(f"density {density:4.2f}: {ratio:4.1f} times the speed of torch.nn.Linear")

# %% [markdown]
# ## Formats, up close

# %%
values = torch.tensor([0.1, 1.0, 3.3, 440.0, 1e4])
for name in ("bf16", "fp8_e4m3", "fp8_e5m2", "int4"):
    print(f"{name:9s}", core.round_to_format(values, name).tolist(), core.FORMATS[name].overflow)

# %% [markdown]
# Rounding at random is right in the mean, which is what small updates need:

# %%
many = torch.full((100_000,), 0.3)
print(core.round_to_format(many, "fp8_e4m3").mean())
print(core.round_to_format(many, "fp8_e4m3", rounding="stochastic", generator=generator).mean())
