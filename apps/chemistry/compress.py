"""A trained run made small: blocks pruned little by little, rounded weights, taught by the run."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from apps.chemistry.config import TrainConfig
from apps.chemistry.datasets import Table
from apps.chemistry.evaluate import score_rows
from apps.chemistry.fitting import fit_network, share_density
from apps.chemistry.metrics import spearman
from apps.chemistry.network import BindingNetwork, MolBatch
from apps.chemistry.predictor import MODEL_FILE, Predictor, build_network
from apps.chemistry.summary import aligned
from apps.chemistry.train import MEMBER_STRIDE, read_table
from apps.chemistry.whole import add_processes, run_folds
from apps.lab.variant import Variant
from core.errors import ConfigError, DataError
from core.sparse import BlockSparseLinear

SCHEMA = "tessera.chemistry.compress/1"
SMALL = Variant(density=0.1, block=16, weight_format="int8")
N_EPOCH = 60  # three fifths of them to prune, the rest to recover
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 0.01
# Of distances between counts beside squared distances between answers, over their variance, where
# processes answer from the counts. After twenty epochs on 22 MoleculeACE sets the rank correlation
# of their answers was .9948; .9936 with distances between logarithms of counts.
COUNT_WEIGHT = 5.0
SMALLEST_COUNT = 1e-6


@dataclass(frozen=True)
class Compressed:
    """The small model and how it compares on the test part, both as deployed."""

    predictor: Predictor
    scores: dict[str, float]
    """By `evaluate.score_rows`: means over the tasks, and those of each where there are several."""
    scores_before: dict[str, float]
    """Of the dense networks in fp32."""
    rank_correlation: list[float]
    """Between the predictions of both, by task, on its own test rows."""
    weight_share: float
    """Weights of the large layers that are left, 0..1."""
    n_epoch: int = N_EPOCH
    last_layers: "Compressed | None" = None
    """The same by the last layers, where processes on their counts, fitted to each, answered."""

    def __str__(self) -> str:
        """Return the lines that the command prints."""
        if self.last_layers is not None:
            layers = replace(self, last_layers=None)
            return f"by the last layers\n{self.last_layers}\n\nby processes\n{layers}"
        name, rank = self.predictor.config.variant.name, self.rank_correlation
        rows = [["test part", "dense fp32", name, "difference"]]
        for key, before in self.scores_before.items():
            if key.startswith("rmse"):
                after = self.scores[key]
                rows.append([key, f"{before:.4f}", f"{after:.4f}", f"{after - before:+.4f}"])
        least = f", least {min(rank):.4f}" if len(rank) > 1 else ""
        return (
            f"{aligned(rows)}\nrank correlation of the predictions: {np.mean(rank):.4f}{least}\n"
            f"weights left in the large layers: {100 * self.weight_share:.1f} %"
        )

    def document(self) -> dict[str, Any]:
        """Return what is kept of it: errors and correlations, no molecule."""
        return {
            "schema": SCHEMA,
            "data": self.predictor.target_names,
            "variant": self.predictor.config.variant.model_dump(),
            "n_epoch": self.n_epoch,
            "n_network": len(self.predictor.members),
            "weight_share": round(self.weight_share, 4),
            "dense": {k: round(v, 4) for k, v in self.scores_before.items()},
            "small": {k: round(v, 4) for k, v in self.scores.items()},
            "rank_correlation": [round(r, 4) for r in self.rank_correlation],
            "last_layers": None if self.last_layers is None else self.last_layers.document(),
        }


def compress_run(
    folder: Path,
    out: Path,
    *,
    variant: Variant = SMALL,
    n_epoch: int = N_EPOCH,
    seed: int = 0,
    process: bool = False,
) -> Compressed:
    """Compress the networks of a finished run and write the model file to `out`.

    Parameters
    ----------
    folder : Path
        A run of a dense variant, or its model file; `benchmark` keeps its networks as such.
    out : Path
        Folder of the new model file, for `predict` and `explain`.
    variant : Variant
        What to end at: block-sparse, or dense in another number format.
    n_epoch : int
        0 rounds the weights of a dense variant as they are.
    seed : int
    process : bool
        See `compress`.

    Raises
    ------
    ConfigError
        If the run is not dense, the variant is dense fp32, its blocks do not fit the run's width,
        or blocks are to go in no epoch.
    DataError
        If `out` is where the run's own model is: that would be lost.
    """
    dense = Predictor.load(folder)
    own = folder / MODEL_FILE if folder.is_dir() else folder
    if (out / MODEL_FILE).exists() and own.samefile(out / MODEL_FILE):
        raise DataError(f"compress: --out {out} holds the model to compress; choose another folder")
    table = read_table(dense.config, dense.seeds[0] % MEMBER_STRIDE)  # the seed of the run
    answer = compress(dense, table, variant=variant, n_epoch=n_epoch, seed=seed, process=process)
    answer.predictor.save(out / MODEL_FILE)
    return answer


def compress(
    dense: Predictor,
    table: Table,
    *,
    variant: Variant = SMALL,
    n_epoch: int = N_EPOCH,
    seed: int = 0,
    process: bool = False,
) -> Compressed:
    """Return a smaller copy of a predictor, and how much worse it is on the test part.

    Where processes answer in place of the last layers, they are fitted to what the smaller networks
    count. With `process`, they do so for both even where the run had none.

    Notes
    -----
    Each network starts from the weights of its dense original, all blocks live, and learns the
    original's own answers on the training molecules, each once, which carry no noise of an assay;
    where processes answer, what it counts as well. The blocks of least norm go in twenty steps
    (gradual pruning: Zhu and Gupta, arXiv:1710.01878) while the weights are rounded to int8 in
    every forward pass. Narrow layers keep a larger share of them (`fitting.share_density`). The
    epoch is picked by agreement with the original on the valid part; no measured value is read but
    to judge the test part, and by processes, which learn from the values that they learned from
    before.
    """
    plain = Variant.model_validate("dense-fp32")
    if dense.config.variant.density < 1 or variant == plain:
        raise ConfigError(
            f"compress: expected a dense run and a smaller variant, got "
            f"{dense.config.variant.name} and {variant.name}; give a run trained with --variant "
            "dense-fp32, and blocks or a number format to end at"
        )
    if n_epoch == 0 and variant.density < 1:
        raise ConfigError(
            f"compress: {variant.name} needs epochs for its blocks to go in, got 0; weights alone "
            "are rounded without any (--density 1 --epochs 0)"
        )
    dense = replace(
        dense, config=dense.config.model_copy(update={"variant": plain}),
        members=[_plain(dense, member, plain) for member in dense.members],
    )  # fmt: skip
    config = _student_config(dense.config, variant, n_epoch)
    process = process or bool(dense.processes)
    members = [
        _plain(dense, member, variant) if n_epoch == 0 else
        _student(Predictor(dense.config, dense.target_names, dense.unit, [s], [member]),
                 table, config, seed=s + seed, learns_counts=process)
        for s, member in zip(dense.seeds, dense.members, strict=True)
    ]  # fmt: skip
    small = replace(dense, config=config, members=members, processes=())
    test = table.select("test")
    layers = _judge(replace(dense, processes=()), small, test, n_epoch)
    if not process:
        return layers
    fold = run_folds(dense.config, table, dense.seeds[0] % MEMBER_STRIDE)
    small = add_processes(small, table, fold)[0]
    dense = dense if dense.processes else add_processes(dense, table, fold)[0]
    return replace(_judge(dense, small, test, n_epoch), last_layers=layers)


def _judge(dense: Predictor, small: Predictor, test: Table, n_epoch: int) -> Compressed:
    before, after = dense.predict(test.graphs), small.predict(test.graphs)
    known = np.isfinite(test.exact)
    return Compressed(
        small,
        score_rows(after, test),
        score_rows(before, test),
        [spearman(a[k], b[k]) for a, b, k in zip(before.T, after.T, known.T, strict=True)],
        _share(small.members[0]),
        n_epoch,
    )


def _plain(dense: Predictor, member: BindingNetwork, variant: Variant) -> BindingNetwork:
    """Return the network with its layers in fp32."""
    config = dense.config.model_copy(update={"variant": variant})
    model = build_network(config, n_task=len(dense.target_names), seed=0)
    model.load_state_dict(member.state_dict())
    return model.eval()


def _student_config(config: TrainConfig, variant: Variant, n_epoch: int) -> TrainConfig:
    train = config.train.model_copy(
        update={
            "method": "prune" if variant.density < 1 else "static",
            "n_epoch": max(n_epoch, 1),
            "learning_rate": LEARNING_RATE,
            "weight_decay": WEIGHT_DECAY,
            "pick": "valid",
        }
    )
    return config.model_copy(update={"variant": variant, "train": train})


def _student(
    teacher: Predictor, table: Table, config: TrainConfig, *, seed: int, learns_counts: bool
) -> BindingNetwork:
    taught = _taught(teacher, table)
    model = build_network(config, n_task=taught.target.shape[1], seed=seed)
    original = teacher.members[0]
    with torch.no_grad():
        _adopt(model, original)

    def loss(model: BindingNetwork, batch: MolBatch) -> Tensor:
        return imitation_loss(model, original, batch) if learns_counts else model.loss(batch)

    label = f"compress to {config.variant.name}"
    fit_network(
        model, taught, config.train, seed, density=config.variant.density, prepare=share_density,
        loss=loss, label=label,
    )  # fmt: skip
    return model.eval()


def _taught(teacher: Predictor, table: Table) -> Table:
    """Return the train and valid parts with the teacher's answers, each molecule of a part once."""
    names = [f"{part} {smiles}" for part, smiles in zip(table.split, table.smiles, strict=True)]
    first = np.sort(np.unique(names, return_index=True)[1])
    kept = table.take(first[table.split[first] != "test"])
    return replace(kept, target=teacher.predict(kept.graphs), bound=None)


