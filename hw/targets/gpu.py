"""A GPU: thread blocks in waves over multiprocessors, a shared cache, stacked memory."""

from __future__ import annotations

import heapq
import math
from dataclasses import replace

from hw.item import ItemCost
from hw.machine import GpuMachine
from hw.plan.formats import compute_format, stored_byte, substitutes
from hw.targets.flat import host_cost, kernel_cost, vector_demand
from hw.work import Contraction, HostRead, Softmax, SparseContraction, Work

#: Output tiles of the vendor's matrix kernels (rows, columns).
TILES = (
    *((256, 128), (128, 256), (128, 128), (128, 64), (64, 128), (256, 64), (64, 256)),
    *((64, 64), (32, 64), (64, 32)),
)
#: Side for which `small_tile_loss` is stated; depth of one step along k.
REFERENCE_SIDE, STEP_K = 64, 32
#: Shares of the reduction that run in parallel when the output alone does not fill the chip.
SPLIT_K = (1, 2, 3, 4, 5, 6, 8, 12, 16)
#: Smallest block that the tensor cores take whole.
TENSOR_BLOCK = 16


def cost_on_gpu(item: Work, machine: GpuMachine) -> ItemCost:
    """Return the cost of `item` as one kernel."""
    if isinstance(item, HostRead):
        return host_cost(machine, item.n_byte)
    if isinstance(item, Contraction):
        return _matmul(item, machine)
    if isinstance(item, SparseContraction):
        return _sparse(item, machine)
    format, flop, special, byte = vector_demand(item, machine)
    compute_s = max(
        flop / (machine.clock_hz * machine.n_sm * machine.vector_per_cycle[format]),
        special / (machine.clock_hz * machine.n_sm * machine.transcendental_per_cycle),
    )
    off_chip_s = byte / (machine.hbm_byte_per_s * machine.hbm_fraction)
    if isinstance(item, Softmax):
        # a row's result waits for its statistics, and these for its last entry: no overlap
        off_chip_s += compute_s
    return kernel_cost(
        machine,
        compute_s=compute_s,
        exchange_s=byte / machine.l2_byte_per_s,
        off_chip_s=off_chip_s,
        launch_s=machine.launch_s,
        compute_pj=(flop + special) * machine.vector_pj[format],
        local_byte=byte,
        exchange_byte=byte,
        off_chip_byte=byte,
        n_unit=machine.n_sm,
        plan="one kernel",
    )


def _matmul(item: Contraction, machine: GpuMachine) -> ItemCost:
    """Choose the output tile and the split of k that end first."""
    format = compute_format(machine, item.a_format, item.b_format)
    a_byte = stored_byte(machine, item.a_format)
    b_byte = stored_byte(machine, item.b_format)
    out_byte = stored_byte(machine, item.out_format)
    off_chip = item.batch * (
        item.m * item.k * a_byte + item.k * item.n * b_byte + item.m * item.n * out_byte
    )
    memory_rate = machine.hbm_byte_per_s * machine.hbm_fraction
    costs: list[ItemCost] = []
    for tm, tn in TILES:
        for split in SPLIT_K:
            if split > 1 and item.k < 2 * STEP_K * split:
                break
            n_tile = item.batch * math.ceil(item.m / tm) * math.ceil(item.n / tn) * split
            waves = math.ceil(n_tile / machine.n_sm)
            k_l = STEP_K * math.ceil(item.k / split / STEP_K)
            feeding = 1.0
            if machine.mac_per_cycle[format] > machine.vector_per_cycle[format]:
                feeding += machine.small_tile_loss * REFERENCE_SIDE * (1 / tm + 1 / tn)
            tile_s = tm * tn * k_l / (machine.mac_per_cycle[format] * machine.clock_hz) * feeding
            exchange = n_tile * k_l * (tm * a_byte + tn * b_byte)
            partial = 8.0 * item.batch * item.m * item.n * (split - 1)
            cost = kernel_cost(
                machine,
                compute_s=waves * (tile_s + machine.wave_fill_s),
                exchange_s=(exchange + partial) / machine.l2_byte_per_s,
                off_chip_s=off_chip / memory_rate,
                launch_s=machine.launch_s + (0.0 if split == 1 else machine.wave_fill_s),
                compute_pj=item.n_mac * machine.mac_pj[format],
                local_byte=exchange + partial,
                exchange_byte=exchange + partial,
                off_chip_byte=off_chip,
                n_unit=min(n_tile, machine.n_sm),
                plan=f"tile {tm} x {tn}, k split {split}, {waves} waves",
                n_mac=item.n_mac,
                temporary_byte=partial / 2,
            )
            costs.append(cost)
    best, second = heapq.nsmallest(2, costs, key=lambda cost: cost.time_s)
    note = substitutes(machine, item.a_format, item.b_format, item.out_format)
    return replace(best, plan=best.plan + note, runner_up=(second.plan, second.time_s))


def _sparse(item: SparseContraction, machine: GpuMachine) -> ItemCost:
    """Blocks below 16 run on the vector units, entry by entry, larger ones as small products."""
    format = compute_format(machine, item.weight_format, item.dense_format)
    br, bc = item.block
    weight = item.n_block * (br * bc * stored_byte(machine, item.weight_format) + 4)
    dense = (item.rows + item.cols) * item.n * stored_byte(machine, item.dense_format)
    gathered = item.n_block * (br + bc) * item.n * stored_byte(machine, item.dense_format)
    peak = machine.clock_hz * machine.n_sm
    if min(br, bc) >= TENSOR_BLOCK:
        compute_s = item.n_mac / (peak * machine.mac_per_cycle[format])
    else:
        compute_s = item.n_mac / (peak * machine.vector_per_cycle[format])
    cost = kernel_cost(
        machine,
        compute_s=compute_s,
        exchange_s=(gathered + weight) / machine.l2_byte_per_s,
        off_chip_s=(weight + dense) / (machine.hbm_byte_per_s * machine.hbm_fraction),
        launch_s=machine.launch_s,
        compute_pj=item.n_mac * machine.mac_pj[format],
        local_byte=gathered + weight,
        exchange_byte=gathered + weight,
        off_chip_byte=weight + dense,
        n_unit=machine.n_sm,
        plan=f"block rows over multiprocessors, blocks {br} x {bc}",
        n_mac=item.n_mac,
    )
    note = substitutes(machine, item.weight_format, item.dense_format)
    return replace(cost, plan=cost.plan + note)
