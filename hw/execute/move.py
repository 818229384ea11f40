"""Copies, fills and rearrangements, byte by byte, as planned."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw.execute.ledger import Execution, Ledger
from hw.machine import TileMachine
from hw.plan.vector import move_cycles, plan_move, tiles_for
from hw.work import Move


def execute_move(item: Move, machine: TileMachine, x: NDArray[Any]) -> Execution:
    """Copy `x`, fill with the one entry `x`, or transpose x[row, column]; bits stay as they are.

    Each tile holds an equal run of the bytes, before and after.
    """
    cost, n_tile = plan_move(item, machine), tiles_for(item.n_byte / 4, machine)
    ledger = Ledger(machine)
    if item.kind == "fill":
        x = np.full(item.n_byte // x.itemsize, x)
    byte = np.ascontiguousarray(x).reshape(-1).view(np.uint8)
    source, shape = np.arange(item.n_byte), x.shape
    if item.kind in ("rearrange", "reorder"):
        source = source.reshape(*x.shape, x.itemsize).transpose(1, 0, 2).ravel()
        shape = (x.shape[1], x.shape[0])
    shares = np.array_split(np.arange(item.n_byte), n_tile)
    home = np.repeat(np.arange(n_tile), [share.size for share in shares])
    received, sent, cycles = np.zeros((3, machine.n_tile))
    pieces = []
    for tile, share in enumerate(shares):
        wanted = source[share]
        come = home[wanted][home[wanted] != tile]
        received[tile] = come.size
        sent[:n_tile] += np.bincount(come, minlength=n_tile)
        pieces.append(byte[wanted])
        cycles[tile] = move_cycles(machine, item.kind, float(share.size))
    ledger.exchange("bytes to their tiles", received, sent)
    ledger.compute(item.kind, cycles, part="move")
    result = np.concatenate(pieces).view(x.dtype).reshape(shape)
    return ledger.execution(result, cost.plan, n_tile)
