"""What a chemistry run can be told: data, model, training."""

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

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

    @property
    def is_file(self) -> bool:
        """Whether the source is a file, not the embedded set or a registered one."""
        # os.path: False, and no error, for a text that is too long to be the name of a file
        return bool(Path(self.source).suffix) or os.path.isfile(self.source)

    @field_validator("target", mode="before")
    @classmethod
    def _one_name(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value


class ModelConfig(Config):
    """Size of the network; `d_hidden` is a multiple of 16, so that every block size fits.

    `n_member` networks, alike but for their seed, are averaged. With `process`, a Gaussian process
    on what each of them counts (`apps.chemistry.process`) answers in place of its last layers.
    """

    d_hidden: int = Field(default=96, ge=16, multiple_of=16)
    n_layer: int = Field(default=4, ge=1)
    virtual_node: bool = False
    n_member: int = Field(default=1, ge=1)
    process: bool = False


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


# What is usual where the kernel mix answers too, and beyond that where several sets share a
# network; chosen on held-out folds of 22 MoleculeACE sets.
USUAL_WHOLE: dict[str, dict[str, Any]] = {
    "model": {"n_member": 5, "process": True},
    "train": {"pick": "last"},
}
USUAL_JOINT: dict[str, dict[str, Any]] = {
    "model": {"d_hidden": 128},
    "train": {"n_epoch": 10, "batch_size": 64, "weight_decay": 0.05, "ema_decay": 0.995},
}


class TrainConfig(Config):
    """A whole chemistry run; `variant` is a preset's name or its settings.

    Parameters
    ----------
    kernel : "auto", "on" or "off"
        Whether the answer is that of the networks and the kernel mix, weighed on rows held out; of
        several targets, also of kernels that heed each other.
        "auto": for a file, and not for the embedded and the registered sets, where
        `tessera chemistry benchmark` sets both beside each other. With it, five networks that keep
        their last epoch are usual; see `apps.chemistry.whole`.
    teacher : bool
        Where there are several targets, the network also learns what the kernel mix, fitted to the
        train part, says of the training molecules of the others. It predicts from graphs alone.
    analogues : float
        Molecules that the teacher answers beyond those, per training molecule: made by exchanging
        branches (`apps.chemistry.molecules.analogues`), measured by nobody.

    Notes
    -----
    Several sets (`data.more`) have a wider network and a schedule of their own as defaults
    (`USUAL_JOINT`). What is given stands.
    """

    variant: Variant = VARIANTS["dense-fp32"]
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    train: FitConfig = FitConfig()
    kernel: Literal["auto", "on", "off"] = "auto"
    teacher: bool = True
    analogues: float = Field(default=0.0, ge=0)

    @property
    def has_kernel(self) -> bool:
        """Whether the kernel mix is part of the answer."""
        return self.kernel == "on" or (self.kernel == "auto" and self.data.is_file)

    @model_validator(mode="before")
    @classmethod
    def _usual(cls, given: Any) -> Any:
        """Lay what is usual for the data under what was given."""
        if not isinstance(given, dict):
            return given
        try:
            data = DataConfig.model_validate(given.get("data", {}))
        except ValidationError:  # told once more, with its place, when all is read
            return given
        usual: dict[str, dict[str, Any]] = {"model": {}, "train": {}}
        word = given.get("kernel", "auto")
        if word == "on" or (word == "auto" and data.is_file):
            usual = {name: usual[name] | values for name, values in USUAL_WHOLE.items()}
        if data.more:
            usual = {name: usual[name] | values for name, values in USUAL_JOINT.items()}
        out = dict(given)
        for name, values in usual.items():
            section = given.get(name, {})
            if isinstance(section, dict):
                out[name] = values | section
        return out
