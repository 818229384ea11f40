"""Many chips: data, pipeline and tensor parallel training from the cost of one chip's step.

A replica of the model takes `pipeline` x `tensor` chips and a batch of its own; `data` replicas
add up their gradients. Tensor parallel chips lie side by side, pipeline stages next, replicas
last. Nothing is planned again for a share of the work: times divide, which is the more optimistic
the smaller the share. Weak scaling: the batch of a replica is that of the traced step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from core.errors import ConfigError
from hw.cost import CostReport
from hw.links import Algorithm, Group, all_reduce, send
from hw.machine import Machine
from hw.program import Program

#: Gradients are reduced in buckets of this size, each as soon as it is there: 25 MB, the default
#: of torch.nn.parallel.DistributedDataParallel. The last one has nothing to hide behind.
BUCKET_BYTE = 25e6


@dataclass(frozen=True)
class StepWork:
    """One replica's training step on one chip, and what would cross between chips.

    Attributes
    ----------
    n_item : float
        Items in the replica's batch.
    forward_s, backward_s, optimizer_s : float
        Time by phase on one chip.
    product_fraction : float
        Share of forward and backward time in matrix products, which tensor parallelism divides.
    gradient_byte : float
        All parameters' gradients.
    tensor_byte : float
        Summed over a tensor parallel group in a step: the results of every second layer with
        weights, forward, and as much backward. The layers between are split by their results,
        which are needed in parts only (Shoeybi et al. 2019, arXiv 1909.08053, section 3).
    op_s, cut_byte : tuple of float
        Time of each forward op, and the bytes that a cut after it would send on.
    input_s : float
        Waiting for the host to send the replica's batch, where nothing hides it.
    """

    n_item: float
    forward_s: float
    backward_s: float
    optimizer_s: float
    product_fraction: float
    gradient_byte: float
    tensor_byte: float
    op_s: tuple[float, ...]
    cut_byte: tuple[float, ...]
    input_s: float = 0.0

    @property
    def time_s(self) -> float:
        """Time of the step on one chip."""
        return self.forward_s + self.backward_s + self.optimizer_s + self.input_s

    def stages(self, n_stage: int) -> tuple[float, float]:
        """Return the slowest stage's share of the forward time, and the largest cut's bytes."""
        if n_stage == 1:
            return 1.0, 0.0
        if n_stage > len(self.op_s):
            raise ConfigError(
                f"scale: {n_stage} pipeline stages for {len(self.op_s)} forward ops; use fewer"
            )
        end = np.cumsum(self.op_s)
        wanted = end[-1] * np.arange(1, n_stage) / n_stage
        cuts = np.unique(np.abs(end[:, None] - wanted).argmin(axis=0))
        stage_s = np.diff(np.concatenate([[0.0], end[cuts], end[-1:]]))
        return float(stage_s.max() / end[-1]), max(self.cut_byte[i] for i in cuts)


@dataclass(frozen=True)
class Layout:
    """How chips are used: `data` replicas of `pipeline` stages of `tensor` chips each."""

    data: int = 1
    pipeline: int = 1
    tensor: int = 1
    n_micro: int = 1
    """Micro-batches that a pipeline cuts its batch into."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ConfigError(f"scale: {name} must be at least 1, got {value}")

    @property
    def n_chip(self) -> int:
        """Chips in all."""
        return self.data * self.pipeline * self.tensor


@dataclass(frozen=True)
class ScaledStep:
    """A training step on many chips.

    Attributes
    ----------
    layout : Layout
    time_s : float
        Sum of `parts_s`.
    parts_s : dict
        ``compute``, ``bubble`` (stages that wait), ``tensor``, ``pipeline`` and ``gradient``
        (exchange between chips that nothing hides), ``optimizer``, ``input`` (from the host).
    item_per_s : float
    efficiency : float
        Items per second and chip over those of one chip alone.
    sent_byte : float
        Between all chips, in one step.
    """

    layout: Layout
    time_s: float
    parts_s: dict[str, float]
    item_per_s: float
    efficiency: float
    sent_byte: float


def step_work(report: CostReport, program: Program, n_item: int) -> StepWork:
    """Return what `scale` needs to know of a costed training step of `n_item` items.

    Parameters
    ----------
    report : CostReport
        Of `program` on one chip.
    program : Program
        Forward, backward and optimizer ops.
    n_item : int
        Items of the traced batch.
    """
    time_s = {
        phase: sum(op.time_s for op in report.ops if op.phase == phase)
        for phase in ("forward", "backward", "optimizer")
    }
    products = [op for op in report.ops if op.n_mac and op.phase != "optimizer"]
    busy_s = time_s["forward"] + time_s["backward"]
    forward = [op for op in report.ops if op.phase == "forward"]
    weighted = [
        program.ops[op.i_op]
        for op in forward
        if op.n_mac
        and any(
            program.storages[t.storage].role == "parameter" for t in program.ops[op.i_op].inputs
        )
    ]
    return StepWork(
        n_item=n_item,
        forward_s=time_s["forward"],
        backward_s=time_s["backward"],
        optimizer_s=time_s["optimizer"],
        product_fraction=sum(op.time_s for op in products) / busy_s if busy_s else 0.0,
        gradient_byte=float(
            sum(s.byte for s in program.storages.values() if s.role == "parameter")
        ),
        tensor_byte=2.0 * sum(op.out.byte for op in weighted[1::2]),
        op_s=tuple(op.time_s for op in forward),
        cut_byte=tuple(_cut_byte(program, [op.i_op for op in forward])),
    )


