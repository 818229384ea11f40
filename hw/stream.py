"""Programs larger than the tiles' memory: what is not needed waits in the memory outside the chip.

Tensors are streamed whole. When an op needs one that is not on the chip, it is brought in, and the
tensors whose next use lies furthest ahead make room; one that was written since it came is written
back first, one that nobody reads again is dropped. For equal sizes and reads alone no choice moves
less (Belady 1966, IBM Systems Journal 5, 78). Parameters and optimizer state have their home
outside and begin a step where the step before left them. All tiles wait while tensors stream.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass, replace

from hw.machine import TileMachine
from hw.occupancy import temporary_byte
from hw.op_cost import OpCost
from hw.program import RESIDENT, Program
from hw.targets import ItemCost, Superstep


@dataclass(frozen=True)
class Stream:
    """What streams while each op of a program runs.

    Attributes
    ----------
    in_byte, out_byte : tuple of float
        To and from the chip, by op of the program.
    held_byte : tuple of float
        Tensors on the chip while each op runs, all tiles together.
    fits : bool
        False if some op alone needs more than the tiles have.
    outside_byte : float
        Most that waits outside at once, parameters and state included.
    """

    in_byte: tuple[float, ...]
    out_byte: tuple[float, ...]
    held_byte: tuple[float, ...]
    fits: bool
    outside_byte: float


def stream_plan(program: Program, temporary: dict[int, float], machine: TileMachine) -> Stream:
    """Return what has to stream so that every op finds its tensors on the tiles.

    Parameters
    ----------
    program : Program
    temporary : dict of int to float
        Bytes on the fullest tile beside the tensors, by op.
    machine : TileMachine
    """
    n_op, storages = len(program.ops), program.storages
    needs = [
        [key for key in dict.fromkeys(t.storage for t in (*op.inputs, *op.outputs))
         if key in storages]
        for op in program.ops
    ]  # fmt: skip
    uses: dict[int, list[int]] = defaultdict(list)
    for i, keys in enumerate(needs):
        for key in keys:
            uses[key].append(i)
    stays = {key for key, storage in storages.items() if storage.role in RESIDENT}
    room = machine.n_tile * (machine.tile_memory_byte - machine.code_byte)

    def next_use(key: int, i: int) -> float:
        place = bisect_left(uses[key], i)
        if place < len(uses[key]):
            return uses[key][place]
        return n_op + uses[key][0] if key in stays else float("inf")

    on_chip: dict[int, bool] = {}  # whether it was written since it came
    outside: set[int] = set(stays)
    fits, came, left, held = True, [0.0] * n_op, [0.0] * n_op, [0.0] * n_op
    waiting = 0.0
    for _ in range(2):  # the first step only finds what the second begins with
        came, left, held, waiting = [0.0] * n_op, [0.0] * n_op, [0.0] * n_op, 0.0
        on_chip = {key: dirty for key, dirty in on_chip.items() if key in stays}
        for i, keys in enumerate(needs):
            on_chip = {
                key: dirty
                for key, dirty in on_chip.items()
                if key in stays or storages[key].last_op >= i
            }
            for key in keys:
                if key not in on_chip:
                    came[i] += storages[key].byte if key in outside else 0.0
                    on_chip[key] = False
            limit = room - machine.n_tile * temporary.get(i, 0.0)
            total = sum(storages[key].byte for key in on_chip)
            while total > limit:
                others = [key for key in on_chip if key not in keys]
                if not others:
                    fits = False
                    break
                away = max(others, key=lambda key: (next_use(key, i), storages[key].byte))
                total -= storages[away].byte
                if on_chip.pop(away):
                    left[i] += storages[away].byte
                outside.add(away)
            held[i] = float(total)
            op = program.ops[i]
            written = {t.storage for t in op.outputs}
            if op.phase == "optimizer":
                written |= set(keys) & stays
            for key in keys:
                if key in on_chip and key in written:
                    on_chip[key] = True
                    if key not in stays:
                        outside.discard(key)
            waiting = max(waiting, float(sum(storages[key].byte for key in outside)))
        outside = set(stays)
    return Stream(tuple(came), tuple(left), tuple(held), fits, waiting)


def streamed(
    program: Program, ops: tuple[OpCost, ...], costs: list[list[ItemCost]], machine: TileMachine
) -> tuple[tuple[OpCost, ...], float]:
    """Return ops with the tensors that stream while they run, and all bytes that do.

    Ops that were joined to another, or are views, count to the next one that is charged.
    """
    temporary = {op.i_op: temporary_byte(of, machine) for op, of in zip(ops, costs, strict=True)}
    stream = stream_plan(program, temporary, machine)
    place = sorted(op.i_op for op in ops)
    moved: dict[int, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
    for i, (come, leave) in enumerate(zip(stream.in_byte, stream.out_byte, strict=True)):
        at = place[min(bisect_left(place, i), len(place) - 1)]
        moved[at] = (moved[at][0] + come, moved[at][1] + leave)
    found = tuple(_with_stream(op, moved[op.i_op], stream, temporary, machine) for op in ops)
    return found, sum(stream.in_byte) + sum(stream.out_byte)


def _with_stream(
    op: OpCost,
    moved: tuple[float, float],
    stream: Stream,
    temporary: dict[int, float],
    machine: TileMachine,
) -> OpCost:
    """Return the cost of an op that tensors stream to and from."""
    byte = sum(moved)
    seconds = byte / machine.stream_byte_per_s
    labels = zip(("tensors written back", "tensors brought in"), reversed(moved), strict=True)
    steps = [
        Superstep(
            *("exchange", n / machine.stream_byte_per_s * machine.clock_hz, label, "off_chip"),
            sent_byte=n, received_byte=n, n_tile=machine.n_tile,
        )
        for label, n in labels
        if n
    ]  # fmt: skip
    parts = {**op.parts_s, "off_chip": op.parts_s.get("off_chip", 0.0) + seconds}
    joule = op.energy_j["off_chip"] + byte * machine.off_chip_pj_per_byte * 1e-12
    return replace(
        op,
        time_s=op.time_s + seconds,
        parts_s={part: s for part, s in parts.items() if s},
        energy_j={**op.energy_j, "off_chip": joule},
        off_chip_byte=op.off_chip_byte + byte,
        memory_byte=stream.held_byte[op.i_op] / machine.n_tile
        + temporary[op.i_op]
        + machine.code_byte,
        binds="off_chip" if seconds > op.time_s else op.binds,
        supersteps=(*steps, *op.supersteps),
    )
