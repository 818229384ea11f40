"""Programs that spill: by hand, against what must move at least, and as charged."""

from dataclasses import replace

import pytest

import hw
from hw.machine import TileMachine, load_machine
from hw.model_text import trace_model
from hw.program import Op, Program, Storage, TensorInfo
from hw.stream import stream_plan

BYTE = 1000


def tiles(n_tensor: float) -> TileMachine:
    """Return two tiles with room for so many tensors in all."""
    machine = load_machine("ipu_bow")
    assert isinstance(machine, TileMachine)
    room = int(n_tensor * BYTE / 2)
    return replace(machine, n_tile=2, code_byte=0.0, tile_memory_byte=room)


def program(ops: list[tuple[str, str]], roles: dict[str, str], phase: str = "forward") -> Program:
    """Return ops that read and write tensors of BYTE bytes, named by letters."""
    key = {name: i for i, name in enumerate(roles)}

    def info(name: str) -> TensorInfo:
        return TensorInfo((250,), "fp32", key[name], n_stored=250)

    made = tuple(
        Op("aten.add", {f"x{i}": info(n) for i, n in enumerate(reads)},
           tuple(info(n) for n in writes), phase, "")  # type: ignore[arg-type]
        for reads, writes in ops
    )  # fmt: skip
    storages = {}
    for name, role in roles.items():
        places = [i for i, (reads, writes) in enumerate(ops) if name in reads + writes]
        storages[key[name]] = Storage(BYTE, role, name, places[0], places[-1])  # type: ignore[arg-type]
    return Program(made, storages)


def test_what_fits_does_not_stream():
    p = program([("a", "x"), ("x", "y"), ("by", "z")],
                {"a": "parameter", "b": "parameter", "x": "activation", "y": "activation",
                 "z": "activation"})  # fmt: skip
    stream = stream_plan(p, {}, tiles(5))
    assert sum(stream.in_byte) == sum(stream.out_byte) == 0
    assert stream.fits
    assert stream.held_byte == (3 * BYTE, 4 * BYTE, 4 * BYTE)


def test_the_furthest_next_use_makes_room_and_only_what_was_written_goes_back():
    """Three tensors fit. x is made first and read last: it leaves while the others work."""
    activation = dict.fromkeys("xuvw", "activation")
    p = program([("a", "x"), ("a", "u"), ("u", "v"), ("v", "w"), ("wx", "w")],
                {"a": "parameter", **activation})  # fmt: skip
    stream = stream_plan(p, {}, tiles(3))
    # a is still clean when v needs its place: it is dropped, and comes again with the next step
    assert stream.in_byte[0] == BYTE
    assert sum(stream.out_byte) == 0
    assert stream.fits
    narrow = stream_plan(p, {}, tiles(2))
    # now x has to wait outside: once written, once brought in
    assert sum(narrow.out_byte) == BYTE
    assert narrow.in_byte[-1] == BYTE
    assert narrow.fits
    assert max(narrow.held_byte) <= 2 * BYTE
    assert not stream_plan(p, {}, tiles(1)).fits


def test_an_optimizer_writes_its_state_back():
    roles = dict.fromkeys("abcd", "optimizer")
    p = program([("a", "a"), ("b", "b"), ("c", "c"), ("d", "d")], roles, "optimizer")
    stream = stream_plan(p, {}, tiles(1))
    assert stream.in_byte == (BYTE,) * 4
    assert stream.out_byte == (BYTE,) * 4
    # with room for two, the two last ones of the step before are found on the chip
    assert sum(stream_plan(p, {}, tiles(4)).in_byte) == 0
    assert sum(stream_plan(p, {}, tiles(2)).in_byte) <= 3 * BYTE


def test_temporaries_take_room():
    p = program([("a", "x"), ("x", "y")], {"a": "parameter", "x": "activation", "y": "activation"})
    assert sum(stream_plan(p, {}, tiles(3)).in_byte) == 0
    assert stream_plan(p, {1: BYTE / 2}, tiles(3)).in_byte[0] == BYTE


@pytest.mark.parametrize(
    "text",
    ["mlp width=8192 depth=3 batch=32 dtype=fp16",
     "transformer width=2048 depth=4 length=128 batch=2 dtype=fp16"],
)  # fmt: skip
def test_a_model_larger_than_the_chip_streams_at_least_what_does_not_fit(text):
    traced, _ = trace_model(text)
    machine = load_machine("ipu_bow")
    assert isinstance(machine, TileMachine)
    whole = hw.cost_program(traced, machine, phase="train_step")
    spilled = hw.cost_program(traced, machine, phase="train_step", spill=True)
    assert not whole.fits
    assert spilled.fits
    assert spilled.peak_tile_memory_byte <= machine.tile_memory_byte
    assert whole.streamed_byte == 0
    # what the resident tensors have too much comes in and, updated, goes back in every step
    excess = traced.resident_byte - machine.device_memory_byte
    assert spilled.streamed_byte >= 2 * excess
    # and no more than if nothing could stay between two ops
    touched = sum(
        traced.storages[key].byte
        for op in traced.ops
        for key in {t.storage for t in (*op.inputs, *op.outputs)} & traced.storages.keys()
    )
    assert spilled.streamed_byte <= 2 * touched
    added_s = spilled.streamed_byte / machine.stream_byte_per_s
    assert spilled.time_s == pytest.approx(whole.time_s + added_s)
    added_j = spilled.streamed_byte * machine.off_chip_pj_per_byte * 1e-12
    assert spilled.energy_by["off_chip"] == pytest.approx(whole.energy_by["off_chip"] + added_j)
    assert "streaming" in str(spilled)
    cycles = sum(s.cycles for op in spilled.ops for s in op.supersteps)
    assert cycles / machine.clock_hz == pytest.approx(spilled.time_s)


def test_a_program_that_fits_is_the_same_with_spilling():
    traced, _ = trace_model("mlp width=256 depth=2 batch=16")
    plain, spilled = (hw.cost_program(traced, "ipu_bow", spill=spill) for spill in (False, True))
    assert spilled.time_s == plain.time_s
    assert spilled.streamed_byte == 0
