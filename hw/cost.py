"""The one door: what a PyTorch step costs on a machine, in time, energy and memory."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any, Literal

from core.errors import MemoryExceededError
from hw import report
from hw.energy import ENERGY_PARTS, energy_interval
from hw.interval import error_of, interval
from hw.machine import Machine, Objective, load_machine, planned_for
from hw.occupancy import fixed_byte, per_tile, tenants
from hw.op_cost import PRODUCTS, OpCost, sum_parts
from hw.planned import plan_program
from hw.program import Program
from hw.rules import Task
from hw.spill import Streaming, spilled
from hw.targets import ItemCost
from hw.trace import trace
from hw.work import Attention, Contraction, SparseContraction, Work


@dataclass(frozen=True)
class CostReport:
    """What a program costs on a machine. Printing it, or showing it in a notebook, explains it.

    Attributes
    ----------
    machine, title : str
        Name of the machine file, and the machine's own.
    phase : str
        ``"inference"`` or ``"train_step"``, as the caller named it.
    time_s : float
        Sum over `ops`, which run one after another.
    time_interval_s : (float, float)
        Where a measurement would lie nine times in ten, by the errors on held-out measurements
        of each kind of work, weighted by its time.
    parts_s : dict
        `time_s` by part (compute, sync, exchange, move, launch, off_chip, host).
    energy_j : float
        Sum of `energy_by`: compute, local_memory, exchange, off_chip, and static (power x time).
    energy_interval_j : (float, float)
        The same with all energies of the machine file at their low, and at their high ends.
    peak_tile_memory_byte, memory_byte : float
        Fullest moment of the fullest tile (of the whole memory, on a machine without tiles), and
        what there is.
    tenants : tuple of (str, float)
        Largest owners of that memory at the peak, in byte per tile.
    utilisation : float
        Time of the multiply-adds at peak rate, over `time_s`.
    clock_hz : float
        Turns superstep cycles into time.
    roof_mac_per_s, roof_byte_per_s : float
        Ceilings: multiply-adds in the fastest format of the program's products, and exchange
        (traffic with the memory outside the chip, on a machine without tiles).
    ops : tuple of OpCost
    n_fused : int
        Ops that run inside another one of `ops` (see `hw.fuse`).
    outside : float
        Share of `time_s` in work outside what was calibrated (see `hw.interval`).
    rearranged_s : (float, float)
        To bring operands in order op by op, and planned over the whole program (`hw.layout`).
    layers_s : (float, float)
        Products of layers spread each by itself, with weights sent between, and as planned.
    n_unit : int
        Tiles, multiprocessors or arrays; of tiles those that compute.
    code_byte : float
        What of `memory_byte` code takes, on each tile of each chip.
    streaming : Streaming or None
        How the memory beside the chip is used, where a program may spill and has to.
    """

    machine: str
    title: str
    phase: str
    time_s: float
    time_interval_s: tuple[float, float]
    parts_s: dict[str, float]
    energy_j: float
    energy_by: dict[str, float]
    peak_tile_memory_byte: float
    memory_byte: float
    tenants: tuple[tuple[str, float], ...]
    utilisation: float
    clock_hz: float
    roof_mac_per_s: float
    roof_byte_per_s: float
    ops: tuple[OpCost, ...]
    n_fused: int = 0
    outside: float = 0.0
    rearranged_s: tuple[float, float] = (0.0, 0.0)
    layers_s: tuple[float, float] = (0.0, 0.0)
    n_unit: int = 1
    energy_interval_j: tuple[float, float] = (0.0, 0.0)
    code_byte: float = 0.0
    streaming: Streaming | None = None

    @property
    def fits(self) -> bool:
        """Whether the peak stays within the memory, and what waits beside the chip within that."""
        return self.peak_tile_memory_byte <= self.memory_byte and (
            self.streaming is None or self.streaming.outside_byte <= self.streaming.capacity_byte
        )

    @property
    def streamed_byte(self) -> float:
        """Bytes to and from the memory beside the chip."""
        return self.streaming.in_byte + self.streaming.out_byte if self.streaming else 0.0

    @property
    def n_mac(self) -> int:
        """Multiply-adds of all matrix products, those on dead blocks not counted."""
        return sum(op.n_mac for op in self.ops)

    def require_fit(self) -> None:
        """Do nothing if the program fits.

        Raises
        ------
        MemoryExceededError
            Names the op at the peak, its bytes, and the largest owners.
        """
        if not self.fits:
            raise MemoryExceededError(report.memory_sentence(self))

    def entry(self, variant: str) -> dict[str, Any]:
        """Return the `cost` entry of a run's record for a model variant."""
        return {
            "machine": self.machine,
            "phase": self.phase,
            "variant": variant,
            "time_s": self.time_s,
            "energy_j": self.energy_j,
            "peak_tile_memory_byte": ceil(self.peak_tile_memory_byte),
            "fits": self.fits,
            "time_interval_s": list(self.time_interval_s),
            "energy_by": dict(self.energy_by),
            "energy_interval_j": list(self.energy_interval_j),
            "utilisation": self.utilisation,
        }

    def __str__(self) -> str:
        return report.table(self)

    def _repr_html_(self) -> str:
        return report.html(self)


