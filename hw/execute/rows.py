"""Reductions, row operations and attention, tile by tile, as planned."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hw.execute.dense import execute_dense
from hw.execute.ledger import Array, Execution, Ledger, Moved, rounded
from hw.machine import TileMachine
from hw.plan.formats import compute_format, stored_byte
from hw.plan.vector import (
    AGAIN,
    ROW_PASSES,
    choose_reduction,
    choose_softmax,
    combine_cycles,
    reduce_cycles,
    row_pass_cycles,
    tree,
)
from hw.work import Contraction, Reduction, Softmax

#: Added to a variance before its root is taken.
EPSILON = 1e-5


class Rows:
    """Rows [row, entry] spread over groups of tiles that share each row, reduced by a tree."""

    def __init__(self, machine: TileMachine, format: str, byte: float, shape: tuple[int, int],
                 split: int, ledger: Ledger) -> None:  # fmt: skip
        self.machine, self.format, self.byte, self.ledger = machine, format, byte, ledger
        n_group = min(shape[0], machine.n_tile // split)
        self.rows = np.array_split(np.arange(shape[0]), n_group)
        self.entries = np.array_split(np.arange(shape[1]), split)
        self.tile = np.arange(n_group * split).reshape(n_group, split)

    def reduce(
        self,
        x: Array,
        of: Callable[[Array, int], Array],
        again: str = "",
        cycles_of: Callable[[float], Array] | None = None,
    ) -> Array:
        """Return one number a row, each tile's piece and each partial result rounded.

        `cycles_of` gives a tile's cycles for so many entries, where they do not lie in memory.
        """
        machine, split = self.machine, len(self.entries)
        cycles = np.zeros(machine.n_tile)
        partial = np.zeros((x.shape[0], split))
        for g, rows in enumerate(self.rows):
            for s, entries in enumerate(self.entries):
                piece = x[np.ix_(rows, entries)]
                partial[rows, s] = rounded(of(piece, 1), self.format)
                cycles[self.tile[g, s]] = (
                    reduce_cycles(machine, self.format, self.byte, float(piece.size))
                    if cycles_of is None
                    else cycles_of(float(piece.size))
                )
        self.ledger.compute(f"reduce on the tiles{again}", cycles)
        fan_in = int(tree(np.array(float(split)))[0])
        heads = list(range(0, split, fan_in))
        stages = [
            ("partial results", [list(range(h, min(h + fan_in, split))) for h in heads]),
            ("second stage", [heads]),
        ]
        for label, groups in stages:
            moved, pieces, added = (
                Moved(machine),
                np.zeros(machine.n_tile),
                np.zeros(machine.n_tile),
            )
            for members in groups:
                for other in members[1:]:
                    partial[:, members[0]] = rounded(
                        of(partial[:, [members[0], other]], 1), self.format
                    )
                    for g, rows in enumerate(self.rows):
                        byte = rows.size * self.byte
                        moved.move(self.tile[g, other], self.tile[g, members[0]], byte)
                        pieces[self.tile[g, members[0]]] += 1
                for g, rows in enumerate(self.rows):
                    if len(members) > 1:
                        added[self.tile[g, members[0]]] = combine_cycles(
                            machine, self.format, self.byte, float(rows.size * len(members))
                        )
            self.ledger.exchange(f"{label}{again}", *moved.counts, n_fragment=pieces)
            self.ledger.compute(f"reduce: {label}{again}", added)
        return partial[:, 0]

    def every(self, label: str, kind: str, flop: float) -> None:
        """Enter a pass over all entries."""
        cycles = np.zeros(self.machine.n_tile)
        for g, rows in enumerate(self.rows):
            for s, entries in enumerate(self.entries):
                n_l = float(rows.size * entries.size)
                cycles[self.tile[g, s]] = row_pass_cycles(
                    self.machine, self.format, kind, flop, self.byte, n_l
                )
        self.ledger.compute(label, cycles)


def total(x: Array, axis: int) -> Array:
    """Return the sum."""
    return np.asarray(x.sum(axis=axis))


def largest(x: Array, axis: int) -> Array:
    """Return the maximum."""
    return np.asarray(x.max(axis=axis))


def execute_reduction(item: Reduction, machine: TileMachine, x: Array) -> Execution:
    """Sum the rows of x[n_out, n_reduced]."""
    split, cost = choose_reduction(item, machine)
    format, byte = compute_format(machine, item.in_format), stored_byte(machine, item.in_format)
    ledger = Ledger(machine)
    rows = Rows(machine, format, byte, x.shape, split, ledger)
    result = rows.reduce(rounded(x, item.in_format, format), total)
    return ledger.execution(result, cost.plan, rows.tile.size)


def execute_softmax(item: Softmax, machine: TileMachine, x: Array) -> Execution:
    """Normalise the rows of x[n_row, n_col]: softmax, or zero mean and unit variance."""
    split, cost = choose_softmax(item, machine)
    format, byte = compute_format(machine, item.in_format), stored_byte(machine, item.in_format)
    ledger = Ledger(machine)
    rows = Rows(machine, format, byte, x.shape, split, ledger)
    x = rounded(x, item.in_format, format)
    if item.kind == "softmax":
        y = rounded(np.exp(x - rows.reduce(x, largest)[:, None]), format)
        scale = 1 / rows.reduce(y, total, AGAIN)
    else:
        mean = rounded(rows.reduce(x, total) / item.n_col, format)
        y = rounded(x - mean[:, None], format)
        variance = rows.reduce(rounded(y * y, format), total, AGAIN) / item.n_col
        scale = 1 / np.sqrt(variance + EPSILON)
    for label, kind, flop in ROW_PASSES[item.kind]:
        rows.every(label, kind, flop)
    result = rounded(y * rounded(scale, format)[:, None], format)
    return ledger.execution(result, cost.plan, rows.tile.size)


def execute_attention(
    machine: TileMachine, format: str, q: Array, k: Array, v: Array
) -> tuple[Array, list[Execution]]:
    """Run softmax(q k^T / sqrt(d)) v on [batch, token, d] as its three planned items.

    Returns
    -------
    NDArray, float64 [batch, query, d_value]
    list of Execution
        Scores, softmax, weighted sum.
    """
    batch, n_query, d = q.shape
    n_key, d_value = k.shape[1], v.shape[2]
    f = format
    scores = execute_dense(
        Contraction(batch, n_query, d, n_key, f, f, f),
        *(machine, rounded(q / np.sqrt(d), f), k.transpose(0, 2, 1)),
    )
    weights = execute_softmax(
        Softmax(batch * n_query, n_key, f), machine, scores.result.reshape(-1, n_key)
    )
    mixed = execute_dense(
        Contraction(batch, n_query, n_key, d_value, f, f, f),
        *(machine, weights.result.reshape(batch, n_query, n_key), v),
    )
    return mixed.result, [scores, weights, mixed]
