"""A trained answer: networks, the unit they speak, and the file that keeps them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

import core
from apps.chemistry.baselines import KernelMember
from apps.chemistry.config import TrainConfig
from apps.chemistry.datasets.load import standard_level
from apps.chemistry.hybrid import mixed
from apps.chemistry.molecules import N_ATOM_FEATURE, N_EDGE_FEATURE, MolGraph
from apps.chemistry.molecules.tables import Molecules
from apps.chemistry.network import BindingNetwork, pack
from apps.chemistry.process import CountProcess
from apps.chemistry.reference import Reference
from apps.lab.checkpoint import load_checkpoint, made_from, save_checkpoint
from core.errors import DataError

MODEL_FILE = "model.safetensors"
SCHEMA = "tessera.chemistry.model/2"
# Prefixes of their tensors in the model file.
_REFERENCE, _KERNEL, _PROCESS = "reference.", "kernel.", "process."
# Molecules in a batch of inference: large enough to keep the products busy, small enough to
# stay in the caches (256 molecules are some 8,000 atoms, 4 MB at width 128).
BATCH = 256


def build_network(config: TrainConfig, *, n_task: int, seed: int) -> BindingNetwork:
    """Return the untrained network of a run; the same seed gives the same weights and patterns."""
    return BindingNetwork(
        N_ATOM_FEATURE,
        N_EDGE_FEATURE,
        n_task=n_task,
        d_hidden=config.model.d_hidden,
        n_layer=config.model.n_layer,
        virtual_node=config.model.virtual_node,
        spec=config.train.first_spec(config.variant.layer_spec()),
        generator=torch.Generator().manual_seed(seed),
    )


def freeze(model: BindingNetwork) -> BindingNetwork:
    """Return a copy for inference, its weights at rest in the variant's own format."""
    frozen = core.freeze(model).eval()
    assert isinstance(frozen, BindingNetwork)
    return frozen