def cost(
    step: Callable[..., Any],
    *args: Any,
    machine: str | Path | Machine,
    phase: Literal["train_step", "inference"] = "inference",
    free: Collection[str] = (),
    fake: bool = False,
    fuse: bool = True,
    whole: bool = True,
    spill: bool = False,
    objective: Objective = "time",
) -> CostReport:
    """Return what ``step(*args)`` costs on `machine`.

    Parameters
    ----------
    step : callable
        Any PyTorch code: an inference, or a training step with backward pass and optimizer.
        It runs once; what it changes is put back.
    *args
        Handed to `step`.
    machine : str, Path or Machine
        Name (`hw.machine_names`), machine file, or machine.
    phase : str
        How the report names the step.
    free : collection of str
        Ops to take as costless, by name.
    fake : bool
        Trace under `FakeTensorMode`, without computing.
    fuse : bool
        Run chains of element-wise ops, and a reduction at their end, as one: a kernel, a vertex.
        The rule is that of `hw.fuse`, the same for every machine.
    whole : bool
        Plan rearrangements between products over the whole program, not op by op: `hw.layout`.
    spill : bool
        Where a program does not fit on the chip, let tensors wait in the memory beside it (its
        board's, or its host's) and charge their way there and back, as far as the work does not
        hide it: `hw.spill`. Optimizers then work parameter by parameter.
    objective : str
        What plans are chosen by: ``"time"``, ``"energy"`` or ``"memory"``.

    Raises
    ------
    UnknownOpError
        If an op has no rule; all are named with their counts.
    MachineError
        If the machine is unknown or its file is wrong.
    DataError
        If a fake run needs a real value.

    Examples
    --------
    >>> import torch, hw
    >>> model = torch.nn.Linear(256, 256)
    >>> report = hw.cost(model, torch.randn(64, 256), machine="ipu_bow")
    >>> report.machine, len(report.ops) > 0, report.time_s < 1e-3
    ('ipu_bow', True, True)
    """
    machine = load_machine(machine)
    program = trace(step, *args, fake=fake)
    options = {"free": free, "fuse": fuse, "whole": whole, "spill": spill}
    return cost_program(program, machine, phase=phase, objective=objective, **options)  # type: ignore[arg-type]


def cost_program(
    program: Program,
    machine: str | Path | Machine,
    *,
    phase: Literal["train_step", "inference"] = "inference",
    free: Collection[str] = (),
    fuse: bool = True,
    whole: bool = True,
    spill: bool = False,
    objective: Objective | None = None,
) -> CostReport:
    """Return what a traced program costs; one trace serves many machines. See `cost`.

    Without an `objective` that of the machine counts (`hw.machine.planned_for`).

    Examples
    --------
    >>> import torch, hw
    >>> program = hw.trace(torch.nn.Linear(256, 256), torch.randn(64, 256))
    >>> times = [hw.cost_program(program, name).time_s for name in ("ipu_gc2", "ipu_bow")]
    >>> times[0] > times[1] > 0.0
    True
    """
    machine = load_machine(machine)
    machine = planned_for(machine, objective or machine.objective)
    plan = partial(plan_program, program, free=free, fuse=fuse, whole=whole)
    planned, streaming, held, waits_s = plan(machine), None, None, 0.0
    if spill and not planned.fits:
        planned, streaming, held = spilled(partial(plan, join=False), machine)
        waits_s = streaming.transfer_s - streaming.hidden_s
    ops, tasks, layout = planned.ops, planned.tasks, planned.layout
    time_s = sum(op.time_s for op in ops)
    energy_by = {part: sum(op.energy_j.get(part, 0.0) for op in ops) for part in ENERGY_PARTS}
    energy_by["static"] = machine.static_w * time_s
    ideal_s = sum(_ideal_s(item, machine) for task in tasks for item in task.items)
    error, outside_s = _error(tasks, planned.costs, machine)
    fixed = fixed_byte(planned.program, machine)
    peak = max((op.memory_byte for op in ops), default=fixed)
    return CostReport(
        machine=machine.name,
        title=machine.title,
        phase=phase,
        time_s=time_s,
        time_interval_s=interval(time_s, error),
        # of streaming nothing was measured
        outside=min(1.0, (outside_s + waits_s) / time_s) if time_s else 0.0,
        parts_s=sum_parts(op.parts_s for op in ops),
        energy_j=sum(energy_by.values()),
        energy_by=energy_by,
        peak_tile_memory_byte=peak,
        memory_byte=per_tile(machine)[1],
        tenants=tenants(planned, held),
        utilisation=ideal_s / time_s if time_s else 0.0,
        clock_hz=machine.clock_hz,
        roof_mac_per_s=max(
            (
                machine.mac_per_s(_product_format(item))
                for task in tasks
                for item in task.items
                if isinstance(item, PRODUCTS)
            ),
            default=0.0,
        ),
        roof_byte_per_s=machine.traffic_byte_per_s,
        ops=ops,
        n_fused=planned.n_fused,
        rearranged_s=(layout.apart_s, layout.planned_s),
        layers_s=(layout.own_s, layout.shared_s),
        n_unit=planned.machine.n_unit,
        energy_interval_j=energy_interval(energy_by, machine),
        code_byte=per_tile(machine)[2],
        streaming=streaming,
    )


def _error(tasks: list[Task], costs: list[list[ItemCost]], machine: Machine) -> tuple[float, float]:
    """Return the relative error of the whole, and the seconds in work outside the calibrated."""
    total_s = off_s = outside_s = 0.0
    for task, of_task in zip(tasks, costs, strict=True):
        for item, cost in zip(task.items, of_task, strict=True):
            error, outside = error_of(item, machine)
            total_s += cost.time_s
            off_s += error * cost.time_s
            outside_s += cost.time_s if outside else 0.0
    return (off_s / total_s if total_s else 0.0), outside_s


def _ideal_s(item: Work, machine: Machine) -> float:
    """Return the time of an item's multiply-adds at the machine's peak rate in their format."""
    if not isinstance(item, PRODUCTS):
        return 0.0
    return item.n_mac / machine.mac_per_s(_product_format(item))


def _product_format(item: Contraction | SparseContraction | Attention) -> str:
    if isinstance(item, Attention):
        return item.format
    return item.a_format if isinstance(item, Contraction) else item.dense_format