def _cut_byte(program: Program, places: list[int]) -> list[float]:
    """Return the bytes of activations made at or before each place and read forward after it."""
    last_read: dict[int, int] = {}
    for i_op, op in enumerate(program.ops):
        if op.phase == "forward":
            last_read.update((t.storage, i_op) for t in op.inputs)
    change = np.zeros(len(program.ops) + 1)
    for key, storage in program.storages.items():
        if storage.role == "activation" and last_read.get(key, -1) > storage.first_op:
            change[storage.first_op] += storage.byte
            change[last_read[key]] -= storage.byte
    return [float(byte) for byte in np.cumsum(change)[places]]


def scale(
    work: StepWork,
    machine: Machine,
    layout: Layout,
    *,
    overlap: bool = True,
    algorithm: Algorithm = "best",
) -> ScaledStep:
    """Return one training step on many chips.

    Parameters
    ----------
    work : StepWork
    machine : Machine
        With the links between its chips.
    layout : Layout
    overlap : bool
        Reduce gradients behind the backward pass of the last micro-batch, all but the last bucket.
    algorithm : str
        Of the all-reduce: see `hw.links.all_reduce`.

    Raises
    ------
    ConfigError
        If the layout has more stages than the step has forward ops.
    """
    tensor = Group(layout.tensor)
    chain = Group(layout.pipeline, stride=layout.tensor)
    replicas = Group(layout.data, stride=layout.tensor * layout.pipeline)
    share, cut_byte = work.stages(layout.pipeline)
    shrink = work.product_fraction / layout.tensor + 1 - work.product_fraction

    # one micro-batch in the slowest stage
    n_micro = layout.n_micro
    compute_s = (work.forward_s + work.backward_s) * share * shrink / n_micro
    summed = all_reduce(work.tensor_byte * share / n_micro, tensor, machine, algorithm)
    handed = send(cut_byte / n_micro, chain, machine)
    stage_s = compute_s + summed.time_s + 2 * handed.time_s

    gradient_byte = work.gradient_byte / (layout.tensor * layout.pipeline)
    reduced = all_reduce(gradient_byte, replicas, machine, algorithm)
    gradient_s = reduced.time_s
    if overlap:
        bucket = min(BUCKET_BYTE, gradient_byte)
        last_s = all_reduce(bucket, replicas, machine, algorithm).time_s
        hidden_s = work.backward_s * share * shrink / n_micro
        gradient_s = max(gradient_s - hidden_s, min(last_s, gradient_s))
    parts = {
        "compute": n_micro * compute_s,
        "bubble": (layout.pipeline - 1) * stage_s,
        "tensor": n_micro * summed.time_s,
        "pipeline": n_micro * 2 * handed.time_s,
        "gradient": gradient_s,
        "optimizer": work.optimizer_s / (layout.tensor * layout.pipeline),
        "input": work.input_s,
    }
    time_s = sum(parts.values())
    n_item = work.n_item * layout.data
    sent = [
        (reduced, layout.tensor * layout.pipeline),
        (summed, layout.data * layout.pipeline * n_micro),
        (handed, layout.data * (layout.pipeline - 1) * 2 * n_micro),
    ]
    return ScaledStep(
        layout=layout,
        time_s=time_s,
        parts_s=parts,
        item_per_s=n_item / time_s,
        efficiency=layout.data * work.time_s / (time_s * layout.n_chip),
        sent_byte=sum(n * (one.in_node_byte + one.between_byte) for one, n in sent),
    )


def time_to_train(step_s: float, batch: int, steps_at: Mapping[int, float]) -> float:
    """Return the time to the target accuracy: steps needed at a batch size, times their length.

    Parameters
    ----------
    step_s : float
        Time of one step of `batch` items.
    batch : int
        Items of one step over all replicas.
    steps_at : mapping of int to float
        Measured steps to the target by batch size; between two of them the logarithms are joined
        by a straight line.

    Raises
    ------
    ConfigError
        If `batch` lies outside the measured ones: convergence is measured, not assumed.
    """
    sizes = sorted(steps_at)
    if not sizes or not sizes[0] <= batch <= sizes[-1]:
        raise ConfigError(
            f"time_to_train: batch {batch} lies outside the measured batch sizes "
            f"{', '.join(map(str, sizes)) or '(none)'}; measure the steps to the target there"
        )
    steps = np.interp(math.log(batch), np.log(sizes), [math.log(steps_at[size]) for size in sizes])
    return step_s * math.exp(float(steps))


def parse_steps(text: str) -> dict[int, float]:
    """Return measured steps to the target by batch size, from text such as ``"64:9000,512:1600"``.

    Raises
    ------
    ConfigError
        If a pair is not two positive numbers.
    """
    steps: dict[int, float] = {}
    for pair in text.split(","):
        batch, _, count = pair.partition(":")
        try:
            steps[int(batch)] = float(count)
        except ValueError:
            steps[0] = 0.0
        if min(steps) < 1 or not all(0 < n < math.inf for n in steps.values()):
            raise ConfigError(
                f"scale: steps must be pairs of batch and steps, as 64:9000,512:1600; got {pair!r}"
            )
    return steps
