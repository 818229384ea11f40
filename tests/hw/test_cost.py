"""The door: parts sum to the total, bytes sent are received, memory follows liveness."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import hw
from core.errors import MachineError, MemoryExceededError, UnknownOpError
from hw.energy import ENERGY_PARTS
from hw.fuse import fuse
from hw.interval import SEEN, WIDEST
from hw.machine import TileMachine
from hw.rules import tasks_of
from hw.targets import cost_item
from hw.work import Contraction, Pointwise

# Sums over a few hundred float64 terms in two orders: 2^-52 x 1000, rounded up.
SUM = 1e-12
MACHINES = ("ipu_gc200", "ipu_bow", "a100", "tpu_v3")


@pytest.fixture(scope="module")
def step():
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(96, 128), torch.nn.LayerNorm(128), torch.nn.SiLU(), torch.nn.Linear(128, 8)
    )
    optimizer = torch.optim.AdamW(net.parameters())
    x = torch.ones(64, 96)

    def run():
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()

    return run


@pytest.fixture(scope="module")
def program(step):
    return hw.trace(step)


@pytest.fixture(scope="module", params=MACHINES)
def report(request, program):
    return hw.cost_program(program, request.param, phase="train_step")


def test_parts_sum_to_totals(report):
    assert sum(op.time_s for op in report.ops) == pytest.approx(report.time_s, rel=SUM)
    assert sum(report.parts_s.values()) == pytest.approx(report.time_s, rel=SUM)
    for op in report.ops:
        assert sum(op.parts_s.values()) == pytest.approx(op.time_s, rel=SUM)
        assert op.time_s > 0
    assert set(report.energy_by) == set(ENERGY_PARTS)
    assert sum(report.energy_by.values()) == pytest.approx(report.energy_j, rel=SUM)
    assert all(value >= 0 for value in report.energy_by.values())


def test_static_energy_is_power_times_time(report):
    static_w = hw.load_machine(report.machine).static_w
    assert report.energy_by["static"] == pytest.approx(static_w * report.time_s, rel=SUM)


def test_supersteps_fill_the_time_and_every_byte_arrives(report):
    steps = [s for op in report.ops for s in op.supersteps]
    if not isinstance(hw.load_machine(report.machine), TileMachine):
        assert not steps
        return
    assert any(s.kind == "exchange" and s.sent_byte > 0 for s in steps)
    for s in steps:
        assert s.sent_byte == s.received_byte
    for op in report.ops:
        if op.supersteps:
            cycles = sum(s.cycles for s in op.supersteps)
            assert cycles / report.clock_hz == pytest.approx(op.time_s, rel=1e-9)


def test_interval_utilisation_and_multiply_adds(report):
    low, high = report.time_interval_s
    e = report.time_s / low - 1
    assert high == pytest.approx(report.time_s / (1 - e))
    # between the best and the worst kind of work that was measured
    assert min(seen.error for seen in SEEN.values()) <= e <= WIDEST
    assert 0 < report.outside <= 1
    # forward 64 (96 x 128 + 128 x 8); backward both gradients, the first layer's input excepted
    forward = 64 * (96 * 128 + 128 * 8)
    assert report.n_mac == 2 * forward + 64 * 128 * 8
    ideal_s = report.n_mac / hw.load_machine(report.machine).mac_per_s("fp32")
    assert report.utilisation == pytest.approx(ideal_s / report.time_s, rel=SUM)
    assert 0 < report.utilisation < 1


def test_entry_has_the_fields_of_the_record(report):
    entry = report.entry("dense-fp32")
    assert list(entry) == [
        "machine", "phase", "variant", "time_s", "energy_j", "peak_tile_memory_byte", "fits",
        "time_interval_s", "energy_by", "energy_interval_j", "utilisation",
    ]  # fmt: skip
    assert json.loads(json.dumps(entry)) == entry
    assert entry["variant"] == "dense-fp32"
    assert entry["phase"] == "train_step"
    assert entry["fits"] is True


def test_one_op_costs_what_its_item_costs():
    x = torch.ones(1000)
    report = hw.cost(lambda: x * x, machine="ipu_bow")
    item = Pointwise(1000, "arithmetic", "fp32", "fp32", 2, 1)
    expected = cost_item(item, hw.load_machine("ipu_bow"))
    assert report.time_s == expected.time_s
    (op,) = report.ops
    assert (op.name, op.module, op.phase, op.plan) == ("aten.mul", "", "forward", expected.plan)


def test_memory_of_one_op_by_hand():
    """Two operands and the result over 1,472 tiles; temporaries and code on every tile."""
    machine = hw.load_machine("ipu_bow")
    a, b = torch.ones(100, 200), torch.ones(200, 300)
    report = hw.cost(lambda: a @ b, machine=machine)
    tensor_byte = 4 * (100 * 200 + 200 * 300 + 100 * 300)
    item = Contraction(1, 100, 200, 300, "fp32", "fp32", "fp32")
    temporary_byte = cost_item(item, machine).temporary_byte
    assert temporary_byte > 0
    expected = tensor_byte / 1472 + temporary_byte + machine.code_byte
    assert report.peak_tile_memory_byte == pytest.approx(expected, rel=SUM)
    assert report.memory_byte == 638_976
    on_gpu = hw.cost(lambda: a @ b, machine="a100")
    assert on_gpu.peak_tile_memory_byte == tensor_byte


def test_the_peak_is_the_fullest_moment(program, report):
    assert report.peak_tile_memory_byte == max(op.memory_byte for op in report.ops)
    machine = hw.load_machine(report.machine)
    n_tile = machine.n_tile if isinstance(machine, TileMachine) else 1
    joined, _, _ = fuse(program, tasks_of(program))
    assert report.peak_tile_memory_byte >= joined.live_byte().max() / n_tile * (1 - SUM)


def test_low_precision_weights_take_less_room():
    w32 = torch.ones(512, 512)
    x = torch.ones(8, 512)
    wide = hw.cost(lambda: x @ w32, machine="a100")
    w16, x16 = w32.bfloat16(), x.bfloat16()
    narrow = hw.cost(lambda: x16 @ w16, machine="a100")
    assert 2 * narrow.peak_tile_memory_byte == wide.peak_tile_memory_byte


def test_a_model_that_does_not_fit_names_its_owners():
    with FakeTensorMode():
        layer = torch.nn.Linear(20_000, 20_000, bias=False)
        x = torch.empty(4, 20_000)
    report = hw.cost(layer, x, machine="ipu_gc200")
    assert not report.fits
    share = 4 * 20_000**2 / 1472
    assert report.tenants[0] == ("weight", pytest.approx(share))
    n_chip = math.ceil(report.peak_tile_memory_byte / 638_976)
    with pytest.raises(
        MemoryExceededError,
        match=r"memory exceeded on ipu_gc200: op 0 aten\.mm \(Linear\) needs [\d,]+ byte per tile, "
        rf"the machine has 638,976; largest owners: weight 1,086,957, .* at least {n_chip} chips",
    ):
        report.require_fit()
    assert "DOES NOT FIT" in str(report)
    hw.cost(layer, x, machine="a100").require_fit()


def test_host_read_is_a_stall_with_a_line_of_its_own():
    x = torch.ones(100)
    report = hw.cost(lambda: x.sum().item(), machine="ipu_gc200")
    read = report.ops[-1]
    assert read.name == "aten._local_scalar_dense"
    assert read.parts_s["host"] >= hw.load_machine("ipu_gc200").host_latency_s


@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")
def test_sparsity_lowers_the_cost_of_a_bsr_product():
    torch.manual_seed(0)
    dense = torch.ones(1024, 1024)
    mask = (torch.rand(64, 64) < 0.1).repeat_interleave(16, 0).repeat_interleave(16, 1)
    x = torch.ones(1024, 256)
    matrix = (dense * mask).to_sparse_bsr((16, 16))
    sparse_report = hw.cost(lambda: matrix @ x, machine="ipu_bow")
    dense_report = hw.cost(lambda: dense @ x, machine="ipu_bow")
    assert sparse_report.n_mac == int(mask.sum()) * 256
    assert sparse_report.time_s < dense_report.time_s
    assert sparse_report.peak_tile_memory_byte < dense_report.peak_tile_memory_byte


def test_one_trace_serves_many_machines_and_equals_the_door(step, program):
    for name in ("ipu_bow", "a100"):
        through = hw.cost(step, machine=name, phase="train_step")
        assert replace(through) == hw.cost_program(program, name, phase="train_step")


def test_an_empty_program_costs_nothing():
    report = hw.cost(lambda: None, machine="ipu_bow")
    assert (report.time_s, report.energy_j, report.utilisation) == (0.0, 0.0, 0.0)
    assert report.peak_tile_memory_byte == 65_536
    assert "0 ops" in str(report)
    assert report._repr_html_()


def test_errors_of_the_door():
    x = torch.eye(3)
    with pytest.raises(UnknownOpError, match=r"aten\._linalg_det \(1 call\)"):
        hw.cost(torch.linalg.det, x, machine="a100")
    assert hw.cost(torch.linalg.det, x, machine="a100", free={"aten._linalg_det"}).time_s == 0
    with pytest.raises(
        MachineError, match=r"no machine 'a1000'; known are .*did you mean 'a100'\?"
    ):
        hw.cost(torch.abs, x, machine="a1000")


def test_a_bigger_product_never_costs_less():
    machine = hw.load_machine("ipu_bow")
    times = [
        cost_item(Contraction(1, n, n, n, "fp16", "fp16", "fp16"), machine).time_s
        for n in (16, 64, 256, 1024)
    ]
    assert np.all(np.diff(times) > 0)


def test_the_products_of_a_gpt_size_training_step_are_counted():
    with FakeTensorMode():
        block = torch.nn.TransformerEncoderLayer(
            12288, 96, 49152, batch_first=True, norm_first=True, dropout=0.0
        )
        x = torch.empty(1, 2048, 12288)
        optimizer = torch.optim.AdamW(block.parameters())

    def step():
        block(x).square().mean().backward()
        optimizer.step()

    program = hw.trace(step)
    for name in MACHINES:
        report = hw.cost_program(program, name, phase="train_step")
        # 24 x tokens x d^2 for the matrices, forward and twice backward; attention on top,
        # whose flash form computes the scores of the backward pass once more
        matrices = 3 * 12 * 2048 * 12288**2
        attention = (2 + 5) * 2048 * 2048 * 12288
        assert report.n_mac == matrices + attention
