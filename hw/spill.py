"""What a program costs that is too large for the chip, and what is set aside for its tensors' way.

A buffer lets tensors travel while the work goes on (`hw.overlap`), and takes memory from it, so
that more has to travel. On a tile machine all tiles take part in a transfer, and none computes
meanwhile, unless some are set aside: these hold the buffer, and pass tensors on to the others by
the exchange (docs.graphcore.ai, PopART user guide, "Overlapping IO with compute"). Elsewhere copies
run beside kernels, and the buffer is a part of the memory. Shares of `SHARES` are tried, and none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

from hw.machine import Machine, TileMachine
from hw.occupancy import N_TENANT, per_tile, temporary_byte
from hw.op_cost import OpCost
from hw.overlap import Timeline, Transfer, timeline
from hw.planned import Planned
from hw.stream import Stream, stream_plan
from hw.targets import Superstep

#: Shares of the tiles, or of the memory, that are tried as a buffer.
SHARES = (1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4)


@dataclass(frozen=True)
class Streaming:
    """How a program uses the memory beside the chip.

    Attributes
    ----------
    in_byte, out_byte : float
        To and from the chip.
    transfer_s, hidden_s : float
        All transfers one after another, and how much of that passes while the work goes on.
    n_tile_aside : int
        Tiles that only pass tensors on.
    buffer_byte : float
        Memory set aside, that of those tiles or of the chip.
    outside_byte, capacity_byte : float
        The most that waits beside the chip, and what there is.
    owners : tuple of (str, float)
        Largest of the tensors that wait there then, in byte.
    transfers : tuple of Transfer
        In order; `Transfer.i_task` counts the ops of the report.
    """

    in_byte: float
    out_byte: float
    transfer_s: float
    hidden_s: float
    n_tile_aside: int
    buffer_byte: float
    outside_byte: float
    capacity_byte: float
    owners: tuple[tuple[str, float], ...]
    transfers: tuple[Transfer, ...]


@dataclass(frozen=True)
class _Try:
    """One size of the buffer: the plan, and what `stream` and `line` make of it.

    `pass_s` is the time to pass each op's tensors between the tiles set aside and the others.
    """

    planned: Planned
    n_aside: int
    buffer_byte: float
    stream: Stream
    line: Timeline
    pass_s: tuple[float, ...]

    @property
    def rank(self) -> tuple[bool, float, float]:
        return not self.stream.fits, self.line.time_s, self.buffer_byte


def spilled(
    plan: Callable[[Machine], Planned], machine: Machine
) -> tuple[Planned, Streaming, tuple[tuple[int, ...], ...]]:
    """Return the quickest way found to run a program that streams.

    Parameters
    ----------
    plan : callable
        Plans the program on a machine, ops of the optimizer one by one (`hw.planned`).
    machine : Machine

    Returns
    -------
    Planned
        Its ops with their waits, and with the memory that is left.
    Streaming
    tuple of tuple of int
        Keys of the tensors on the chip, by op.
    """
    whole = plan(machine)
    if isinstance(machine, TileMachine):
        tries = [_on_tiles(whole, machine, 0)]
        # first by the plan on all tiles, made longer; then by the plan on those that are left
        counts = dict.fromkeys(_power_of_two(machine.n_tile * share) for share in SHARES)
        n_aside = min(
            (n for n in counts if n),
            key=lambda n: _on_tiles(whole, machine, n).rank,
            default=0,
        )
        if n_aside:
            tries.append(_on_tiles(plan(_fewer(machine, n_aside)), machine, n_aside))
    else:
        tries = [_on_memory(whole, machine.device_memory_byte * s) for s in (0.0, *SHARES)]
    best = min(tries, key=lambda tried: tried.rank)
    planned = replace(best.planned, ops=_ops(best, machine))
    return planned, _streaming(best, machine), best.stream.held


def _power_of_two(n: float) -> int:
    return 1 << (int(n).bit_length() - 1) if n >= 1 else 0


@lru_cache(maxsize=64)
def _fewer(machine: TileMachine, n_aside: int) -> TileMachine:
    return replace(machine, n_tile=machine.n_tile - n_aside)


def _on_tiles(planned: Planned, machine: TileMachine, n_aside: int) -> _Try:
    """Return how a plan streams through tiles set aside.

    A plan on more tiles than are left takes longer, and more of each, by their ratio.
    """
    n_tile = machine.n_tile - n_aside
    longer = planned.machine.n_unit / n_tile
    room = machine.tile_memory_byte - machine.code_byte
    rooms = [n_tile * (room - longer * temporary_byte(c, machine)) for c in planned.costs]
    stream = stream_plan(planned.program, planned.tasks, rooms)
    pass_byte_per_s = min(n_aside, n_tile) * machine.exchange_byte_per_cycle * machine.clock_hz
    pass_s = tuple(
        (come + leave) / pass_byte_per_s if n_aside else 0.0
        for come, leave in zip(stream.in_byte, stream.out_byte, strict=True)
    )
    work_s = [longer * op.time_s + s for op, s in zip(planned.ops, pass_s, strict=True)]
    buffer_byte = n_aside * room
    line = timeline(work_s, stream.comes, stream.leaves, machine.stream_byte_per_s, buffer_byte)
    return _Try(planned, n_aside, buffer_byte, stream, line, pass_s)


def _on_memory(planned: Planned, buffer_byte: float) -> _Try:
    """Return how a plan streams through a part of the memory, beside the kernels."""
    machine = planned.machine
    room = machine.device_memory_byte - buffer_byte
    stream = stream_plan(planned.program, planned.tasks, [room] * len(planned.tasks))
    work_s = [op.time_s for op in planned.ops]
    line = timeline(work_s, stream.comes, stream.leaves, machine.stream_byte_per_s, buffer_byte)
    return _Try(planned, 0, buffer_byte, stream, line, (0.0,) * len(work_s))


def _streaming(tried: _Try, machine: Machine) -> Streaming:
    stream, line = tried.stream, tried.line
    storages = tried.planned.program.storages
    owners = sorted(((storages[k].name, float(storages[k].byte)) for k in stream.outside),
                    key=lambda owner: -owner[1])  # fmt: skip
    transfer_s = sum(t.length_s for t in line.transfers)
    return Streaming(
        in_byte=sum(stream.in_byte),
        out_byte=sum(stream.out_byte),
        transfer_s=transfer_s,
        hidden_s=max(0.0, transfer_s - sum(line.wait_s) - line.tail_s),
        n_tile_aside=tried.n_aside,
        buffer_byte=tried.buffer_byte,
        outside_byte=stream.outside_byte,
        capacity_byte=machine.stream_byte,
        owners=tuple(owners[:N_TENANT]),
        transfers=line.transfers,
    )


def _ops(tried: _Try, machine: Machine) -> tuple[OpCost, ...]:
    """Return the ops with their waits; the last one also waits for what is still to be sent."""
    stream, line, planned = tried.stream, tried.line, tried.planned
    n_tile, _, code_byte = per_tile(planned.machine)
    ops = []
    for i, op in enumerate(planned.ops):
        tail_s = line.tail_s if i + 1 == len(planned.ops) else 0.0
        wait_s, pass_s = line.wait_s[i] + tail_s, tried.pass_s[i]
        byte = stream.in_byte[i] + stream.out_byte[i]
        passed_byte = byte if tried.n_aside else 0.0
        energy_j = dict(op.energy_j)
        energy_j["off_chip"] += byte * machine.off_chip_pj_per_byte * 1e-12
        energy_j["exchange"] += passed_byte * machine.exchange_pj_per_byte * 1e-12
        parts_s = {part: op.parts_s.get(part, 0.0) for part in ("off_chip", "exchange")}
        parts_s["off_chip"] += wait_s
        parts_s["exchange"] += pass_s
        held_byte = stream.held_byte[i] / n_tile
        if isinstance(planned.machine, TileMachine):
            held_byte += temporary_byte(planned.costs[i], machine) + code_byte
        else:
            held_byte += tried.buffer_byte
        ops.append(
            replace(
                op,
                time_s=op.time_s + wait_s + pass_s,
                parts_s={part: s for part, s in {**op.parts_s, **parts_s}.items() if s},
                energy_j=energy_j,
                exchange_byte=op.exchange_byte + passed_byte,
                off_chip_byte=op.off_chip_byte + byte,
                memory_byte=held_byte,
                binds="off_chip" if wait_s > op.time_s else op.binds,
                supersteps=_supersteps(op, (line.wait_s[i], pass_s, tail_s), byte, tried),
            )
        )
    return tuple(ops)


def _supersteps(
    op: OpCost, times_s: tuple[float, float, float], byte: float, tried: _Try
) -> tuple[Superstep, ...]:
    """Return an op's phases, on a machine that has phases, with wait, passing on and tail."""
    machine = tried.planned.machine
    if not isinstance(machine, TileMachine):
        return op.supersteps
    wait, passing, tail = (seconds * machine.clock_hz for seconds in times_s)
    moved = {"sent_byte": byte, "received_byte": byte}
    waiting = {} if tried.n_aside else moved
    n_all = machine.n_tile + tried.n_aside
    before = (
        Superstep("exchange", wait, "waiting for tensors", "off_chip", **waiting, n_tile=n_all),
        Superstep("exchange", passing, "by the tiles set aside", "exchange", **moved, n_tile=n_all),
    )
    after = Superstep("exchange", tail, "tensors written back", "off_chip", n_tile=n_all)
    kept = [step for step in before if step.cycles]
    return (*kept, *op.supersteps, *([after] if after.cycles else []))
