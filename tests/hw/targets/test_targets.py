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


def test_a_split_of_k_adds_partial_sums_and_units() -> None:
    machine = a100()
    # one tile of results on 108 multiprocessors: k is split as far as it goes
    cost = cost_item(product(64, 65536, 64), machine)
    split = int(cost.plan.split("k split ")[1].split(",")[0])
    assert split == 16
    tile = [int(word) for word in cost.plan.split(",")[0].removeprefix("tile ").split(" x ")]
    n_tile = math.ceil(64 / tile[0]) * math.ceil(64 / tile[1]) * split
    assert cost.n_tile_used == min(n_tile, 108)
    partial = 8 * 64 * 64 * (split - 1)
    assert cost.temporary_byte == partial / 2
    k_l = 32 * math.ceil(65536 / split / 32)
    assert cost.exchange_byte == n_tile * k_l * (tile[0] + tile[1]) * 2 + partial
    assert cost.off_chip_byte == 2 * (2 * 64 * 65536 + 64 * 64)
    assert cost.parts_s["launch"] == machine.launch_s + machine.wave_fill_s
    # too short to be split
    assert "k split 1," in cost_item(product(64, 96, 64), machine).plan


@pytest.mark.parametrize("work", ["spmm", "spmm_t", "sddmm"])
def test_blocks_on_the_gpu_by_hand(work: str) -> None:
    machine = a100()
    # 48 x 80 blocks of 16 x 16, 640 of them live, against 300 columns
    item = SparseContraction(
        work, 768, 1280, 300, (16, 16), 640, "fp16", "fp16", "fp16"  # type: ignore[arg-type]
    )  # fmt: skip
    cost = cost_item(item, machine)
    tn = int(cost.plan.split(" x ")[2].split(",")[0])
    if work == "sddmm":
        # each live block is a tile as wide as itself, 300 deep; the plan names the tried width
        n_tile, depth = 640, 300.0
    else:
        rows = 48 if work == "spmm" else 80
        n_tile, depth = rows * math.ceil(300 / tn), 640 / rows * 16
    feeding = 1 + machine.small_tile_loss * 64 * (1 / 16 + 1 / tn)
    tile_s = 16 * tn * depth / (1024 * machine.clock_hz) * feeding
    waves = math.ceil(n_tile / 108)
    assert cost.parts_s["compute"] == pytest.approx(waves * (tile_s + machine.wave_fill_s))
    assert cost.exchange_byte == pytest.approx(n_tile * depth * (16 + tn) * 2)
    assert cost.off_chip_byte == 640 * (256 * 2 + 4) + (768 + 1280) * 300 * 2
    assert cost.n_tile_used == min(n_tile, 108)
    assert cost.runner_up is not None
    assert cost.energy_j["compute"] == pytest.approx(
        640 * 256 * 300 * machine.mac_pj["fp16"] * 1e-12
    )


def test_small_blocks_on_the_gpu_go_entry_by_entry() -> None:
    machine = a100()
    item = SparseContraction("spmm", 512, 512, 64, (8, 8), 100, "fp32", "fp32", "fp32")
    cost = cost_item(item, machine)
    seconds = 100 * 64 * 64 / (machine.clock_hz * 108 * machine.vector_per_cycle["fp32"])
    assert cost.parts_s.get("compute", 0.0) == pytest.approx(seconds)
    assert cost.exchange_byte == 100 * (16 * 64 * 4 + 8 * 8 * 4 + 4)
    assert cost.off_chip_byte == 100 * (8 * 8 * 4 + 4) + 1024 * 64 * 4
    assert cost.n_tile_used == 108
    # from sixteen on a block is a whole one, on both sides
    wide = replace(item, block=(16, 8), n_block=50)
    assert "one by one" in cost_item(wide, machine).plan
    assert "one by one" not in cost_item(replace(item, block=(16, 16), n_block=25), machine).plan


def test_two_of_four_on_the_gpu_by_hand() -> None:
    machine = a100()
    dense, sparse = (
        product(8192, 8192, 8192),
        replace(product(8192, 8192, 8192), is_structured=True),
    )
    costs = [cost_item(item, machine) for item in (dense, sparse)]
    # half the values and two bits each; twice the rate, but for filling waves and feeding
    assert costs[0].off_chip_byte - costs[1].off_chip_byte == 8192**2 * (2 - 2 * 0.5 - 0.125)
    assert 0.5 < costs[1].time_s / costs[0].time_s < 0.75
    assert "two of four" in costs[1].plan


def test_systolic_bytes_by_hand() -> None:
    machine = tpu()
    half = machine.sram_byte / 2
    # 16 MiB fit once: read once
    cost = cost_item(product(2048, 4096, 65536, "bf16"), machine)
    a, b, out = 2048 * 4096 * 2, 4096 * 65536 * 2, 2048 * 65536 * 2
    assert a == half
    assert cost.off_chip_byte == a + b + out
    # of twice as much the other operand is read twice
    cost = cost_item(product(4096, 4096, 65536, "bf16"), machine)
    assert cost.off_chip_byte == 2 * a + 2 * b + 2 * out
    # of large ones squares of 2048 results stay: 16 rows of them read A, 32 columns B
    m, k, n = 65536, 32768, 32768
    large = cost_item(product(m, k, n, "bf16"), machine)
    assert large.off_chip_byte == 2 * (16 * m * k + 32 * k * n + m * n)
    assert large.binds == "compute"
    assert cost.energy_j["local_memory"] == pytest.approx(
        2 * cost.off_chip_byte * machine.local_pj_per_byte * 1e-12
    )


def test_systolic_vector_work_by_hand() -> None:
    machine = tpu()
    n = 10**7
    cost = cost_item(Pointwise(n, "transcendental", "fp32", "fp32"), machine)
    rate = machine.clock_hz * 4
    assert cost.parts_s["compute"] == pytest.approx(n / (rate * machine.transcendental_per_cycle))
    assert cost.off_chip_byte == 8 * n
    assert cost.energy_j["compute"] == pytest.approx(n * machine.vector_pj["fp32"] * 1e-12)
    assert cost.n_tile_used == 4
