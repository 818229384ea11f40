"""When tensors travel: by hand, and between the bounds that hold for any program."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw.overlap import Piece, timeline

#: Sums of some dozen float64 times.
SUM = 1e-12
OUTSIDE = -1


def piece(byte: float, i_task: int = OUTSIDE, name: str = "w") -> Piece:
    return Piece(float(byte), i_task, name)


def spans(line, *, comes: bool) -> list[tuple[int, float, float]]:
    """Return task, start and end of what comes, or leaves."""
    return [(t.i_task, t.start_s, t.start_s + t.length_s) for t in line.transfers
            if t.comes == comes]  # fmt: skip


def test_without_a_buffer_the_work_waits_for_each_transfer():
    line = timeline([2, 3], [(piece(4),), (piece(8),)], [(), (piece(6),)], 2.0, 0.0)
    # 4 byte at 2 byte/s, 2 s of work; 6 byte leave before 8 come, 3 s of work
    assert line.wait_s == (2, 7)
    assert spans(line, comes=True) == [(0, 0, 2), (1, 7, 11)]
    assert spans(line, comes=False) == [(1, 4, 7)]
    assert (line.tail_s, line.time_s) == (0, 14)


def test_what_comes_travels_behind_the_task_before():
    # 6 s of transfer, 4 s of them behind the first task
    line = timeline([4, 1], [(), (piece(6),)], [(), ()], 1.0, 12.0)
    assert line.wait_s == (0, 2)
    assert spans(line, comes=True) == [(1, 0, 6)]
    assert line.time_s == 7


def test_what_half_of_the_buffer_cannot_hold_waits_for_the_task_before():
    # 4 of 6 byte fit: they come within the first task, the rest after it
    line = timeline([5, 1], [(), (piece(6),)], [(), ()], 1.0, 8.0)
    assert spans(line, comes=True) == [(1, 0, 4), (1, 5, 7)]
    assert [t.byte for t in line.transfers] == [4, 2]
    assert line.wait_s == (0, 2)


def test_the_buffer_is_free_again_when_the_task_starts():
    # three tensors of 4 byte, room for one: the second comes once the first task has begun
    come = [(piece(4),), (piece(4),), (piece(4),)]
    line = timeline([10, 10, 10], come, [()] * 3, 1.0, 8.0)
    assert spans(line, comes=True) == [(0, 0, 4), (1, 4, 8), (2, 14, 18)]
    assert line.wait_s == (4, 0, 0)
    # with room for two the third need not wait for the second task
    line = timeline([10, 10, 10], come, [()] * 3, 1.0, 16.0)
    assert spans(line, comes=True) == [(0, 0, 4), (1, 4, 8), (2, 8, 12)]


def test_what_leaves_travels_behind_later_tasks_and_the_end_waits_for_it():
    line = timeline([1, 2], [(), ()], [(), (piece(5),)], 1.0, 10.0)
    assert spans(line, comes=False) == [(1, 1, 6)]
    assert line.wait_s == (0, 0)
    assert (line.tail_s, line.time_s) == (3, 6)


def test_what_leaves_waits_for_the_half_to_be_empty():
    # each leaves 4 byte and half of the buffer is 4: the third task waits until the first has gone
    line = timeline([1, 1, 1], [()] * 3, [(), (piece(4),), (piece(4),)], 1.0, 8.0)
    first, second = spans(line, comes=False)
    assert line.wait_s == (0, 0, first[2] - 2)
    assert second[1] >= first[2]
    assert line.time_s == second[2]


def test_all_that_leaves_for_a_task_needs_its_place():
    # 2 and 11 byte for the second task, 2 still there of the first, room for 13
    leave = [(piece(1), piece(1)), (piece(2), piece(11))]
    line = timeline([0, 0], [(), ()], leave, 1.0, 26.0)
    assert line.wait_s == (0, 2)
    assert line.time_s == 15


def test_a_tensor_that_made_room_comes_back_after_that():
    # it leaves for task 1 (starts at 3) and is needed by task 2
    line = timeline([3, 4, 1], [(), (), (piece(1, 1),)], [(), (piece(1),), ()], 1.0, 16.0)
    ((_, start, _),) = spans(line, comes=True)
    assert start >= 3
    # one that has waited outside from the beginning comes at once
    line = timeline([3, 4, 1], [(), (), (piece(1),)], [(), (), ()], 1.0, 16.0)
    assert spans(line, comes=True) == [(2, 0, 1)]


def test_a_tensor_that_left_for_the_task_before_comes_back_once_it_has_gone():
    # it leaves when task 0 has ended, 3 to 4 s, is back at 5 and makes task 2 wait for nothing
    line = timeline([3, 4, 1], [(), (), (piece(1, 1),)], [(), (piece(1),), ()], 1.0, 16.0)
    assert [(t.comes, t.start_s) for t in line.transfers] == [(False, 3), (True, 4)]
    assert line.wait_s == (0, 0, 0)


#: None, or no smaller than what times can be told apart by.
BUFFERS = st.one_of(st.just(0.0), st.floats(0.5, 60))


@st.composite
def programs(draw):
    """Draw times, and tensors that come and leave; what comes was outside, or left before."""
    work = draw(st.lists(st.floats(0, 20), min_size=1, max_size=8))
    byte = st.lists(st.floats(0.1, 20), max_size=3)
    comes = []
    for i in range(len(work)):
        left = st.tuples(st.floats(0.1, 20), st.integers(OUTSIDE, i - 1))
        comes.append(tuple(piece(b, j, f"{j}") for b, j in draw(st.lists(left, max_size=3))))
    leaves = [tuple(piece(b, i) for b in draw(byte)) for i in range(len(work))]
    return work, comes, leaves


@settings(max_examples=80, deadline=None)
@given(programs(), st.floats(0.1, 10), BUFFERS, st.floats(1, 4))
def test_time_lies_between_the_longer_of_work_and_transfers_and_both(p, rate, buffer, quicker):
    work, comes, leaves = p
    byte = sum(t.byte for pieces in (*comes, *leaves) for t in pieces)
    line = timeline(work, comes, leaves, rate, buffer)
    upper = sum(work) + byte / rate
    assert max(sum(work), byte / rate) <= line.time_s * (1 + SUM) + SUM
    assert line.time_s <= upper * (1 + SUM) + SUM
    assert line.time_s == pytest.approx(sum(work) + sum(line.wait_s) + line.tail_s, abs=1e-9)
    assert sum(t.byte for t in line.transfers) == pytest.approx(byte)
    # one tensor at a time
    ends = [t.start_s + t.length_s for t in line.transfers]
    assert all(t.start_s >= end - 1e-9 for t, end in zip(line.transfers[1:], ends, strict=False))
    # a quicker link, or shorter work, is never slower; no buffer is the slowest
    slack = 1e-9 + upper * SUM
    assert timeline(work, comes, leaves, quicker * rate, buffer).time_s <= line.time_s + slack
    shorter = [length / quicker for length in work]
    assert timeline(shorter, comes, leaves, rate, buffer).time_s <= line.time_s + slack
    assert timeline(work, comes, leaves, rate, 0.0).time_s == pytest.approx(upper)


@settings(max_examples=60, deadline=None)
@given(programs(), st.floats(0.1, 10), BUFFERS)
def test_no_task_starts_before_its_tensors_are_there_and_the_halves_hold(p, rate, buffer):
    work, comes, leaves = p
    line = timeline(work, comes, leaves, rate, buffer)
    starts, ends, clock = [], [], 0.0
    for wait, length in zip(line.wait_s, work, strict=True):
        starts.append(clock + wait)
        clock += wait + length
        ends.append(clock)
    before = [0.0, *ends]
    for t in line.transfers:
        end = t.start_s + t.length_s
        if t.comes:
            assert end <= starts[t.i_task] + 1e-9
        else:
            assert t.start_s >= before[t.i_task] - 1e-9
    # what left for a task comes again when all that left with it has gone
    for place, t in enumerate(line.transfers):
        if t.comes and int(t.name) >= 0:
            later = [x.i_task for x in line.transfers[place + 1 :] if not x.comes]
            assert int(t.name) not in later
            assert t.start_s >= starts[int(t.name)] - 1e-9
    # whatever the moment, no half holds more than it can; what comes while the work stands flows
    # straight through
    half = buffer / 2 * (1 + 1e-9)
    for now in [t.start_s + t.length_s for t in line.transfers] + starts:
        there = sum(
            t.byte
            for t in line.transfers
            if t.comes
            and t.start_s < before[t.i_task] - 1e-9
            and t.start_s + t.length_s <= now + 1e-12
            and now < starts[t.i_task]
        )
        assert there <= half
        still = sum(
            t.byte for t in line.transfers if not t.comes and starts[t.i_task] <= now < t.start_s
        )
        assert still <= half