@dataclass(frozen=True)
class Predictor:
    """The average of a run's networks, as they are deployed (`core.freeze`).

    Parameters
    ----------
    config : TrainConfig
    target_names : list of str
        One per task.
    unit : str
    seeds : list of int
        One per member.
    members : list of BindingNetwork
        Trained, not frozen.
    reference : Reference, optional
        What it remembers of its training data.
    kernel : KernelMember, optional
        Answers beside the networks.
    """

    config: TrainConfig
    target_names: list[str]
    unit: str
    seeds: list[int]
    members: list[BindingNetwork]
    reference: Reference | None = None
    kernel: KernelMember | None = None
    kernel_share: Mapping[str, float] = field(default_factory=dict)
    """Weight of each part of the kernel member in the answer; that of the networks is the rest."""
    processes: tuple[CountProcess, ...] = ()
    """One per member, in place of its last layers; or none."""

    @property
    def level(self) -> str:
        """How molecules are standardised for prediction: as in training, and salts never stay."""
        level = standard_level(self.config.data.source, self.config.data.standardise)
        return "fragment" if level == "none" else level

    def task(self, name: str | None) -> int:
        """Return the number of a target; without a name, of the only one.

        Raises
        ------
        DataError
            If there is no such target, or several and no name.
        """
        if name is None and len(self.target_names) == 1:
            return 0
        if name not in self.target_names:
            known = ", ".join(self.target_names)
            raise DataError(f"the model predicts {known}; which one? (--target), got {name!r}")
        return self.target_names.index(name)

    @cached_property
    def frozen(self) -> list[BindingNetwork]:
        """Copies of the members for inference: weights at rest in the variant's own format."""
        return [freeze(member).deploy() for member in self.members]

    def predict_members(self, graphs: Sequence[MolGraph]) -> np.ndarray:
        """Return float32 [member, molecule, task] in the unit of the data."""
        networks, counts = self.run_networks(graphs, keeps=bool(self.processes))
        if not self.processes:
            return networks
        told = [one.predict(count) for one, count in zip(self.processes, counts, strict=True)]
        return np.where(np.isfinite(told), told, networks).astype(np.float32)

    def run_networks(
        self, graphs: Sequence[MolGraph], *, keeps: bool = True
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """Return what the last layers of the networks say, and what the networks count.

        Returns
        -------
        ndarray
            float32 [member, molecule, task], in the unit of the data.
        list of ndarray
            float32 [molecule, count] by member; with `keeps` False, of no molecule.
        """
        device = self.members[0].target_mean.device
        rows = np.zeros((len(self.members), len(graphs), len(self.target_names)), np.float32)
        kept: list[list[np.ndarray]] = [[] for _ in self.members]
        with torch.no_grad():
            for start in range(0, len(graphs), BATCH):
                batch = pack(graphs[start : start + BATCH]).to(device)
                for i, member in enumerate(self.frozen):
                    count = member.count(batch)
                    out = member.to_unit(member.answer(count, batch.ptr))
                    rows[i, start : start + BATCH] = out.cpu().numpy()
                    if keeps:
                        kept[i].append(count.float().cpu().numpy())
        blank = np.zeros((0, self.members[0].readout.n_count), np.float32)
        return rows, [np.concatenate([blank, *some]) for some in kept]

    def predict(self, graphs: Sequence[MolGraph]) -> np.ndarray:
        """Return the mean over the members, float32 [molecule, task], in the unit of the data."""
        return self.predict_members(graphs).mean(axis=0)

    def answer(self, mols: Molecules, graph: np.ndarray) -> np.ndarray:
        """Return the whole answer, float32 [molecule, task].

        Parameters
        ----------
        mols : sequence of Mol, or MolTables
        graph : float32 [molecule, task]
            What `predict` says of their graphs.
        """
        if self.kernel is None:
            return graph
        kernel = self.kernel.predict(mols)
        return mixed(kernel, graph, self.kernel_share).astype(np.float32)

    def save(self, path: str | Path) -> Path:
        """Write everything that prediction needs to one safetensors file, whole or not at all."""
        tensors = {
            f"{i}.{name}": tensor
            for i, member in enumerate(self.members)
            for name, tensor in member.state_dict().items()
        }
        if self.reference is not None:
            tensors |= {_REFERENCE + k: v for k, v in self.reference.tensors().items()}
        if self.kernel is not None:
            tensors |= {_KERNEL + k: v for k, v in self.kernel.tensors().items()}
        for i, process in enumerate(self.processes):
            tensors |= {f"{_PROCESS}{i}.{k}": v for k, v in process.tensors().items()}
        meta = {
            "schema": SCHEMA,
            "config": self.config.model_dump(mode="json"),
            "target_names": self.target_names,
            "unit": self.unit,
            "seeds": self.seeds,
            "kernel_share": dict(self.kernel_share),
            "n_feature": [N_ATOM_FEATURE, N_EDGE_FEATURE],
        }
        return save_checkpoint(path, tensors, meta)

    @classmethod
    def load(cls, path: str | Path, *, device: torch.device | str = "cpu") -> "Predictor":
        """Read what `save` wrote; a run folder stands for the model file in it.

        Raises
        ------
        DataError
            If there is no such file, it is damaged, or it was written by a version with other
            features.
        """
        path = Path(path)
        path = path / MODEL_FILE if path.is_dir() else path
        tensors, meta = load_checkpoint(path)
        if meta.get("schema") != SCHEMA:
            raise DataError(f"{path} is no chemistry model: schema {meta.get('schema')!r}")
        with made_from(path):
            if meta["n_feature"] != [N_ATOM_FEATURE, N_EDGE_FEATURE]:
                raise DataError(
                    f"{path} was trained on {meta['n_feature']} features per atom and bond, this "
                    f"version makes {[N_ATOM_FEATURE, N_EDGE_FEATURE]}; train it again"
                )
            config = TrainConfig.model_validate(meta["config"])
            _check_sizes(path, config, tensors)
            members = []
            for i, seed in enumerate(meta["seeds"]):
                member = build_network(config, n_task=len(meta["target_names"]), seed=seed)
                prefix = f"{i}."
                member.load_state_dict(
                    {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
                )
                members.append(member.to(device).eval())
            kept, kernel_kept = (
                {k.removeprefix(p): v for k, v in tensors.items() if k.startswith(p)}
                for p in (_REFERENCE, _KERNEL)
            )
            kernel = KernelMember.from_tensors(kernel_kept) if kernel_kept else None
            share = _kernel_share(path, meta, kernel)
            parts = [
                {k.removeprefix(p): v for k, v in tensors.items() if k.startswith(p)}
                for p in (f"{_PROCESS}{i}." for i in range(len(members)))
            ]
            processes = tuple(CountProcess.from_tensors(part) for part in parts if part)
            if len(processes) not in (0, len(members)):
                raise DataError(
                    f"{path} has {len(processes)} processes for {len(members)} networks: the file "
                    "was changed or is damaged; train the model again"
                )
            return cls(
                config,
                meta["target_names"],
                meta["unit"],
                meta["seeds"],
                members,
                Reference.from_tensors(kept) if kept else None,
                kernel,
                share,
                processes,
            )


def _kernel_share(
    path: Path, meta: Mapping[str, Any], kernel: KernelMember | None
) -> dict[str, float]:
    """Return the weight of each part of the kernel member; files of old name that of the only."""
    parts = {} if kernel is None else kernel.parts
    found = meta.get("kernel_share", {})
    share = {k: float(v) for k, v in found.items()} if isinstance(found, dict) else {}
    if isinstance(found, float):
        share = dict.fromkeys(parts, found)
    if share.keys() != parts.keys():
        raise DataError(
            f"{path} has weights of the kernels {sorted(share)} for {sorted(parts)}: the file was "
            "changed or is damaged; train the model again"
        )
    return share


def _check_sizes(path: Path, config: TrainConfig, tensors: Mapping[str, torch.Tensor]) -> None:
    """Refuse settings that name another network than the weights, before one is built for them."""
    n_layer = sum(k.startswith("0.layers.") and k.endswith(".edge.weight") for k in tensors)
    d_hidden = len(tensors["0.embed.bias"]) if "0.embed.bias" in tensors else 0
    if (n_layer, d_hidden) != (config.model.n_layer, config.model.d_hidden):
        raise DataError(
            f"{path}: its settings name {config.model.n_layer} layers of "
            f"{config.model.d_hidden}, its weights are of {n_layer} layers of {d_hidden}; the "
            "file was changed or is damaged: train the model again"
        )
