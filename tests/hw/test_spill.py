"""Programs that spill, as charged: time, energy, memory, and what is refused."""

import json
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

import hw
from core.errors import MemoryExceededError
from hw.chrome import chrome_trace
from hw.machine import TileMachine, load_machine
from hw.model_text import trace_model
from hw.planned import plan_program
from hw.spill import SHARES

MLP = "mlp width=1536 depth=3 batch=256 dtype=fp16"
TRANSFORMER = "transformer width=512 depth=2 length=128 batch=8 dtype=fp16"
N_TILE = 48


def bow(**changes: float) -> TileMachine:
    """Return a Bow of few tiles, with a quick link unless told otherwise."""
    machine = load_machine("ipu_bow")
    assert isinstance(machine, TileMachine)
    return replace(machine, **{"n_tile": N_TILE, "stream_byte_per_s": 4e9, **changes})  # type: ignore[arg-type]


BOW = bow()


@pytest.fixture(scope="module")
def runs():
    """Return a program, its cost on a machine that is too small, and with spilling."""
    traced, _ = trace_model(TRANSFORMER)
    plain = hw.cost_program(traced, BOW, phase="train_step")
    return traced, plain, hw.cost_program(traced, BOW, phase="train_step", spill=True)


def test_a_model_larger_than_the_chip_streams_at_least_what_does_not_fit(runs):
    traced, plain, spilled = runs
    assert not plain.fits
    assert plain.streaming is None
    assert plain.streamed_byte == 0
    assert spilled.fits
    assert spilled.peak_tile_memory_byte <= BOW.tile_memory_byte
    beside = spilled.streaming
    assert spilled.streamed_byte == beside.in_byte + beside.out_byte
    # what the resident tensors have too much comes in and, updated, goes back in every step
    excess = traced.resident_byte - BOW.device_memory_byte
    assert spilled.streamed_byte >= 2 * excess
    # and no more than if nothing could stay between two ops
    touched = sum(
        traced.storages[key].byte
        for op in traced.ops
        for key in {t.storage for t in (*op.inputs, *op.outputs)} & traced.storages.keys()
    )
    assert spilled.streamed_byte <= 2 * touched
    assert excess <= beside.outside_byte <= traced.resident_byte + touched
    assert beside.capacity_byte == BOW.stream_byte


def test_time_is_work_and_waits_and_lies_between_the_bounds(runs):
    _, _, spilled = runs
    beside = spilled.streaming
    assert beside.transfer_s == pytest.approx(spilled.streamed_byte / BOW.stream_byte_per_s)
    waits_s = beside.transfer_s - beside.hidden_s
    work_s = spilled.time_s - waits_s
    assert spilled.parts_s["off_chip"] == pytest.approx(waits_s)
    assert max(work_s, beside.transfer_s) <= spilled.time_s * (1 + 1e-12)
    assert 0 < beside.hidden_s < work_s
    cycles = sum(s.cycles for op in spilled.ops for s in op.supersteps)
    assert cycles / BOW.clock_hz == pytest.approx(spilled.time_s)
    last = beside.transfers[-1]
    assert last.start_s + last.length_s <= spilled.time_s * (1 + 1e-12)


def test_the_buffer_is_made_of_tiles_that_do_not_compute(runs):
    _, _, spilled = runs
    beside = spilled.streaming
    n = beside.n_tile_aside
    assert n in {1, 2, 4, 8}  # powers of two up to a quarter
    assert spilled.n_unit == N_TILE - n
    assert beside.buffer_byte == n * (BOW.tile_memory_byte - BOW.code_byte)
    assert max(s.n_tile for op in spilled.ops for s in op.supersteps if s.kind == "compute") <= (
        N_TILE - n
    )
    # every byte passes between them and the others, at 4 byte a cycle from each
    passed = sum(s.cycles for op in spilled.ops for s in op.supersteps
                 if s.label == "by the tiles set aside")  # fmt: skip
    assert passed == pytest.approx(spilled.streamed_byte / (n * 4))


def test_energy_pays_for_each_byte_that_travels(runs):
    _, plain, spilled = runs
    byte = spilled.streamed_byte
    off_chip_j = byte * BOW.off_chip_pj_per_byte * 1e-12
    assert spilled.energy_by["off_chip"] == pytest.approx(plain.energy_by["off_chip"] + off_chip_j)
    assert spilled.energy_by["exchange"] > byte * BOW.exchange_pj_per_byte * 1e-12
    assert spilled.energy_by["static"] == pytest.approx(BOW.static_w * spilled.time_s)


def test_every_byte_that_travels_is_counted_with_its_op(runs):
    traced, _, spilled = runs
    apart = plan_program(traced, replace(BOW, n_tile=spilled.n_unit), join=False)
    byte = spilled.streamed_byte
    for field in ("off_chip_byte", "exchange_byte"):
        own = sum(getattr(op, field) for op in apart.ops)
        assert sum(getattr(op, field) for op in spilled.ops) == pytest.approx(own + byte)
    came = {t.i_task for t in spilled.streaming.transfers}
    assert all(spilled.ops[i].off_chip_byte > apart.ops[i].off_chip_byte for i in came)
    # what is on a tile beside the tensors: code, and what an op itself takes
    assert min(op.memory_byte for op in spilled.ops) > BOW.code_byte


