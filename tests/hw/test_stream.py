"""What streams in a program that does not fit: by hand."""

import pytest

from hw.program import Op, Program, Storage, TensorInfo
from hw.rules import Task
from hw.stream import Stream, stream_plan

BYTE = 1000


def program(
    ops: list[tuple[str, str]], roles: dict[str, str], phase: str = "forward", **byte: int
) -> Program:
    """Return ops that read and write tensors of BYTE bytes (or `byte`), named by letters."""
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
        storages[key[name]] = Storage(byte.get(name, BYTE), role, name, places[0], places[-1])  # type: ignore[arg-type]
    return Program(made, storages)


def stream_of(program: Program, n_tensor: float, used: dict[int, float] | None = None) -> Stream:
    """Return what streams with room for so many tensors, less what each op itself uses."""
    tasks = [Task(i, op, ()) for i, op in enumerate(program.ops)]
    room = [n_tensor * BYTE - (used or {}).get(i, 0.0) for i in range(len(tasks))]
    return stream_plan(program, tasks, room)


def names(pieces) -> list[str]:
    return [piece.name for piece in pieces]


def test_what_fits_does_not_stream():
    p = program([("a", "x"), ("x", "y"), ("by", "z")],
                {"a": "parameter", "b": "parameter", "x": "activation", "y": "activation",
                 "z": "activation"})  # fmt: skip
    stream = stream_of(p, 5)
    assert sum(stream.in_byte) == sum(stream.out_byte) == 0
    assert stream.fits
    # x dies with the second op
    assert stream.held_byte == (3 * BYTE, 4 * BYTE, 4 * BYTE)
    assert [len(keys) for keys in stream.held] == [3, 4, 4]
    assert (stream.outside, stream.outside_byte) == ((), 0)


def test_the_furthest_next_use_makes_room_and_only_what_was_written_goes_back():
    """x is made first and read last: it leaves while the others work."""
    activation = dict.fromkeys("xuvw", "activation")
    p = program([("a", "x"), ("a", "u"), ("u", "v"), ("v", "w"), ("wx", "w")],
                {"a": "parameter", **activation})  # fmt: skip
    stream = stream_of(p, 3)
    # a is still clean when v needs its place: it is dropped, and comes again with the next step
    assert [names(pieces) for pieces in stream.comes] == [["a"], [], [], [], []]
    assert sum(stream.out_byte) == 0
    assert stream.fits
    narrow = stream_of(p, 2)
    # now x has to wait outside: once written, once brought in
    assert [names(pieces) for pieces in narrow.leaves] == [[], ["x"], [], [], []]
    assert [names(pieces) for pieces in narrow.comes] == [["a"], [], [], [], ["x"]]
    assert narrow.fits
    assert max(narrow.held_byte) == 2 * BYTE
    # it may come from the start of the op on that it made room for; the parameter at any time
    assert narrow.comes[-1][0].i_task == 1
    assert narrow.comes[0][0].i_task == -1
    # a, which leaves the chip in every step, and x
    assert narrow.outside_byte == 2 * BYTE
    assert not stream_of(p, 1).fits


def test_of_equally_distant_tensors_the_larger_makes_room():
    p = program([("", "x"), ("", "y"), ("", "z"), ("xyz", "z")],
                dict.fromkeys("xyz", "activation"), y=2 * BYTE)  # fmt: skip
    assert [names(pieces) for pieces in stream_of(p, 3).leaves] == [[], [], ["y"], []]
    assert not stream_of(p, 3).fits  # the last op needs all four
    assert stream_of(p, 4).fits


def test_an_optimizer_writes_its_state_back():
    roles = dict.fromkeys("abcd", "optimizer")
    p = program([("a", "a"), ("b", "b"), ("c", "c"), ("d", "d")], roles, "optimizer")
    stream = stream_of(p, 1)
    assert stream.in_byte == (BYTE,) * 4
    assert stream.out_byte == (BYTE,) * 4
    assert stream.outside_byte == 4 * BYTE
    # with room for two, the two last ones of the step before are found on the chip
    assert sum(stream_of(p, 4).in_byte) == 0
    assert sum(stream_of(p, 2).in_byte) <= 3 * BYTE


