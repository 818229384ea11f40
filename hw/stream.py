"""Programs larger than the chip's memory: what is not needed waits in the memory beside the chip.

Tensors are streamed whole. When an op needs one that is not on the chip, it is brought in, and the
tensors whose next use lies furthest ahead make room; one that was written since it came is written
back first, one that nobody reads again is dropped. For equal sizes and reads alone no choice moves
less (Belady 1966, IBM Systems Journal 5, 78). Parameters and optimizer state have their home
outside and begin a step where the step before left them. When the tensors travel says `hw.overlap`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hw.overlap import Piece
from hw.program import RESIDENT, Program
from hw.rules import Task


@dataclass(frozen=True)
class Stream:
    """What streams for each task of a program.

    Attributes
    ----------
    comes, leaves : tuple of tuple of Piece
        Tensors brought in before a task starts, and written back to make room for it.
    held : tuple of tuple of int
        Keys of the tensors on the chip while a task runs.
    held_byte : tuple of float
        Their bytes, all tiles together.
    fits : bool
        False if some task alone needs more than there is.
    outside : tuple of int
        Keys of what has a place outside at the fullest moment: the parameters and state that ever
        leave the chip, and what else waits then.
    outside_byte : float
        Its bytes.
    """

    comes: tuple[tuple[Piece, ...], ...]
    leaves: tuple[tuple[Piece, ...], ...]
    held: tuple[tuple[int, ...], ...]
    held_byte: tuple[float, ...]
    fits: bool
    outside: tuple[int, ...]
    outside_byte: float

    @property
    def in_byte(self) -> tuple[float, ...]:
        """Bytes brought in, by task."""
        return tuple(sum(piece.byte for piece in pieces) for pieces in self.comes)

    @property
    def out_byte(self) -> tuple[float, ...]:
        """Bytes written back, by task."""
        return tuple(sum(piece.byte for piece in pieces) for pieces in self.leaves)


def stream_plan(program: Program, tasks: Sequence[Task], room: Sequence[float]) -> Stream:
    """Return what has to stream so that every task finds its tensors on the chip.

    Parameters
    ----------
    program : Program
    tasks : sequence of Task
    room : sequence of float
        Bytes that tensors may take while each task runs, all tiles together.
    """
    demand = _demand(program, tasks)
    at_start: dict[int, bool] = {}
    for _ in range(2):  # the first step only finds what the second begins with
        stream, at_start = _step(program, tasks, demand, room, at_start)
    return stream


@dataclass(frozen=True)
class _Demand:
    """Keys of the tensors that each task needs on the chip, and of those that it writes."""

    needs: list[list[int]]
    writes: list[set[int]]
    uses: dict[int, list[int]]
    stays: set[int]

    def next_use(self, key: int, i: int) -> float:
        """Return the task from `i` on that needs a tensor next.

        One that stays is needed again in the step after.
        """
        places = self.uses[key]
        found = bisect_left(places, i)
        if found < len(places):
            return places[found]
        return len(self.needs) + places[0] if key in self.stays else float("inf")


def _step(
    program: Program,
    tasks: Sequence[Task],
    demand: _Demand,
    room: Sequence[float],
    at_start: dict[int, bool],
) -> tuple[Stream, dict[int, bool]]:
    """Return what streams in one step, and what of the tensors that stay is on the chip after it.

    `at_start`, and what is returned, tell by key whether a tensor was written since it came.
    """
    storages, stays, on_chip = program.storages, demand.stays, dict(at_start)
    comes: list[tuple[Piece, ...]] = []
    leaves: list[tuple[Piece, ...]] = []
    held: list[tuple[int, ...]] = []
    held_byte: list[float] = []
    fits, waiting, most_byte = True, tuple[int, ...](), 0.0
    outside, roams, left_at = set(stays), stays - on_chip.keys(), dict.fromkeys(stays, -1)

    def byte(keys: Iterable[int]) -> float:
        return float(sum(storages[key].byte for key in keys))

    def piece(key: int, i: int) -> Piece:
        return Piece(float(storages[key].byte), i, storages[key].name)

    for i, (task, keys) in enumerate(zip(tasks, demand.needs, strict=True)):
        dead = {k for k in on_chip.keys() | outside if storages[k].last_op < task.i_op} - stays
        on_chip = {key: dirty for key, dirty in on_chip.items() if key not in dead}
        outside -= dead
        missing = [key for key in keys if key not in on_chip]
        comes.append(tuple(piece(key, left_at[key]) for key in missing if key in outside))
        on_chip.update(dict.fromkeys(missing, False))
        total, left = byte(on_chip), []
        while total > room[i]:
            others = [key for key in on_chip if key not in keys]
            if not others:
                fits = False
                break
            away = max(others, key=lambda key: (demand.next_use(key, i), storages[key].byte))
            total -= storages[away].byte
            if on_chip.pop(away):
                left.append(piece(away, i))
            outside.add(away)
            left_at[away] = i
            roams |= {away} & stays
        leaves.append(tuple(left))
        held.append(tuple(on_chip))
        held_byte.append(total)
        if byte(outside - stays) > most_byte:
            waiting, most_byte = tuple(outside - stays), byte(outside - stays)
        for key in demand.writes[i] & on_chip.keys():
            on_chip[key] = True
            outside -= {key} - stays
    stream = Stream(
        *(tuple(comes), tuple(leaves), tuple(held), tuple(held_byte)),
        *(fits, (*sorted(roams), *waiting), byte(roams) + most_byte),
    )
    return stream, {key: dirty for key, dirty in on_chip.items() if key in stays}


def _demand(program: Program, tasks: Sequence[Task]) -> _Demand:
    """Return what tasks touch and write; the optimizer's list ops write what they touch."""
    copies: dict[int, list[int]] = defaultdict(list)
    for key, storage in program.storages.items():
        if key < 0:  # a copy in another order (`hw.layout`) is no argument of any op
            for i_op in {storage.first_op, storage.last_op}:
                copies[i_op].append(key)
    needs: list[list[int]] = []
    writes: list[set[int]] = []
    for task in tasks:
        keys: dict[int, None] = {}
        written: set[int] = set()
        for place in task.places:
            op = program.ops[place]
            here = [t.storage for t in (*op.inputs, *op.outputs) if t.storage in program.storages]
            keys.update(dict.fromkeys((*here, *copies[place])))
            written |= {t.storage for t in op.outputs} & program.storages.keys()
            written |= {key for key in copies[place] if program.storages[key].first_op == place}
            if op.phase == "optimizer":
                written |= {key for key in here if program.storages[key].role in RESIDENT}
        needs.append(list(keys))
        writes.append(written)
    uses: dict[int, list[int]] = defaultdict(list)
    for i, touched in enumerate(needs):
        for key in touched:
            uses[key].append(i)
    stays = {key for key, storage in program.storages.items() if storage.role in RESIDENT}
    return _Demand(needs, writes, uses, stays)
