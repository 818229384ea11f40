"""GPU and systolic machine by hand, the common door, and the order of the three machines."""

import math
from dataclasses import replace

import numpy as np
import pytest

from hw.machine import GpuMachine, SystolicMachine, load_machine
from hw.targets import cost_item
from hw.work import Contraction, HostRead, Pointwise, Softmax, SparseContraction


def a100() -> GpuMachine:
    machine = load_machine("a100")
    assert isinstance(machine, GpuMachine)
    return machine


def tpu() -> SystolicMachine:
    machine = load_machine("tpu_v3")
    assert isinstance(machine, SystolicMachine)
    return machine


def product(m: int, k: int, n: int, format: str = "fp16", batch: int = 1) -> Contraction:
    return Contraction(batch, m, k, n, format, format, format)


def test_large_products_on_the_gpu_by_hand() -> None:
    machine = a100()
    # fp16: each of 2048 tiles reads 256 + 128 lines of k, in 19 waves on 108 multiprocessors
    cost = cost_item(product(8192, 8192, 8192), machine)
    operand_byte = 8192 * 8192 / (256 * 128) * 8192 * (256 + 128) * 2
    assert cost.exchange_byte == operand_byte
    feeding = 1 + machine.small_tile_loss * 64 * (1 / 256 + 1 / 128)
    wave_s = 256 * 128 * 8192 / (1024 * machine.clock_hz) * feeding + machine.wave_fill_s
    assert cost.time_s == pytest.approx(machine.launch_s + 19 * wave_s)
    assert cost.binds == "compute"
    # with half the cache's rate the tensor cores wait for operands
    slow = replace(machine, l2_byte_per_s=machine.l2_byte_per_s / 2)
    cost = cost_item(product(8192, 8192, 8192), slow)
    assert cost.time_s == pytest.approx(slow.launch_s + operand_byte / slow.l2_byte_per_s)
    assert cost.binds == "exchange"
    # fp32: 64 lanes of each multiprocessor
    cost = cost_item(product(8192, 8192, 8192, "fp32"), machine)
    tile_s = 256 * 128 * 8192 / (64 * machine.clock_hz)
    waves = math.ceil(8192 * 8192 / (256 * 128) / 108)
    by_hand = machine.launch_s + waves * (tile_s + machine.wave_fill_s)
    assert cost.time_s <= by_hand
    assert cost.time_s == pytest.approx(by_hand, rel=0.05)
    assert cost.binds == "compute"


def test_one_tile_more_than_a_wave_costs_a_part_of_a_wave_more() -> None:
    full = cost_item(product(108 * 256, 4096, 128, "fp32"), a100())
    more = cost_item(product(109 * 256, 4096, 128, "fp32"), a100())
    # one part in 108 more work, yet another round of tiles
    assert more.time_s > 1.05 * full.time_s


def test_small_kernel_is_launch_and_large_one_is_memory() -> None:
    machine = a100()
    small = cost_item(Pointwise(1000, "arithmetic", "fp32", "fp32"), machine)
    assert small.binds == "launch"
    assert small.time_s == pytest.approx(machine.launch_s, rel=0.01)
    large = cost_item(Pointwise(10**9, "arithmetic", "fp32", "fp32"), machine)
    assert large.off_chip_byte == 8e9
    rate = machine.hbm_byte_per_s * machine.hbm_fraction
    assert large.time_s == pytest.approx(machine.launch_s + 8e9 / rate)


def test_systolic_product_by_hand() -> None:
    machine = tpu()
    # two blocks of 128 x 128 held, on two of four arrays; so either half of the rows goes to a
    # copy of the block: 2048 rows stream, after filling and before draining 128 each
    cost = cost_item(product(4096, 256, 128, "bf16"), machine)
    cycles = 2048 + 128 + 128
    assert cost.parts_s["compute"] == pytest.approx(cycles / machine.clock_hz)
    assert cost.n_tile_used == 4


def test_systolic_array_pads_to_its_side() -> None:
    whole = cost_item(product(4096, 128, 128, "bf16"), tpu())
    ragged = cost_item(product(4096, 100, 100, "bf16"), tpu())
    assert ragged.parts_s["compute"] == whole.parts_s["compute"]
    assert ragged.n_mac < whole.n_mac


def test_systolic_array_runs_small_blocks_densely() -> None:
    sparse = SparseContraction("spmm", 512, 512, 1024, (16, 16), 64, "bf16", "bf16", "bf16")
    dense = cost_item(product(512, 512, 1024, "bf16"), tpu())
    cost = cost_item(sparse, tpu())
    assert cost.time_s == dense.time_s
    assert cost.n_mac == 64 * 256 * 1024
    assert "run densely" in cost.plan


@pytest.mark.parametrize("name", ["ipu_bow", "a100", "tpu_v3"])
def test_every_machine_answers_in_the_same_form(name: str) -> None:
    machine = load_machine(name)
    for work in (product(64, 64, 64, "fp64"), Softmax(8, 8, "int8"), HostRead(8)):
        cost = cost_item(work, machine)
        assert sum(cost.parts_s.values()) == pytest.approx(cost.time_s)
        assert set(cost.energy_j) == {"compute", "local_memory", "exchange", "off_chip"}
        assert cost.plan


def test_equal_counts_with_different_patterns_are_told_apart() -> None:
    machine = load_machine("ipu_bow")
    index = np.arange(64)

    def work(row: np.ndarray, col: np.ndarray) -> SparseContraction:
        return SparseContraction(
            "spmm", 1024, 1024, 256, (16, 16), 64, "fp16", "fp16", "fp16",
            row_index=row, col_index=col,
        )  # fmt: skip

    diagonal, crowded = work(index, index), work(index * 0, index)
    assert diagonal == crowded
    assert cost_item(diagonal, machine).time_s != cost_item(crowded, machine).time_s
    assert cost_item(diagonal, machine) is cost_item(work(index, index), machine)
    assert cost_item(diagonal, machine) is not cost_item(work(index, index[::-1]), machine)


def test_orders_of_machines_as_published() -> None:
    bow, gpu = load_machine("ipu_bow"), a100()
    # 4096 x 4096 against 4 columns, fp16: Bow 18.4 TFLOP/s, A100 3.8 TFLOP/s; against 16384 both
    # reach about 230 (graphcore-research/sparsity-benchmarks, Analysis.ipynb at bab5449f)
    small = product(4096, 4096, 4)
    assert cost_item(small, bow).time_s < cost_item(small, gpu).time_s
    sparse = SparseContraction("spmm", 4096, 4096, 1024, (16, 16), 4096, "fp16", "fp16", "fp16")
    dense = product(4096, 4096, 1024)
    assert cost_item(sparse, bow).time_s < cost_item(dense, bow).time_s
    element = SparseContraction(
        "spmm", 4096, 4096, 1024, (1, 1), 4096 * 1024, "fp16", "fp16", "fp16"
    )
    assert cost_item(element, bow).time_s > cost_item(dense, bow).time_s
