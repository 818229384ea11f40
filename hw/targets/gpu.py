"""A GPU: thread blocks in waves over multiprocessors, a shared cache, stacked memory."""

from __future__ import annotations

import heapq
import math
from dataclasses import replace

from hw.item import ItemCost
from hw.machine import GpuMachine
from hw.plan.formats import compute_format, stored_byte, substitutes
from hw.targets.attention import attention_cost
from hw.targets.flat import host_cost, is_free, kernel_cost, nothing, rank, vector_demand
from hw.work import (
    Attention,
    Contraction,
    HostRead,
    Softmax,
    SparseContraction,
    Work,
    dense_shape,
)

#: Output tiles of the vendor's matrix kernels (rows, columns).
TILES = (
    *((256, 128), (128, 256), (128, 128), (128, 64), (64, 128), (256, 64), (64, 256)),
    *((64, 64), (32, 64), (64, 32)),
)
#: Side for which `small_tile_loss` is stated; depth of one step along k.
REFERENCE_SIDE, STEP_K = 64, 32
#: Shares of the reduction that run in parallel when the output alone does not fill the chip.
SPLIT_K = (1, 2, 3, 4, 5, 6, 8, 12, 16)
#: Tensor cores skip the zeros of weights of which two in four are live along k: twice the rate
#: (NVIDIA A100 data sheet), half the values and two bits for the place of each.
STRUCTURED_RATE, STRUCTURED_BYTE, STRUCTURED_INDEX = 2, 0.5, 0.125
#: Smallest block that the tensor cores take whole.
TENSOR_BLOCK = 16


def cost_on_gpu(item: Work, machine: GpuMachine) -> ItemCost:
    """Return the cost of `item` as one kernel."""
    if isinstance(item, HostRead):
        return host_cost(machine, item.n_byte)
    if is_free(item):
        return nothing(machine)
    if isinstance(item, Contraction):
        return _matmul(item, machine)
    if isinstance(item, SparseContraction):
        return _sparse(item, machine)
    if isinstance(item, Attention):
        return attention_cost(item, machine, cost_on_gpu)
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
    a_byte = STRUCTURED_BYTE * a_byte + STRUCTURED_INDEX if item.is_structured else a_byte
    b_byte = stored_byte(machine, item.b_format)
    out_byte = stored_byte(machine, item.out_format)
    off_chip = item.batch * (
        item.m * item.k * a_byte
        + item.k * item.n * b_byte / item.window
        + item.m * item.n * out_byte
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
            speed = machine.mac_per_cycle[format]
            if speed > machine.vector_per_cycle[format]:
                feeding += machine.small_tile_loss * REFERENCE_SIDE * (1 / tm + 1 / tn)
                speed *= STRUCTURED_RATE if item.is_structured else 1
            tile_s = tm * tn * k_l / (speed * machine.clock_hz) * feeding
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
    best, second = heapq.nsmallest(2, costs, key=lambda cost: rank(cost, machine))
    note = substitutes(machine, item.a_format, item.b_format, item.out_format)
    note = (", two of four" if item.is_structured else "") + note
    return replace(best, plan=best.plan + note, runner_up=(second.plan, second.time_s))


def _sparse(item: SparseContraction, machine: GpuMachine) -> ItemCost:
    """Choose among kernels for blocks, the dense product, and entry by entry below 16.

    A thread block makes a tile of results out of the live blocks of one block row (a column, in
    ``spmm_t``; one live block itself, in ``sddmm``).
    """
    format = compute_format(machine, item.weight_format, item.dense_format)
    br, bc = item.block
    dense_byte = stored_byte(machine, item.dense_format)
    block_byte = br * bc * stored_byte(machine, item.weight_format) + 4
    dense = (item.rows + item.cols) * item.n * dense_byte
    off_chip = item.n_block * block_byte + dense
    rate = machine.clock_hz * machine.n_sm
    memory_s = off_chip / (machine.hbm_byte_per_s * machine.hbm_fraction)
    plans: list[tuple[float, float, int, str]] = []  # arithmetic, cache traffic, units, words
    if min(br, bc) >= TENSOR_BLOCK:
        for tn in (64, 128, 256):
            n_tile, tm, depth = _block_tiles(item, tn)
            feeding = 1 + machine.small_tile_loss * REFERENCE_SIDE * (1 / tm + 1 / tn)
            tile_s = tm * tn * depth / (machine.mac_per_cycle[format] * machine.clock_hz) * feeding
            waves = math.ceil(n_tile / machine.n_sm)
            traffic = n_tile * depth * (tm + tn) * dense_byte
            text = f"blocks {br} x {bc}, tile {tm} x {tn}, {waves} waves"
            plans.append((waves * (tile_s + machine.wave_fill_s), traffic, n_tile, text))
    else:
        seconds = item.n_mac / (rate * machine.vector_per_cycle[format])
        traffic = item.n_block * ((br + bc) * item.n * dense_byte + block_byte)
        text = f"entries one by one, blocks {br} x {bc} by block row"
        plans.append((seconds, traffic, machine.n_sm, text))
    costs = [
        kernel_cost(
            machine,
            compute_s=seconds,
            exchange_s=traffic / machine.l2_byte_per_s,
            off_chip_s=memory_s,
            launch_s=machine.launch_s,
            compute_pj=item.n_mac * machine.mac_pj[format],
            local_byte=traffic,
            exchange_byte=traffic,
            off_chip_byte=off_chip,
            n_unit=min(n_unit, machine.n_sm),
            plan=text,
            n_mac=item.n_mac,
        )
        for seconds, traffic, n_unit, text in plans
    ]
    best, *others = sorted(costs, key=lambda cost: rank(cost, machine))
    m, k, n = dense_shape(item)
    as_dense = _matmul(
        Contraction(1, m, k, n, item.weight_format, item.dense_format, item.out_format), machine
    )
    others.append(replace(as_dense, plan=f"as a dense product, {as_dense.plan}"))
    second = min(others, key=lambda cost: rank(cost, machine))
    note = substitutes(machine, item.weight_format, item.dense_format)
    return replace(best, plan=best.plan + note, runner_up=(second.plan, second.time_s))


def _block_tiles(item: SparseContraction, tn: int) -> tuple[int, int, float]:
    """Return tiles of results, rows of one, and the mean depth of its sum."""
    br, bc = item.block
    if item.product == "sddmm":
        side = min(tn, bc)
        return item.n_block * math.ceil(bc / side), br, item.n
    height, depth, rows = (br, bc, item.rows) if item.product == "spmm" else (bc, br, item.cols)
    n_row = max(1, min(math.ceil(rows / height), item.n_block))
    return n_row * math.ceil(item.n / tn), height, item.n_block / n_row * depth
