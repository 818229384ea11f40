"""A dense product, tile by tile, as `hw.plan.dense` spreads it."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

from hw.execute.ledger import Array, Execution, Ledger, Moved, Pieces, rounded
from hw.machine import TileMachine
from hw.plan.dense import BLOCK, choose_dense, matrix_cycles, vertex_cycles
from hw.plan.formats import compute_format, stored_byte
from hw.work import Contraction


def execute_dense(item: Contraction, machine: TileMachine, a: Array, b: Array) -> Execution:
    """Run the plan of ``a[batch, m, k] @ b[batch, k, n]``.

    Operands are rounded to their formats and to the machine's. The matrix unit adds the products
    of one block of inputs in full and rounds the running sum after each block; partial sums of
    several tiles are added in the order of their tiles, rounded after each.
    """
    plan, cost = choose_dense(item, machine)
    format = compute_format(machine, item.a_format, item.b_format)
    a, b = rounded(a, item.a_format, format), rounded(b, item.b_format, format)
    held_byte, other_byte = (stored_byte(machine, f) for f in (item.a_format, item.b_format))
    other_byte /= item.window
    if plan.swapped:
        a, b = b.transpose(0, 2, 1), a.transpose(0, 2, 1)
        held_byte, other_byte = other_byte, held_byte
    byte = stored_byte(machine, format)
    shape = (plan.p_batch, plan.p_m, plan.p_n, plan.p_k)
    tile_at = np.arange(np.prod(shape)).reshape(shape)
    batches, ms, ns, ks = (
        np.array_split(np.arange(size), p)
        for size, p in zip((a.shape[0], a.shape[1], b.shape[2], a.shape[2]), shape, strict=True)
    )
    places = list(product(*(range(p) for p in shape)))
    ledger = Ledger(machine)
    ledger.compute("start", machine.product_start_cycle, part="launch")

    moved = Moved(machine)
    held = {}
    for i, j, s in product(*(range(p) for p in (plan.p_batch, plan.p_m, plan.p_k))):
        block = Pieces(a[np.ix_(batches[i], ms[j], ks[s])], plan.p_n)
        held[i, j, s] = block.assemble(tile_at[i, j, :, s], held_byte, *moved.counts)
    ledger.exchange("weights to the tiles", *moved.counts, shared=float(plan.p_n % 2 == 0))

    result = np.zeros((a.shape[0], a.shape[1], b.shape[2]))
    for step in range(plan.n_step):
        columns = [n[step * plan.step_column : (step + 1) * plan.step_column] for n in ns]
        moved = Moved(machine)
        streamed = {}
        for i, c, s in product(*(range(p) for p in (plan.p_batch, plan.p_n, plan.p_k))):
            block = Pieces(b[np.ix_(batches[i], ks[s], columns[c])], plan.p_m)
            streamed[i, c, s] = block.assemble(tile_at[i, :, c, s], other_byte, *moved.counts)
        ledger.exchange("inputs to the tiles", *moved.counts, shared=float(plan.p_m % 2 == 0))

        vertex = vertex_cycles(machine)
        arrange, multiply = np.zeros((2, machine.n_tile))
        partial = {}
        for place in places:
            i, j, c, s = place
            left, right = held[i, j, s], streamed[i, c, s]
            tile = tile_at[place]
            arrange[tile] = vertex + (
                right.size * other_byte / machine.load_interleaved_byte_per_cycle
            )
            sizes = (np.asarray(float(x)) for x in (*left.shape[1:], right.shape[2]))
            one = matrix_cycles(machine, format, *sizes)
            multiply[tile] = vertex + len(left) * one
            partial[place] = _multiply(left, right, format)
        ledger.compute("arrange the inputs", arrange, part="move")
        ledger.compute("products", multiply)
        _reduce(ledger, partial, tile_at, byte, format, result, (batches, ms, columns))
    if plan.swapped:
        result = result.transpose(0, 2, 1)
    return ledger.execution(rounded(result, format), cost.plan, tile_at.size)


def _multiply(left: Array, right: Array, format: str) -> Array:
    """Return ``left @ right``, the running sum rounded after each block of inputs."""
    total = np.zeros((len(left), left.shape[1], right.shape[2]))
    for start in range(0, left.shape[2], BLOCK):
        stop = start + BLOCK
        total = rounded(total + left[:, :, start:stop] @ right[:, start:stop], format)
    return total


def _reduce(
    ledger: Ledger,
    partial: dict[tuple[int, ...], Array],
    tile_at: NDArray[np.int64],
    byte: float,
    format: str,
    result: Array,
    where: tuple[list[NDArray[np.int64]], ...],
) -> None:
    """Add the partial sums of the tiles that share results, each tile an equal piece of them."""
    machine, p_k = ledger.machine, tile_at.shape[3]
    received, sent, add, arrange = np.zeros((4, machine.n_tile))
    vertex = vertex_cycles(machine)
    for i, j, c in product(*(range(p) for p in tile_at.shape[:3])):
        pieces = [np.array_split(partial[i, j, c, s].ravel(), p_k) for s in range(p_k)]
        done = []
        for s, tile in enumerate(tile_at[i, j, c]):
            total = pieces[0][s]
            size = total.size * byte
            for other in range(1, p_k):
                total = rounded(total + pieces[other][s], format)
            done.append(total)
            received[tile] = (p_k - 1) * size
            sent[tile_at[i, j, c]] += size
            sent[tile] -= size
            add[tile] = vertex + p_k * size / machine.load_byte_per_cycle
            arrange[tile] = vertex + size / machine.load_byte_per_cycle
        shape = partial[i, j, c, 0].shape
        result[np.ix_(where[0][i], where[1][j], where[2][c])] = np.concatenate(done).reshape(shape)
    if p_k > 1:
        ledger.exchange("partial sums", received, sent, n_fragment=p_k - 1)
        ledger.compute("reduction", add)
    ledger.compute("arrange the result", arrange, part="move")
