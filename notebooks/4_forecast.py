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
# # A forecast, for a modeller
# A dataset in, a dataset out: two days of the aquaplanet, with the exact radiation and a coarser one.

# %%
import matplotlib.pyplot as plt
import torch

from apps.weather.forecast import dataset, forecast_dataset, load_sample, snapshot
from apps.weather.model import Model
from apps.weather.physics.physics import Physics
from apps.weather.physics.radiation.exact import ExactRadiation

torch.set_num_threads(1)


def model_with(n_longwave, n_shortwave):
    physics = Physics(ExactRadiation(n_longwave, n_shortwave))
    return Model("T21L8", physics=physics, dtype=torch.float32)


# %%
fine, coarse = model_with(64, 16), model_with(16, 8)
start = dataset(fine, [snapshot(fine, load_sample(fine))])
data = {
    name: forecast_dataset(model, start, lead_h=48)
    for name, model in {"64 + 16": fine, "16 + 8": coarse}.items()
}
data["64 + 16"]

# %% [markdown]
# ## A map and a section
# Wrong if the tropics are not the warmest below, or the air does not grow colder with height.

# %%
temperature = data["64 + 16"]["temperature"].isel(init_time=0, lead_time=-1, member=0)
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.5))
temperature.isel(level=-1).plot(ax=left)
temperature.mean("lon").plot(ax=right, yincrease=False)
figure.tight_layout()

# %% [markdown]
# ## What coarse radiation does in two days
# Nought at the start; the top, which radiation alone holds, errs first.

# %%
difference = data["16 + 8"]["temperature"] - data["64 + 16"]["temperature"]
rms = (difference**2).mean(("init_time", "member", "lat", "lon")) ** 0.5
rms.to_pandas().round(3)

# %% [markdown]
# ## Members
# Five starts that differ by a tenth of a kelvin of noise, and how far apart they are a day later.

# %%
ensemble = forecast_dataset(coarse, start, lead_h=24, n_member=5, noise_k=0.1)
ensemble["temperature"].std("member").mean(("init_time", "lat", "lon")).to_pandas().round(3)

# %% [markdown]
# ## The learned scheme
# `tessera weather train` makes one in a minute or two. Here a very short training shows the way.

# %%
import tempfile
from pathlib import Path

from apps.lab.config import load_config
from apps.weather.train import TrainConfig, run

config = load_config(
    TrainConfig,
    overrides=[
        "columns.n_day=20",
        "columns.other_climates=[]",
        "network.n_epoch=8",
        "forecast=none",
    ],
)
record = run(config, out=Path(tempfile.mkdtemp()) / "emulator", seed=0)
for split, scores in record.accuracy.items():
    print(split, {k: round(v, 4) for k, v in scores.items() if "rmse" in k})
