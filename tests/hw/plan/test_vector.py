"""Work outside the matrix unit: by hand where one line suffices, else orders and sums."""

import pytest

from hw.machine import TileMachine, load_machine
from hw.targets.tile import cost_on_tiles
from hw.work import (
    Fourier,
    Gather,
    HostRead,
    Move,
    Pointwise,
    Reduction,
    Scatter,
    Softmax,
    Work,
)

VERTEX = 11 + 6 * 42
CLOCK_HZ = 1.85e9


def bow() -> TileMachine:
    machine = load_machine("ipu_bow")
    assert isinstance(machine, TileMachine)
    return machine


@pytest.mark.parametrize(
    ("kind", "per_element"),
    # memory binds arithmetic: two operands of 4 byte and a result at 8 byte a cycle; five slots
    # for a float's exponential bind its own
    [("arithmetic", 12 / 8), ("transcendental", 5.0)],
)
def test_pointwise_by_hand(kind: str, per_element: float) -> None:
    cost = cost_on_tiles(
        Pointwise(1472 * 100, kind, "fp32", "fp32", 2 if kind == "arithmetic" else 1),  # type: ignore[arg-type]
        bow(),
    )
    assert cost.time_s == pytest.approx((VERTEX + 100 * per_element) / CLOCK_HZ)
    assert cost.n_tile_used == 1472


def test_few_entries_stay_on_one_tile() -> None:
    assert cost_on_tiles(Pointwise(10, "arithmetic", "fp32", "fp32"), bow()).n_tile_used == 1


def test_fill_and_rearrange_by_hand() -> None:
    n_byte = 1472 * 800
    fill = cost_on_tiles(Move(n_byte, "fill"), bow())
    assert fill.time_s == pytest.approx((VERTEX + 100) / CLOCK_HZ)
    assert fill.parts_s.keys() == {"move"}
    sent = cost_on_tiles(Move(n_byte, "rearrange"), bow())
    # sync, 800 byte at 4 a cycle in one piece of 3 cycles, 8.64 cycles to place each byte
    assert sent.time_s == pytest.approx((126 + 200 + 3 + VERTEX + 8.64 * 800) / CLOCK_HZ)
    assert sent.exchange_byte == pytest.approx(n_byte * (1 - 1 / 1472))  # but what stays
    assert cost_on_tiles(Move(n_byte, "reorder"), bow()).time_s == sent.time_s


def test_host_read_by_hand() -> None:
    cost = cost_on_tiles(HostRead(4), bow())
    assert cost.time_s == pytest.approx(2e-5 + 4 / 5.5e9)
    assert cost.binds == "host"


def test_reduction_within_tiles_needs_no_exchange_and_a_single_sum_does() -> None:
    rows = cost_on_tiles(Reduction(1472 * 4, 64, "fp32", "fp32"), bow())
    assert rows.exchange_byte == 0
    # four rows of 64 floats, two a cycle
    assert rows.time_s == pytest.approx((VERTEX + 128) / CLOCK_HZ)
    total = cost_on_tiles(Reduction(1, 1472 * 256, "fp32", "fp32"), bow())
    assert total.exchange_byte > 0
    assert total.time_s < (VERTEX + 1472 * 256 / 2) / CLOCK_HZ / 50


@pytest.mark.parametrize(
    "work",
    [
        Softmax(4096, 1024, "fp16"),
        Softmax(16, 100_000, "fp32", "layer_norm"),
        Gather(10_000, 128, 3000, "fp32"),
        Scatter(10_000, 128, 3000, "fp32"),
        Scatter(100, 1, 10, "fp32"),
        Fourier(256, 64, "fp32"),
        Fourier(4, 1_048_576, "fp32"),
        Reduction(7, 5, "bf16", "fp32"),
        Move(1, "copy"),
    ],
)
def test_parts_and_bytes_add_up(work: Work) -> None:
    cost = cost_on_tiles(work, bow())
    assert cost.time_s > 0
    assert sum(cost.parts_s.values()) == pytest.approx(cost.time_s)
    assert sum(step.cycles for step in cost.supersteps) / CLOCK_HZ == pytest.approx(cost.time_s)
    for step in cost.supersteps:
        assert step.sent_byte == step.received_byte
    assert set(cost.energy_j) == {"compute", "local_memory", "exchange", "off_chip"}


@pytest.mark.parametrize(
    ("small", "large"),
    [
        (Softmax(1024, 256, "fp16"), Softmax(65_536, 256, "fp16")),
        (Gather(100, 64, 500, "fp32"), Gather(100_000, 64, 500, "fp32")),
        (Scatter(100, 64, 500, "fp32"), Scatter(100_000, 64, 500, "fp32")),
        (Fourier(4096, 64, "fp32"), Fourier(65_536, 64, "fp32")),
    ],
)
def test_more_work_takes_longer(small: Work, large: Work) -> None:
    assert cost_on_tiles(large, bow()).time_s > 2 * cost_on_tiles(small, bow()).time_s


def test_adding_rows_costs_more_than_picking_them() -> None:
    gather = cost_on_tiles(Gather(50_000, 64, 2000, "fp32"), bow())
    scatter = cost_on_tiles(Scatter(50_000, 64, 2000, "fp32"), bow())
    assert scatter.energy_j["compute"] > gather.energy_j["compute"] == 0
