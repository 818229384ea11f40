"""What a GPU and a systolic machine share: kernels over one memory, timed by their slowest part.

A kernel takes its launch plus the longest of arithmetic, on-chip and off-chip traffic. The part
beyond the arithmetic counts as ``off_chip`` or ``exchange``: the time that the memory adds.
"""

from __future__ import annotations

import math

from hw.item import ItemCost, Part
from hw.machine import GpuMachine, Machine
from hw.plan.formats import compute_format, stored_byte
from hw.work import (
    Fourier,
    Fused,
    Gather,
    Move,
    Pointwise,
    Reduction,
    Scatter,
    Softmax,
)

#: Blocks of 256 threads that share one multiprocessor of 2048 threads, a row of a norm each.
ROWS_IN_FLIGHT = 8

VectorWork = Pointwise | Reduction | Fused | Softmax | Gather | Scatter | Fourier | Move


def kernel_cost(
    machine: Machine,
    *,
    compute_s: float,
    exchange_s: float,
    off_chip_s: float,
    launch_s: float,
    compute_pj: float,
    local_byte: float,
    exchange_byte: float,
    off_chip_byte: float,
    n_unit: int,
    plan: str,
    n_mac: int = 0,
    temporary_byte: float = 0.0,
) -> ItemCost:
    """Put one kernel's time and energy together."""
    parts: dict[str, float] = {"launch": launch_s, "compute": compute_s}
    beyond = max(0.0, exchange_s - compute_s)
    parts["exchange"] = beyond
    parts["off_chip"] = max(0.0, off_chip_s - compute_s - beyond)
    times: dict[Part, float] = {
        "launch": launch_s,
        "compute": compute_s,
        "exchange": exchange_s,
        "off_chip": off_chip_s,
    }
    return ItemCost(
        time_s=sum(parts.values()),
        parts_s={part: s for part, s in parts.items() if s > 0},
        energy_j={
            "compute": compute_pj * 1e-12,
            "local_memory": local_byte * machine.local_pj_per_byte * 1e-12,
            "exchange": exchange_byte * machine.exchange_pj_per_byte * 1e-12,
            "off_chip": off_chip_byte * machine.off_chip_pj_per_byte * 1e-12,
        },
        n_mac=n_mac,
        exchange_byte=exchange_byte,
        off_chip_byte=off_chip_byte,
        temporary_byte=temporary_byte,
        n_tile_used=n_unit,
        plan=plan,
        binds=max(times, key=lambda part: times[part]),
    )


def host_cost(machine: Machine, n_byte: int) -> ItemCost:
    """Cost of a value that the host waits for."""
    seconds = machine.host_latency_s + n_byte / machine.host_byte_per_s
    return ItemCost(
        time_s=seconds,
        parts_s={"host": seconds},
        energy_j={"compute": 0.0, "local_memory": 0.0, "exchange": 0.0, "off_chip": 0.0},
        n_mac=0,
        exchange_byte=0.0,
        off_chip_byte=float(n_byte),
        temporary_byte=0.0,
        n_tile_used=0,
        plan=f"{n_byte} byte to the host",
        binds="host",
    )


def rank(cost: ItemCost, machine: Machine) -> float:
    """Return what the machine's plans are chosen by."""
    if machine.objective == "energy":
        return sum(cost.energy_j.values()) + machine.static_w * cost.time_s
    if machine.objective == "memory":
        return cost.temporary_byte + cost.time_s
    return cost.time_s


def is_free(item: object) -> bool:
    """Tell whether kernels over one memory do without `item`: they read in any order."""
    return isinstance(item, Move) and item.kind == "reorder"


def nothing(machine: Machine) -> ItemCost:
    """Cost of what a kernel over one memory need not do."""
    return kernel_cost(
        machine,
        compute_s=0.0,
        exchange_s=0.0,
        off_chip_s=0.0,
        launch_s=0.0,
        compute_pj=0.0,
        local_byte=0.0,
        exchange_byte=0.0,
        off_chip_byte=0.0,
        n_unit=0,
        plan="read in the order that is needed",
    )


def vector_demand(item: VectorWork, machine: Machine) -> tuple[str, float, float, float]:
    """Return format, additions, special functions and off-chip bytes that `item` asks for."""
    if isinstance(item, Pointwise):
        item = Fused((item,))
    if isinstance(item, Fused):
        return _fused_demand(item, machine)
    format = compute_format(machine, item.in_format) if not isinstance(item, Move) else ""
    match item:
        case Reduction():
            n = item.n_out * item.n_reduced
            byte = n * stored_byte(machine, item.in_format)
            return format, n, 0.0, byte + item.n_out * stored_byte(machine, item.out_format)
        case Softmax():
            n = item.n_row * item.n_col
            byte = stored_byte(machine, item.in_format)
            if item.kind == "softmax":
                # read for the statistics, read again for the result, written once
                return format, 4.0 * n, n, 3 * n * byte
            return format, 4.0 * n, item.n_row, _norm_passes(item, machine) * n * byte
        case Gather():
            n = item.n_row * item.row_element
            return format, 0.0, 0.0, 2 * n * stored_byte(machine, item.in_format) + 8 * item.n_row
        case Scatter():
            n = item.n_row * item.row_element
            return format, n, 0.0, 3 * n * stored_byte(machine, item.in_format) + 8 * item.n_row
        case Fourier():
            flop = 2.5 * item.batch * item.length * max(1, (item.length - 1).bit_length())
            byte = 2 * item.batch * item.length * stored_byte(machine, item.in_format)
            return format, flop, 0.0, byte
        case Move():
            return (
                next(iter(machine.vector_per_cycle)),
                0.0,
                0.0,
                item.n_byte * (1 if item.kind == "fill" else 2),
            )


def _norm_passes(item: Softmax, machine: Machine) -> int:
    """Return how often a norm moves each entry.

    Read and written if rows stay on the chip: a multiprocessor works on `ROWS_IN_FLIGHT` rows at
    once, out of its own memory. Else read for the mean, for the squares about it and for the
    result, as on a tile machine (`hw.plan.vector.ROW_PASSES`), and written.
    """
    own = machine.shared_byte if isinstance(machine, GpuMachine) else math.inf
    row_byte = item.n_col * stored_byte(machine, item.in_format)
    return 2 if row_byte * ROWS_IN_FLIGHT <= own else 4


def _fused_demand(item: Fused, machine: Machine) -> tuple[str, float, float, float]:
    """Sum over the steps, in the widest of their formats; only what crosses the ends is moved."""
    format = compute_format(machine, *(step.in_format for step in item.steps))
    flop = special = byte = 0.0
    for step in item.steps:
        n = step.n_element
        if step.kind == "arithmetic":
            flop += n * step.flop_per_element
        else:
            special += n * step.flop_per_element
        byte += n * step.n_input * stored_byte(machine, step.in_format)
    last, reduction = item.steps[-1], item.reduction
    byte += last.n_element * sum(stored_byte(machine, kept) for kept in item.kept)
    if reduction is None:
        return format, flop, special, byte + last.n_element * stored_byte(machine, last.out_format)
    byte += reduction.n_out * stored_byte(machine, reduction.out_format)
    return format, flop + reduction.n_out * reduction.n_reduced, special, byte
