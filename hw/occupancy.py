"""How full the memory is while each op of a program runs, and who owns it at the peak."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hw.formats import FORMAT_BYTE
from hw.machine import Machine, TileMachine
from hw.program import RESIDENT, Program
from hw.rules import Task
from hw.targets import ItemCost
from hw.work import (
    Attention,
    Contraction,
    Fourier,
    Fused,
    Gather,
    HostRead,
    Move,
    Pointwise,
    Reduction,
    Scatter,
    Softmax,
    SparseContraction,
    Work,
    dense_shape,
)

if TYPE_CHECKING:
    from hw.planned import Planned

#: Owners named when a program does not fit.
N_TENANT = 5


def per_tile(machine: Machine) -> tuple[int, float, float]:
    """Return tiles that share the tensors, bytes of one, and what of these code takes."""
    if isinstance(machine, TileMachine):
        return machine.n_tile, machine.tile_memory_byte, machine.code_byte
    return 1, machine.device_memory_byte, 0.0


def fixed_byte(program: Program, machine: Machine) -> float:
    """Return what a tile holds throughout: its share of the resident tensors, and code."""
    n_tile, _, code_byte = per_tile(machine)
    return program.resident_byte / n_tile + code_byte


def memory_by_task(
    program: Program, tasks: list[Task], costs: list[list[ItemCost]], machine: Machine
) -> list[float]:
    """Return bytes on the fullest tile while each task runs.

    Live storages are spread evenly; the temporaries of the running item come on top.
    """
    n_tile, _, code_byte = per_tile(machine)
    live = program.live_byte()
    temporary = np.array([temporary_byte(of_task, machine) for of_task in costs])
    byte = live[[task.i_op for task in tasks]] / n_tile + temporary + code_byte
    return [float(b) for b in byte]


def temporary_byte(costs: list[ItemCost], machine: Machine) -> float:
    """Return what the items of one op add on a tile; elsewhere caches hold it, not the memory."""
    return max(c.temporary_byte for c in costs) if isinstance(machine, TileMachine) else 0.0


def alone_byte(item: Work, costs: list[ItemCost], machine: Machine) -> float:
    """Return bytes on the fullest tile while `item` runs by itself, its operands spread evenly."""
    n_tile, _, code_byte = per_tile(machine)
    return operand_byte(item) / n_tile + temporary_byte(costs, machine) + code_byte


def operand_byte(item: Work) -> float:
    """Return the bytes of all that an item reads and writes, each tensor counted once."""
    match item:
        case Contraction():
            formats = (item.a_format, item.b_format, item.out_format)
            a, b, out = (FORMAT_BYTE[f] for f in formats)
            read = item.m * item.k * a + item.k * item.n * b / item.window
            return item.batch * (read + item.m * item.n * out)
        case SparseContraction():
            m, k, n = dense_shape(item)
            weight, dense, out = (
                FORMAT_BYTE[f] for f in (item.weight_format, item.dense_format, item.out_format)
            )
            live = item.n_block * item.block[0] * item.block[1]
            if item.product == "sddmm":
                return live * out + (m + n) * k * dense
            return live * weight + k * n * dense + m * n * out
        case Pointwise():
            operands = item.n_input * FORMAT_BYTE[item.in_format]
            return item.n_element * (operands + FORMAT_BYTE[item.out_format])
        case Fused():
            last = item.steps[-1]
            read = sum(s.n_element * s.n_input * FORMAT_BYTE[s.in_format] for s in item.steps)
            read += last.n_element * sum(FORMAT_BYTE[kept] for kept in item.kept)
            if item.reduction is None:
                return read + last.n_element * FORMAT_BYTE[last.out_format]
            return read + item.reduction.n_out * FORMAT_BYTE[item.reduction.out_format]
        case Reduction():
            operands = item.n_reduced * FORMAT_BYTE[item.in_format]
            return item.n_out * (operands + FORMAT_BYTE[item.out_format])
        case Softmax():
            return 2 * item.n_row * item.n_col * FORMAT_BYTE[item.in_format]
        case Attention():
            n = item.batch * (item.n_query + item.n_key) * (item.d + item.d_value)
            return n * FORMAT_BYTE[item.format] * (2 if item.is_backward else 1)
        case Gather():
            n = (item.n_row + item.n_source) * item.row_element
            return n * FORMAT_BYTE[item.in_format]
        case Scatter():
            n = (item.n_row + item.n_target) * item.row_element
            return n * FORMAT_BYTE[item.in_format]
        case Fourier():
            return 2 * item.batch * item.length * FORMAT_BYTE[item.in_format]
        case Move():
            return item.n_byte * (1 if item.kind == "fill" else 2)
        case HostRead():
            return item.n_byte


def tenants(
    planned: Planned, held: Sequence[Sequence[int]] | None = None
) -> tuple[tuple[str, float], ...]:
    """Return the largest owners at the peak, in byte per tile.

    `held` are the keys of the tensors on the chip by op; without it all that are live.
    """
    if not planned.ops:
        return ()
    program, machine = planned.program, planned.machine
    n_tile, _, code_byte = per_tile(machine)
    i_peak = max(range(len(planned.ops)), key=lambda i: planned.ops[i].memory_byte)
    task = planned.tasks[i_peak]
    live = (
        program.live_at(task.i_op)
        if held is None
        else [program.storages[key] for key in held[i_peak]]
    )
    owners = [
        (s.name if s.role in RESIDENT else f"result of {s.name}", s.byte / n_tile) for s in live
    ]
    temporaries = temporary_byte(planned.costs[i_peak], machine)
    owners.append((f"temporaries of {task.op.name}", temporaries))
    owners.append(("code and exchange tables", code_byte))
    owners = [(name, byte) for name, byte in owners if byte > 0]
    return tuple(sorted(owners, key=lambda owner: -owner[1])[:N_TENANT])
