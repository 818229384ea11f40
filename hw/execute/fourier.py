"""Fourier transforms of real lines, tile by tile, as planned."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hw.execute.dense import execute_dense
from hw.execute.ledger import Array, Execution, Ledger, rounded
from hw.machine import TileMachine
from hw.plan.formats import compute_format, stored_byte
from hw.plan.fourier import as_product, choose_fourier, factors, fast_cycles
from hw.work import Fourier

Complex = NDArray[np.complex128]


def execute_fourier(item: Fourier, machine: TileMachine, x: Array) -> Execution:
    """Transform the lines of x[batch, length] forward into [batch, length // 2 + 1, 2].

    Twiddle factors and, after each pass, both parts of each entry are rounded to the machine's
    format. The last axis holds real and imaginary part.
    """
    is_fast, cost = choose_fourier(item, machine)
    format = compute_format(machine, item.in_format)
    if not is_fast:
        angle = -2 * np.pi / item.length * np.arange(item.length)
        wave = np.exp(1j * np.outer(np.arange(item.length // 2 + 1), angle))
        matrix = np.stack([wave.real, wave.imag], axis=1).reshape(1, -1, item.length)
        done = execute_dense(as_product(item), machine, matrix, x.T[None])
        result = done.result[0].T.reshape(item.batch, -1, 2)
        return Execution(result, done.supersteps, done.received_byte, done.sent_byte, cost.plan)
    byte, ledger = stored_byte(machine, item.in_format), Ledger(machine)
    n_tile = min(item.batch, machine.n_tile)
    lines = np.array_split(np.arange(item.batch), n_tile)
    x = rounded(x, item.in_format, format)
    # before, the entries of one place in all lines lie side by side
    home = np.repeat(
        np.arange(n_tile), [len(r) for r in np.array_split(np.arange(x.size), n_tile)]
    ).reshape(item.length, item.batch)
    received, sent, pieces, cycles = np.zeros((4, machine.n_tile))
    result = np.zeros((item.batch, item.length // 2 + 1, 2))
    for tile, of_tile in enumerate(lines):
        source = home[:, of_tile]
        come = source[source != tile]
        received[tile], pieces[tile] = come.size * byte, (source != tile).any(axis=1).sum()
        sent[:n_tile] += np.bincount(come, minlength=n_tile) * byte
        spectrum = real_transform(x[of_tile], format)
        result[of_tile] = np.stack([spectrum.real, spectrum.imag], axis=2)
        cycles[tile] = fast_cycles(machine, format, byte, item.length, of_tile.size)
    ledger.exchange("lines to the tiles", received, sent, n_fragment=pieces)
    ledger.compute("fast Fourier transform", cycles)
    return ledger.execution(result, cost.plan, n_tile)


def real_transform(x: Array, format: str) -> Complex:
    """Return the transform of real lines x[line, length], complex [line, length // 2 + 1]."""
    length = x.shape[1]
    if length % 2:
        return _transform(x.astype(np.complex128), format)[:, : length // 2 + 1]
    half = length // 2
    z = _transform(x[:, 0::2] + 1j * x[:, 1::2], format)
    z = np.concatenate([z, z[:, :1]], axis=1)
    mirrored = z[:, ::-1].conj()
    odd = _round(_twiddle(np.arange(half + 1), length, format) * (z - mirrored), format)
    return _round((z + mirrored) / 2 - 0.5j * odd, format)


def _transform(x: Complex, format: str) -> Complex:
    """Return the transform of lines x[line, n], pass by pass over the prime factors of n."""
    n = x.shape[1]
    if n == 1:
        return x
    radix = factors(n)[0]
    m = n // radix
    lines = x.reshape(-1, m, radix).transpose(0, 2, 1).reshape(-1, m)
    parts = _transform(lines, format).reshape(len(x), radix, m)
    j, k = np.arange(radix), np.arange(m)
    parts = parts * _twiddle(np.outer(j, k), n, format)
    butterfly = _twiddle(np.outer(j, j), radix, format)
    return _round(np.einsum("qj,ljk->lqk", butterfly, parts), format).reshape(len(x), n)


def _twiddle(power: NDArray[np.int64], n: int, format: str) -> Complex:
    return _round(np.exp(-2j * np.pi * power / n), format)


def _round(x: Complex, format: str) -> Complex:
    return rounded(x.real, format) + 1j * rounded(x.imag, format)
