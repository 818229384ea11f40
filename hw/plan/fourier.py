"""Fourier transforms on a tile machine: by factors of their length, or as one dense product."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

import numpy as np

from hw.item import ItemCost
from hw.machine import TileMachine
from hw.plan.dense import plan_contraction, vertex_cycles
from hw.plan.formats import compute_format, stored_byte, substitutes
from hw.plan.phases import Candidates
from hw.work import Contraction, Fourier

#: Operations for each entry of a line in the pass that splits a packed real transform: four complex
#: additions and one complex product for every four entries.
SPLIT_FLOP = 3.5


def plan_fourier(item: Fourier, machine: TileMachine) -> ItemCost:
    """Take the quicker of a fast transform and a product with the transform's matrix."""
    return choose_fourier(item, machine)[1]


def choose_fourier(item: Fourier, machine: TileMachine) -> tuple[bool, ItemCost]:
    """Return whether the fast transform wins, and the cost, the other way as runner-up."""
    fast, product = _fast(item, machine), plan_contraction(as_product(item), machine)
    product = replace(product, plan=f"product with the transform's matrix, {product.plan}")
    is_fast = fast.fits >= product.fits and fast.time_s <= product.time_s
    best, other = (fast, product) if is_fast else (product, fast)
    return is_fast, replace(best, runner_up=(other.plan, other.time_s) if other.fits else None)


def as_product(item: Fourier) -> Contraction:
    """Return the product with the matrix of cosines and sines."""
    n_out = 2 * (item.length // 2 + 1)
    f = item.in_format
    return Contraction(1, n_out, item.length, item.batch, f, f, f)


@lru_cache(maxsize=4096)
def factors(n: int) -> tuple[int, ...]:
    """Return the prime factors of `n`, smallest first."""
    found, p = [], 2
    while p * p <= n:
        while n % p == 0:
            found.append(p)
            n //= p
        p += 1
    return (*found, n) if n > 1 else tuple(found)


def passes(length: int) -> tuple[tuple[int, float], ...]:
    """Return radix and operations for each entry of a line, of every pass over it.

    An even line is packed into half as many complex entries, and split at the end (radix 0). A
    butterfly of radix p takes p - 1 twiddle products, p (p - 1) complex additions and, above 2,
    (p - 1)^2 products more. Source: Cooley and Tukey 1965 (Math. Comput. 19, 297); packing as in
    Press et al., Numerical Recipes, section 12.3.
    """
    packs = length % 2 == 0
    found = []
    for p in factors(length // 2 if packs else length) or (() if packs else (1,)):
        flop = (6 * (p - 1) + 2 * p * (p - 1) + (6 * (p - 1) ** 2 if p > 2 else 0)) / p
        found.append((p, flop / 2 if packs else flop))
    return (*found, (0, SPLIT_FLOP)) if packs else tuple(found)


def fast_cycles(
    machine: TileMachine, format: str, byte: float, length: int, n_line: float
) -> float:
    """Return a tile's cycles for `n_line` lines: each pass reads and writes them once."""
    n_entry = n_line * length
    width = 1 if length % 2 == 0 else 2  # an odd line is taken as complex
    copy = width * n_entry * byte / machine.load_byte_per_cycle
    copy += width * n_entry * byte / machine.store_byte_per_cycle
    return sum(
        vertex_cycles(machine) + max(n_entry * flop / machine.vector_per_cycle[format], copy)
        for _, flop in passes(length)
    )


def _fast(item: Fourier, machine: TileMachine) -> ItemCost:
    """Charge lines spread evenly over the tiles.

    Before, the entries of one place in all lines lie side by side: a tile receives one piece for
    each place in its lines, but for those that it holds itself.
    """
    format = compute_format(machine, item.in_format)
    byte = stored_byte(machine, item.in_format)
    n_tile = min(item.batch, machine.n_tile)
    n_l = math.ceil(item.batch / n_tile)
    tile_byte, total = n_l * item.length * byte, item.batch * item.length * byte
    of_pass = passes(item.length)
    c = Candidates(machine, 1)
    c.n_tile = np.array([n_tile])
    c.exchange(
        "lines to the tiles",
        n_l * (item.length - item.length // n_tile) * byte,
        total * (1 - 1 / n_tile),
        n_fragment=item.length - item.length // n_tile,
    )
    c.compute(
        "fast Fourier transform",
        fast_cycles(machine, format, byte, item.length, n_l),
        local_byte=2 * len(of_pass) * total,
        pj=item.batch * item.length * sum(f for _, f in of_pass) * machine.vector_pj[format],
    )
    c.temporary_byte = np.array([2 * tile_byte])
    text = f"fast transform, {n_l} lines on each of {n_tile} tiles"
    text += substitutes(machine, item.in_format)
    fits = bool(c.temporary_byte[0] <= c.memory_bound())
    return c.item_cost(0, n_mac=0, plan=text, fits=fits)
