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
# # Binding, for a chemist
# The model pocket is a made-up set with a known answer, so that everything here runs offline and can be checked.
# With your own table, `DataConfig(source="molecules.csv", smiles="smiles", target=["pIC50"])` takes its place.

# %%
import tempfile
from pathlib import Path

from apps.chemistry.config import TrainConfig
from apps.chemistry.train import run
from apps.lab.config import load_config

folder = Path(tempfile.mkdtemp())
config = load_config(TrainConfig, overrides=["train.n_epoch=12", "variant=sparse-16x16-75-int8"])
record = run(config, out=folder / "pocket", seed=0)

# %% [markdown]
# ## How good is it, beside honest lines?
# Held-out R groups: parts that the network has never seen. A model that only counts atoms does badly here.

# %%
rows = {"network": record.accuracy["test"], **{k: v["test"] for k, v in record.baselines.items()}}
for name, scores in rows.items():
    print(f"{name:28s} RMSE {scores['rmse']:.3f}")

# %% [markdown]
# ## Answers for new molecules
# Same rows, same order; a status for each; an interval; the nearest molecule that the model has seen.

# %%
import pandas as pd

from apps.chemistry.answers import predict_file
from apps.chemistry.predictor import Predictor

new = folder / "new.csv"
new.write_text("smiles\nO=C(Nc1ccccc1)c1ccccc1\nCC(=O)[O-].[Na+]\nnot a molecule\nC1CC1\n")
predictor = Predictor.load(folder / "pocket")
print(predict_file(predictor, new, folder / "answers.csv"))
pd.read_csv(folder / "answers.csv")

# %% [markdown]
# ## What one inference costs

# %%
for entry in record.cost:
    if entry.phase == "inference":
        print(f"{entry.machine:10s} {1e6 * entry.time_s:8.1f} us, {entry.energy_j:.1e} J")
