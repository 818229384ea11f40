"""The whole answer of a run: graph networks and kernels, weighed on rows held out.

The valid part is the first fold, so that its answers come from models that have seen nothing of
it; further folds are drawn from the train part. The network of a fold and the kernel are fitted
without it, and the models that are used see the train and valid parts. The test part is never
looked at.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from apps.chemistry.baselines import JointKernel, KernelMember
from apps.chemistry.config import TrainConfig
from apps.chemistry.datasets import Table
from apps.chemistry.hybrid import draw_folds, mixed, mixture_weights
from apps.chemistry.predictor import Predictor
from apps.chemistry.process import fit_process
from apps.lab.progress import say


@dataclass(frozen=True)
class Answers:
    """What the members say of the rows of a table, float64 [row, task].

    Rows of the valid part are predicted by models that have not seen them.
    """

    kernel: Mapping[str, np.ndarray]
    """By the parts of the kernel member: "kernel" and, of several tasks, "joint"."""
    graph: np.ndarray
    kernel_share: Mapping[str, float]
    """Weight of each part of the kernel member; that of the graph is the rest."""

    @property
    def whole(self) -> np.ndarray:
        """float64 [row, task]: the members, weighed."""
        return mixed(self.kernel, self.graph, self.kernel_share)


def run_folds(config: TrainConfig, table: Table, seed: int) -> np.ndarray | None:
    """Return int64 [row]: 0 for the valid part, -1 for the test part, folds of the train part.

    None where networks answer alone, each of them trained on the train part.
    """
    if not config.has_kernel:
        return None
    fold = np.where(table.split == "test", -1, 0)
    trains = table.split == "train"
    fold[trains] = 1
    n_more = config.model.n_member - 1
    if n_more > 1:
        inner = replace(table, split=np.where(trains, "train", "test"))
        fold[trains] += draw_folds(inner, n_more, seed)[trains]
    return fold


def without_fold(table: Table, fold: np.ndarray | None, i_fold: int) -> Table:
    """Return the table as a member sees it, its fold in the valid part."""
    if fold is None:
        return table
    split = np.where(fold < 0, "test", np.where(fold == i_fold, "valid", "train"))
    return replace(table, split=split)


def add_processes(
    predictor: Predictor, table: Table, fold: np.ndarray | None
) -> tuple[Predictor, np.ndarray, np.ndarray]:
    """Fit a Gaussian process to what each network counts.

    The processes that are deployed learn from the train and valid parts, as the kernel does;
    without folds, from the train part.

    Returns
    -------
    Predictor
        With the processes.
    ndarray
        float32 [member, row, task]: what the last layers of its networks say.
    ndarray
        float64 [row, task]: what processes say of rows that neither they nor their network have
        seen; NaN for rows in no fold.
    """
    say("processes on the networks' counts")
    networks, counts = predictor.run_networks(table.graphs)
    held_out = np.full(table.target.shape, np.nan)
    learns = table.split == "train" if fold is None else fold >= 0
    processes = []
    for i, count in enumerate(counts):
        held = np.zeros(len(table), dtype=bool) if fold is None else fold == i
        fit = fit_process(
            count, table.exact, table.smiles, n_state=predictor.config.model.n_layer + 1,
            learns=learns, held=held,
        )  # fmt: skip
        processes.append(fit.process)
        held_out[held] = np.where(np.isfinite(fit.held_out), fit.held_out, networks[i])[held]
    return replace(predictor, processes=tuple(processes)), networks, held_out


def weigh(
    table: Table,
    fold: np.ndarray,
    joint: JointKernel,
    each: np.ndarray,
    *,
    seed: int,
    held_out: np.ndarray | None = None,
) -> tuple[KernelMember, Answers]:
    """Fit the kernel member, and weigh it and the networks on the rows held out.

    Parameters
    ----------
    table : Table
    fold : int64 [row]
        See `run_folds`.
    joint : JointKernel
        That of the table.
    each : float [member, row, task]
        What the network of each fold says, as it is deployed.
    seed : int
    held_out : float [row, task], optional
        What is said of the rows held out, where that is not by `each`.

    Returns
    -------
    KernelMember
        Fitted to the train and valid parts.
    Answers
        One set of weights for all tasks, see `hybrid.mixture_weights`.
    """
    say("kernel mix")
    n_fold = len(each)
    parts = {"kernel": joint.fit(table, fold, n_fold=n_fold, seed=seed)}
    if table.target.shape[1] > 1:
        say("joint kernel")
        parts["joint"] = joint.heeding(table, fold, n_fold=n_fold)
    if held_out is None:
        held_out = np.full(each.shape[1:], np.nan)
        for i, answer in enumerate(each):
            held_out[fold == i] = answer[fold == i]
    members = [part.held_out for part in parts.values()]
    weights = mixture_weights(
        [np.stack(one) for one in zip(*(m.T for m in [*members, held_out]), strict=True)],
        list(table.exact.T.astype(np.float64)),
    )
    weight = dict(zip([*parts, "graph"], weights, strict=True))
    say("weights: " + ", ".join(f"{name} {value:.2f}" for name, value in weight.items()))
    share = {name: weight[name] for name in parts}
    valid = (table.split == "valid")[:, None]
    kernel = {name: np.where(valid, part.held_out, part.whole) for name, part in parts.items()}
    graph = np.where(valid, held_out, each.mean(axis=0, dtype=np.float64))
    return joint.member(parts), Answers(kernel, graph, share)
