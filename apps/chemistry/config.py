"""What a chemistry run can be told: data, model, training."""

from typing import Literal

from pydantic import Field, field_validator

from apps.lab.config import Config
from apps.lab.recipe import Recipe
from apps.lab.variant import VARIANTS, Variant


class DataConfig(Config):
    """Where the molecules come from; the arguments of `apps.chemistry.datasets.load_table`.

    Parameters
    ----------
    source : str
        "pocket" (the embedded model pocket), "bace", another registered set, or a file (CSV, SMI,
        SDF, also with .gz).
    more : tuple of str
        Further sets or files with the same columns; the target of each is a task of its own.
    smiles : str
        Column of the SMILES.
    target : tuple of str
        Columns to predict; a single name may be given alone.
    split_column : str, optional
        Column with train, valid, test; without it `split` names the rule.
    relation_column : str, optional
        Column with "=", "<" or ">"; such values are bounds in training, and not judged.
    unit, unit_column : str, optional
        nM, uM, mM, M or pM, in all rows or row by row, are turned into pK.
    standardise : str
        See `load_table`.
    """

    source: str = "pocket"
    smiles: str = "smiles"
    target: tuple[str, ...] = ()
    split_column: str | None = None
    split: Literal["gem", "deepchem", "random_scaffold", "random"] = "gem"
    more: tuple[str, ...] = ()
    relation_column: str | None = None
    unit: str = ""
    unit_column: str | None = None
    standardise: Literal["auto", "none", "parent", "tautomer"] = "auto"

    @field_validator("target", mode="before")
    @classmethod
    def _one_name(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value


class ModelConfig(Config):
    """Size of the network; `d_hidden` is a multiple of 16, so that every block size fits.

    `n_member` networks, alike but for their seed, are averaged.
    """

    d_hidden: int = Field(default=96, ge=16, multiple_of=16)
    n_layer: int = Field(default=4, ge=1)
    n_member: int = Field(default=1, ge=1)


class FitConfig(Recipe):
    """How the network is trained: one cycle of the learning rate, averaged weights.

    Pattern method, optimizer and rate rule: see `Recipe`.

    Parameters
    ----------
    learning_rate : float
        Peak of the cycle, after `warmup` of the steps.
    ema_decay : float
        Decay per step of the averaged weights, which are the ones that predict.
    pick : "valid" or "last"
        Keep the epoch with the lowest error on the valid part, or the last.
    """

    n_epoch: int = Field(default=25, ge=1)
    batch_size: int = Field(default=32, ge=2)
    learning_rate: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=0.3, ge=0)
    warmup: float = Field(default=0.2, gt=0, lt=1)
    ema_decay: float = Field(default=0.99, ge=0, lt=1)
    pick: Literal["valid", "last"] = "valid"


class TrainConfig(Config):
    """A whole chemistry run; `variant` is a preset's name or its settings.

    Parameters
    ----------
    teacher : bool
        Where there are several targets, the network also learns what the kernel mix, fitted to the
        train part, says of the training molecules of the others. It predicts from graphs alone.
    """

    variant: Variant = VARIANTS["dense-fp32"]
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    train: FitConfig = FitConfig()
    teacher: bool = True
