"""Attention on a GPU: one kernel that keeps the scores on the chip, or its parts one by one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from hw.item import ItemCost, joined
from hw.machine import GpuMachine
from hw.plan.formats import compute_format, stored_byte, substitutes
from hw.targets.flat import kernel_cost, rank
from hw.work import Attention, Work

#: Queries that a thread block holds, and keys that pass it at once.
QUERIES, KEYS = 128, 64
#: Additions and multiplications on each score: scale, maximum, difference, sum; backwards the
#: gradient of the softmax too.
SCORE_FLOP, SCORE_FLOP_BACKWARD = 4.0, 7.0
#: Products with each tile of scores: scores and weighted sum; backwards scores again, gradients of
#: weights, values, queries and keys.
N_PRODUCT, N_PRODUCT_BACKWARD = 2, 5


def attention_cost(
    item: Attention, machine: GpuMachine, cost_part: Callable[[Work, GpuMachine], ItemCost]
) -> ItemCost:
    """Return the cost of the better of one fused kernel and a kernel for each part."""
    apart = replace(
        joined([cost_part(part, machine) for part in item.parts]),
        plan=f"{len(item.parts)} kernels, scores through the memory",
    )
    fused = _fused(item, machine)
    if fused is None:
        return apart
    best, other = sorted((fused, apart), key=lambda cost: rank(cost, machine))
    note = substitutes(machine, item.format)
    return replace(best, plan=best.plan + note, runner_up=(other.plan, other.time_s))


def _fused(item: Attention, machine: GpuMachine) -> ItemCost | None:
    """Charge blocks of queries in waves, all keys passing each block; none if rows do not fit.

    Tensor cores wait for the scores' exponentials and these for the scores: within a block they
    take turns. Special functions and additions are issued to different pipes and overlap. Source:
    Dao 2023 (FlashAttention-2, arXiv 2307.08691), sections 3.1 to 3.3; backwards the blocks hold
    keys, and queries pass.
    """
    format = compute_format(machine, item.format)
    byte = stored_byte(machine, item.format)
    width = item.d + item.d_value
    if (QUERIES + KEYS) * width * byte > machine.shared_byte:
        return None
    held, passing = item.n_query, item.n_key
    n_product, flop = N_PRODUCT, SCORE_FLOP
    if item.is_backward:
        held, passing = passing, held
        n_product, flop = N_PRODUCT_BACKWARD, SCORE_FLOP_BACKWARD
    n_block = item.batch * math.ceil(held / QUERIES)
    waves = math.ceil(n_block / machine.n_sm)
    n_score = QUERIES * KEYS * math.ceil(passing / KEYS)
    feeding, vector = 1.0, machine.vector_per_cycle["fp32" if byte < 4 else format]
    if machine.mac_per_cycle[format] > machine.vector_per_cycle[format]:
        feeding += machine.small_tile_loss * 64 * (1 / QUERIES + 1 / KEYS)
    cycles = n_score * n_product * width / 2 / machine.mac_per_cycle[format] * feeding
    cycles += n_score * max(flop / vector, 1 / machine.transcendental_per_cycle)
    rows = item.batch * (item.n_query * width + item.n_key * width)
    if item.is_backward:
        rows *= 2  # operands and their gradients
    exchange = n_block * (QUERIES + passing) * width * byte * (2 if item.is_backward else 1)
    scores = item.batch * item.n_query * item.n_key
    mac = scores * n_product * width // 2
    return kernel_cost(
        machine,
        compute_s=waves * (cycles / machine.clock_hz + machine.wave_fill_s),
        exchange_s=exchange / machine.l2_byte_per_s,
        off_chip_s=rows * byte / (machine.hbm_byte_per_s * machine.hbm_fraction),
        launch_s=machine.launch_s,
        compute_pj=mac * machine.mac_pj[format] + scores * (flop + 1) * machine.vector_pj[format],
        local_byte=exchange,
        exchange_byte=exchange,
        off_chip_byte=rows * byte,
        n_unit=min(n_block, machine.n_sm),
        plan=f"one kernel, {QUERIES} {'keys' if item.is_backward else 'queries'} a block, "
        f"{waves} waves, scores stay on the chip",
        n_mac=item.n_mac,
    )
