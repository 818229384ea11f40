"""Chains of element-wise steps, with a sum at their end or without, tile by tile, as planned."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from hw.execute.ledger import Array, Execution, Ledger, rounded
from hw.execute.rows import Rows, total
from hw.machine import TileMachine
from hw.plan.formats import compute_format, stored_byte
from hw.plan.vector import chain_cycles, choose_reduction, plan_fused, tiles_for
from hw.work import Fused

#: Entries in, entries out; the first argument of a later step is the result of the one before.
Function = Callable[..., Array]


def execute_fused(
    item: Fused, machine: TileMachine, operands: Sequence[Array], functions: Sequence[Function]
) -> Execution:
    """Run all steps on each tile's entries, each result rounded to the format it is computed in."""
    if item.reduction is None:
        ledger, n = Ledger(machine), item.steps[-1].n_element
        shares = np.array_split(np.arange(n), tiles_for(n, machine))
        cycles, result = np.zeros(machine.n_tile), np.zeros(n)
        for tile, share in enumerate(shares):
            result[share] = _steps(item, machine, [x[share] for x in operands], functions)
            cycles[tile] = chain_cycles(machine, item, float(share.size))
        ledger.compute("pointwise", cycles)
        return ledger.execution(result, plan_fused(item, machine).plan, len(shares))
    split, cost = choose_reduction(item.reduction, machine, item)
    format = compute_format(machine, item.reduction.in_format)
    byte = stored_byte(machine, item.reduction.in_format)
    ledger = Ledger(machine)
    rows = Rows(machine, format, byte, operands[0].shape, split, ledger)
    made = rounded(_steps(item, machine, operands, functions), format)
    result = rows.reduce(made, total, cycles_of=lambda n: chain_cycles(machine, item, n))
    return ledger.execution(result, cost.plan, rows.tile.size)


def _steps(
    item: Fused, machine: TileMachine, operands: Sequence[Array], functions: Sequence[Function]
) -> Array:
    waiting = list(operands)
    value: list[Array] = []
    for step, function in zip(item.steps, functions, strict=True):
        format = compute_format(machine, step.in_format, step.out_format)
        read = [rounded(waiting.pop(0), step.in_format, format) for _ in range(step.n_input)]
        y = np.asarray(function(*value, *read), dtype=np.float64)
        value = [rounded(y, format, machine.native(step.out_format))]
    return value[0]