def imitation_loss(model: BindingNetwork, original: BindingNetwork, batch: MolBatch) -> Tensor:
    """Return the loss of answers and counts against those of another network.

    The batch holds the other's answers. Counts of a molecule are compared as the processes compare
    those of two (`apps.chemistry.process`): by what their min-max similarity lacks of one, the mean
    over the states.
    """
    with torch.no_grad():
        aim = original.count(batch)
    count = model.count(batch)
    states = (len(aim), len(model.readout.detect), -1)
    less, more = (f(count, aim).view(states).sum(dim=2) for f in (torch.minimum, torch.maximum))
    distance = ((more - less) / more.clamp(min=SMALLEST_COUNT)).mean()
    return model.loss_of(model.answer(count, batch.ptr), batch) + COUNT_WEIGHT * distance


def _adopt(model: BindingNetwork, dense: BindingNetwork) -> None:
    """Take over the weights of `dense`; layers of live blocks take them block by block."""
    known = dense.state_dict()
    for name, tensor in model.state_dict().items():
        if name in known and known[name].shape == tensor.shape:
            tensor.copy_(known[name])
    for name, layer in model.named_modules():
        if isinstance(layer, BlockSparseLinear):
            (n_row, n_column), (height, width) = layer.pattern.shape, layer.pattern.block
            weight = known[f"{name}.weight"].reshape(
                n_row // height, height, n_column // width, width
            )
            pattern = layer.pattern
            blocks = weight.permute(0, 2, 1, 3)[pattern.row_index.long(), pattern.col_index.long()]
            layer.values.copy_(blocks)


def _share(model: BindingNetwork) -> float:
    layers = [m for m in model.modules() if isinstance(m, BlockSparseLinear)]
    if not layers:
        return 1.0
    left = sum(layer.values.numel() for layer in layers)
    return left / sum(layer.in_features * layer.out_features for layer in layers)