def test_few_tiles_are_all_for_work():
    traced, _ = trace_model("mlp width=400 depth=2 batch=4 dtype=fp16")
    report = hw.cost_program(traced, bow(n_tile=3), spill=True)
    assert report.fits
    assert report.streamed_byte > 0
    assert (report.streaming.n_tile_aside, report.n_unit) == (0, 3)
    assert report.streaming.hidden_s == pytest.approx(0, abs=1e-15 * report.time_s)
    assert report.time_s > report.streaming.transfer_s


def test_text_page_and_trace_show_what_travels(runs):
    _, _, spilled = runs
    beside = spilled.streaming
    text = str(spilled)
    assert re.search(rf"; {beside.n_tile_aside} tiles \([^)]+\) are set aside for it", text)
    assert "of 64 GB in the memory beside the chip" in text
    page = spilled._repr_html_()
    assert "Tensors stream: " in page
    ElementTree.fromstring(page)
    assert sum(name != "code and exchange tables" for name, _ in spilled.tenants) > 0
    assert sum(byte for _, byte in spilled.tenants) <= spilled.peak_tile_memory_byte * (1 + 1e-12)
    events = json.loads(json.dumps(chrome_trace(spilled)))["traceEvents"]
    travels = [e for e in events if e["ph"] == "X" and e["tid"] == 3]
    assert len(travels) == len(beside.transfers)
    assert sum(e["args"]["byte"] for e in travels) == pytest.approx(spilled.streamed_byte)
    assert sum(e["dur"] for e in travels) == pytest.approx(beside.transfer_s * 1e6)


def test_a_program_that_fits_is_the_same_with_spilling():
    traced, _ = trace_model("mlp width=256 depth=2 batch=16")
    for machine in ("ipu_bow", "a100"):
        plain, spilled = (hw.cost_program(traced, machine, spill=spill) for spill in (False, True))
        assert spilled.time_s == plain.time_s
        assert spilled.streaming is None


def test_a_quicker_link_is_never_slower_and_a_slow_one_is_all_that_counts():
    traced, _ = trace_model(MLP)
    times = []
    for rate in (1e9, 1e10, 1e12):
        machine = bow(stream_byte_per_s=rate)
        report = hw.cost_program(traced, machine, spill=True)
        times.append(report.time_s)
        assert report.streaming.transfer_s == pytest.approx(report.streamed_byte / rate)
    assert times == sorted(times, reverse=True)


@pytest.mark.parametrize("machine", ["a100", "tpu_v3"])
def test_a_chip_with_its_memory_off_chip_streams_from_the_host(machine):
    traced, _ = trace_model(MLP)
    full = load_machine(machine)
    small = replace(full, hbm_byte=0.6 * traced.resident_byte)
    plain = hw.cost_program(traced, small)
    report = hw.cost_program(traced, small, spill=True)
    beside = report.streaming
    assert not plain.fits
    assert report.fits
    assert beside.n_tile_aside == 0
    assert beside.buffer_byte in {small.hbm_byte * share for share in (0, *SHARES)}
    assert report.peak_tile_memory_byte <= small.hbm_byte
    assert max(op.memory_byte for op in report.ops) >= beside.buffer_byte
    work_s = report.time_s - (beside.transfer_s - beside.hidden_s)
    assert beside.hidden_s > 0
    assert report.time_s < work_s + beside.transfer_s
    assert all(not op.supersteps for op in report.ops)
    # copies run beside kernels, so that each op itself takes as long as without
    assert work_s == pytest.approx(hw.cost_program(traced, full).time_s, rel=0.2)


def test_what_does_not_fit_beside_the_chip_either_is_refused():
    traced, _ = trace_model(MLP)
    report = hw.cost_program(traced, bow(stream_byte=1e7), spill=True)
    assert report.peak_tile_memory_byte <= report.memory_byte
    assert not report.fits
    n_chip = -(-report.streaming.outside_byte // 1e7)
    assert n_chip > 1
    with pytest.raises(
        MemoryExceededError,
        match=r"memory exceeded beside ipu_bow: [\d,]+ byte have to wait there, and it holds "
        rf"10,000,000 for each chip; largest owners: .*weight.* or at least {n_chip:.0f} chips",
    ):
        report.require_fit()
    assert "DOES NOT FIT" in str(report)
    assert "does not fit" in report._repr_html_()
    assert hw.cost_program(traced, BOW, spill=True).fits


def test_an_op_too_large_for_the_chip_is_refused_with_spilling_too():
    traced, _ = trace_model("mlp width=3000 depth=1 batch=4")
    report = hw.cost_program(traced, BOW, spill=True)
    assert not report.fits
    with pytest.raises(MemoryExceededError, match=r"needs [\d,]+ byte per tile") as caught:
        report.require_fit()
    assert "spill" not in str(caught.value)
    chips = int(str(caught.value).rsplit("at least ", 1)[1].split()[0])
    # so many share the tensors, and the code lies on each
    share = (report.peak_tile_memory_byte - BOW.code_byte) / chips + BOW.code_byte
    assert share <= BOW.tile_memory_byte
    one_less = (report.peak_tile_memory_byte - BOW.code_byte) / (chips - 1) + BOW.code_byte
    assert one_less > BOW.tile_memory_byte
