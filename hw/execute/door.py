"""The one door to running planned work."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from core.errors import ConfigError, ShapeError
from hw.execute.dense import execute_dense
from hw.execute.dynamic import execute_dynamic
from hw.execute.fourier import execute_fourier
from hw.execute.ledger import Execution
from hw.execute.lookup import execute_gather, execute_scatter
from hw.execute.move import execute_move
from hw.execute.pointwise import Function, execute_fused
from hw.execute.rows import execute_attention, execute_reduction, execute_softmax
from hw.execute.sparse import execute_static
from hw.machine import Machine, TileMachine
from hw.work import (
    Attention,
    Contraction,
    Fourier,
    Fused,
    Gather,
    Move,
    Pointwise,
    Reduction,
    Scatter,
    Softmax,
    SparseContraction,
    Work,
)


def execute(
    item: Work,
    machine: Machine,
    *operands: ArrayLike,
    function: Function | Sequence[Function] | None = None,
) -> Execution:
    """Run the plan that `hw.targets.cost_item` charges for `item`, tile by tile.

    Bytes and cycles are counted from the entries that really move and the vertices that really
    run, so that they can be compared with the supersteps of the charged cost.

    Parameters
    ----------
    item : Work
        Anything but a `HostRead`; a sparse product with a real pattern.
    machine : TileMachine
    *operands : array
        A dense product: [batch, m, k] and [batch, k, n]. ``spmm``: live blocks
        [block, br, bc] and X[cols, n]. ``spmm_t``: live blocks and Y[rows, n]. ``sddmm``:
        Y[rows, n] and X[cols, n]. A reduction (a sum) and a row operation: X[row, entry] alone.
        A gather and a scatter: index [row] and X[row, entry]. A Fourier transform: X[batch,
        length]. Attention, forward: Q[batch, query, d], K[batch, key, d], V[batch, key, d_value].
        Pointwise work and chains: `n_input` operands of each step in order, [entry], or
        [n_out, n_reduced] before a reduction. A move: entries of any type, `n_byte` in all, [row,
        column] for a transposition, one entry [] for a fill.
    function : callable or sequence of callable
        Of pointwise work and chains: what each step does to its operands, entry by entry; a later
        step gets the result of the one before first.

    Returns
    -------
    Execution
        With the product [batch, m, n]; Y[rows, n]; X[cols, n]; live blocks [block, br, bc]; sums
        [n_out]; rows [row, entry]; rows by index [n_row, entry]; sums by index [n_target, entry];
        spectra [batch, length // 2 + 1, 2] of real and imaginary parts; mixed values [batch,
        query, d_value]; entries; sums of them.

    Raises
    ------
    ConfigError
        If the machine has no tiles, a sparse item no pattern, pointwise work no function.
    ShapeError
        If an operand has another shape than the item says.
    """
    if not isinstance(machine, TileMachine):
        raise ConfigError(f"execute: {machine.name} is a {machine.kind} machine, not one of tiles")
    item = Fused((item,)) if isinstance(item, Pointwise) else item
    if isinstance(item, Move):
        return execute_move(item, machine, _moved(item, operands))
    shapes = _shapes(item)
    if len(operands) != len(shapes):
        raise ShapeError(
            f"execute: a {type(item).__name__} takes {len(shapes)} operands, got {len(operands)}"
        )
    arrays = [np.asarray(value, dtype=np.float64) for value in operands]
    for i, (array, shape) in enumerate(zip(arrays, shapes, strict=True)):
        if array.shape != shape:
            raise ShapeError(f"execute: {_name(i)} must be {shape}, got {array.shape}")
    match item:
        case Fused():
            return execute_fused(item, machine, arrays, _functions(item, function))
        case Contraction():
            return execute_dense(item, machine, *arrays)
        case Reduction():
            return execute_reduction(item, machine, *arrays)
        case Softmax():
            return execute_softmax(item, machine, *arrays)
        case Attention():
            return _joined(execute_attention(machine, item.format, *arrays))
        case Fourier():
            return execute_fourier(item, machine, *arrays)
        case Gather():
            index = _index(arrays[0], item.n_source)
            return execute_gather(item, machine, index, arrays[1])
        case Scatter():
            index = _index(arrays[0], item.n_target)
            return execute_scatter(item, machine, index, arrays[1])
    assert isinstance(item, SparseContraction)
    if item.mode == "dynamic" and item.product != "sddmm":
        return execute_dynamic(item, machine, *arrays)
    return execute_static(item, machine, *arrays)


def _name(i: int) -> str:
    return ("left", "right")[i] if i < 2 else f"operand {i + 1}"


def _shapes(item: Work) -> tuple[tuple[int, ...], ...]:
    match item:
        case Contraction():
            return (item.batch, item.m, item.k), (item.batch, item.k, item.n)
        case Reduction():
            return ((item.n_out, item.n_reduced),)
        case Softmax():
            return ((item.n_row, item.n_col),)
        case Attention(is_backward=False):
            keys = (item.batch, item.n_key)
            return (item.batch, item.n_query, item.d), (*keys, item.d), (*keys, item.d_value)
        case Fourier():
            return ((item.batch, item.length),)
        case Gather():
            return (item.n_row,), (item.n_source, item.row_element)
        case Scatter():
            return (item.n_row,), (item.n_row, item.row_element)
        case Fused():
            shape: tuple[int, ...] = (item.steps[-1].n_element,)
            if item.reduction is not None:
                shape = (item.reduction.n_out, item.reduction.n_reduced)
            return (shape,) * sum(step.n_input for step in item.steps)
        case SparseContraction():
            blocks = (item.n_block, *item.block)
            return {
                "spmm": (blocks, (item.cols, item.n)),
                "spmm_t": (blocks, (item.rows, item.n)),
                "sddmm": ((item.rows, item.n), (item.cols, item.n)),
            }[item.product]
    raise ConfigError(
        f"execute: a {type(item).__name__} has nothing to compute, or is run by its parts"
    )


def _joined(run: tuple[np.ndarray, list[Execution]]) -> Execution:
    """Return parts that ran one after another as one."""
    result, parts = run
    return Execution(
        result,
        tuple(step for part in parts for step in part.supersteps),
        np.sum([part.received_byte for part in parts], axis=0),
        np.sum([part.sent_byte for part in parts], axis=0),
        "; ".join(part.plan for part in parts),
    )


def _moved(item: Move, operands: tuple[ArrayLike, ...]) -> np.ndarray:
    """Return the one operand of a move if it is what the item says."""
    if len(operands) != 1:
        raise ShapeError(f"execute: a Move takes 1 operands, got {len(operands)}")
    x = np.asarray(operands[0])
    rank = {"fill": 0, "rearrange": 2, "reorder": 2}.get(item.kind, x.ndim)
    if x.ndim != rank:
        raise ShapeError(f"execute: left must have {rank} axes for a {item.kind}, got {x.shape}")
    if x.nbytes != item.n_byte and (item.kind != "fill" or item.n_byte % x.itemsize):
        raise ShapeError(f"execute: left must hold {item.n_byte} byte, got {x.nbytes} ({x.dtype})")
    return x


def _functions(item: Fused, function: Function | Sequence[Function] | None) -> Sequence[Function]:
    functions = [function] if callable(function) else list(function or ())
    if len(functions) != len(item.steps):
        raise ConfigError(
            f"execute: pointwise work of {len(item.steps)} steps needs as many functions, got "
            f"{len(functions)}; give function=numpy.add or the like"
        )
    return functions


def _index(values: np.ndarray, n: int) -> np.ndarray:
    index = values.astype(np.int64)
    if index.size and not 0 <= index.min() <= index.max() < n:
        raise ShapeError(
            f"execute: left must lie in 0..{n - 1}, got {index.min()} to {index.max()}"
        )
    return index