def test_list_ops_of_an_optimizer_write_the_state_that_they_only_name():
    p = program([("a", ""), ("b", "")], dict.fromkeys("ab", "optimizer"), "optimizer")
    assert stream_of(p, 1).out_byte == (BYTE,) * 2
    p = program([("a", ""), ("b", "")], dict.fromkeys("ab", "parameter"), "forward")
    assert stream_of(p, 1).out_byte == (0, 0)


def test_state_that_never_leaves_the_chip_takes_no_place_outside():
    roles = {**dict.fromkeys("abc", "parameter"), **dict.fromkeys("xy", "activation")}
    stream = stream_of(p := program([("ab", "x"), ("cx", "y"), ("ay", "y")], roles), 4)
    # b makes room for y, and comes back with the next step; a and c stay
    assert [names(pieces) for pieces in stream.comes] == [["b"], [], []]
    assert {p.storages[key].name for key in stream.outside} == {"b"}
    assert stream.outside_byte == BYTE


def test_temporaries_take_room():
    p = program([("a", "x"), ("x", "y")], {"a": "parameter", "x": "activation", "y": "activation"})
    assert sum(stream_of(p, 3).in_byte) == 0
    assert stream_of(p, 3, {1: BYTE / 2}).in_byte[0] == BYTE


def test_a_fused_task_needs_the_tensors_of_all_its_ops_at_once():
    p = program([("a", "x"), ("bx", "x")], {"a": "parameter", "b": "parameter", "x": "activation"})
    fused = [Task(1, p.ops[1], (), members=(0, 1))]
    assert stream_plan(p, fused, [3 * BYTE]).fits
    assert not stream_plan(p, fused, [2 * BYTE]).fits
    assert stream_of(p, 2).fits


def test_a_copy_in_another_order_is_made_kept_and_used():
    """Copies (`hw.layout`) have keys below nought and are no argument of any op."""
    p = program([("a", "x"), ("a", "y"), ("xy", "y")],
                {"a": "parameter", "x": "activation", "y": "activation"})  # fmt: skip
    p.storages[-1] = Storage(BYTE, "activation", "copy of x in another order", 0, 2)
    assert stream_of(p, 4).held_byte[:2] == (3 * BYTE, 4 * BYTE)
    assert sum(stream_of(p, 4).in_byte) == 0
    # with room for three it waits outside or another does: something has to travel
    tight = stream_of(p, 3)
    assert tight.fits
    assert sum(tight.in_byte) + sum(tight.out_byte) >= BYTE


@pytest.mark.parametrize("n_tensor", [2, 3, 4, 6, 10])
def test_more_room_never_moves_more(n_tensor):
    names_ = "abcdefgh"
    ops = [(names_[i % 8], names_[(3 * i + 1) % 8]) for i in range(24)]
    p = program(ops, dict.fromkeys(names_, "parameter"))
    byte = [sum(s.in_byte) + sum(s.out_byte) for s in (stream_of(p, n_tensor + k) for k in (0, 1))]
    assert byte[1] <= byte[0]


def test_of_parameters_done_with_the_one_needed_later_in_the_next_step_makes_room():
    roles = {**dict.fromkeys("abc", "parameter"), "x": "activation"}
    p = program([("a", "x"), ("b", "x"), ("c", "x")], roles)
    stream = stream_of(p, 3)
    on_chip = [{p.storages[key].name for key in keys} for keys in stream.held]
    # the step before ended without b: a begins the next step sooner; now c is needed before a
    assert on_chip == [{"a", "c", "x"}, {"b", "c", "x"}, {"b", "c", "x"}]
    assert sum(stream.in_byte) == BYTE
