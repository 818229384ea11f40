"""A systolic machine: square arrays that hold weights while rows stream through, stacked memory."""

from __future__ import annotations

import math
from dataclasses import replace

from hw.item import ItemCost, joined
from hw.machine import SystolicMachine
from hw.plan.formats import compute_format, stored_byte, substitutes
from hw.targets.flat import host_cost, is_free, kernel_cost, nothing, rank, vector_demand
from hw.work import Attention, Contraction, HostRead, SparseContraction, Work, dense_shape


def cost_on_systolic(item: Work, machine: SystolicMachine) -> ItemCost:
    """Return the cost of `item` as one compiled operation.

    A block-sparse product runs densely: the array has no way to skip a block smaller than itself,
    so that blocks count only if they are at least as large as the array.
    """
    if isinstance(item, HostRead):
        return host_cost(machine, item.n_byte)
    if is_free(item):
        return nothing(machine)
    if isinstance(item, Contraction):
        return _matmul(item, machine)
    if isinstance(item, SparseContraction):
        m, k, n = dense_shape(item)
        dense = Contraction(1, m, k, n, item.weight_format, item.dense_format, item.out_format)
        cost = _matmul(dense, machine)
        return replace(cost, n_mac=item.n_mac, plan=f"run densely; {cost.plan}")
    if isinstance(item, Attention):
        return joined([cost_on_systolic(part, machine) for part in item.parts])
    format, flop, special, byte = vector_demand(item, machine)
    rate = machine.clock_hz * machine.n_array
    return kernel_cost(
        machine,
        compute_s=flop / (rate * machine.vector_per_cycle[format])
        + special / (rate * machine.transcendental_per_cycle),
        exchange_s=0.0,
        off_chip_s=byte / machine.hbm_byte_per_s,
        launch_s=machine.launch_s,
        compute_pj=(flop + special) * machine.vector_pj[format],
        local_byte=2 * byte,
        exchange_byte=0.0,
        off_chip_byte=byte,
        n_unit=machine.n_array,
        plan="one operation on the vector units",
    )


def _matmul(item: Contraction, machine: SystolicMachine) -> ItemCost:
    """Weights held still: each block of them is filled, then all rows stream through and drain.

    Filling one block overlaps with streaming the one before it; what does not overlap is the
    longer of the two. Either operand may be the one that is held.
    """
    format = compute_format(machine, item.a_format, item.b_format)
    rows, cols = machine.array_rows, machine.array_cols
    passes = rows * cols / machine.mac_per_cycle[format]
    plans: list[tuple[int | float, int, str]] = []
    for m, n, held in ((item.m, item.n, "B"), (item.n, item.m, "A")):
        n_block = item.batch * math.ceil(item.k / rows) * math.ceil(n / cols)
        used = min(machine.n_array, n_block)
        # with fewer blocks than arrays, the streamed rows are shared out instead
        share = max(1, machine.n_array // n_block) if n_block < machine.n_array else 1
        streamed = math.ceil(m / share)
        cycles = math.ceil(n_block / used) * passes * max(streamed, rows) + rows + cols
        text = f"{held} held in {n_block} blocks of {rows} x {cols}, {streamed} rows streamed"
        plans.append((cycles, min(machine.n_array, used * share), text))
    a_byte, b_byte = stored_byte(machine, item.a_format), stored_byte(machine, item.b_format)
    out_byte = stored_byte(machine, item.out_format)
    a, b = item.m * item.k * a_byte, item.k * item.n * b_byte / item.window
    # half the chip holds a panel of the smaller operand, for which all of the other is read again,
    # or a square of partial sums in fp32, for which rows of one and columns of the other are
    half = machine.sram_byte / 2
    panels = min(a, b) + max(1, math.ceil(min(a, b) / half)) * max(a, b)
    side = math.isqrt(int(half / 4))
    squares = a * math.ceil(item.n / side) + b * math.ceil(item.m / side)
    off_chip = item.batch * (min(panels, squares) + item.m * item.n * out_byte)
    best, second = sorted(
        (
            kernel_cost(
                machine,
                compute_s=cycles / machine.clock_hz,
                exchange_s=0.0,
                off_chip_s=off_chip / machine.hbm_byte_per_s,
                launch_s=machine.launch_s,
                compute_pj=item.n_mac * machine.mac_pj[format],
                local_byte=2 * off_chip,
                exchange_byte=0.0,
                off_chip_byte=off_chip,
                n_unit=n_used,
                plan=text,
                n_mac=item.n_mac,
            )
            for cycles, n_used, text in plans
        ),
        key=lambda cost: rank(cost, machine),
    )
    note = substitutes(machine, item.a_format, item.b_format, item.out_format)
    return replace(best, plan=best.plan + note, runner_up=(second.plan, second.time_s))
