"""The one door to running a planned product."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from core.errors import ConfigError, ShapeError
from hw.execute.dense import execute_dense
from hw.execute.dynamic import execute_dynamic
from hw.execute.ledger import Execution
from hw.execute.rows import execute_reduction, execute_scatter, execute_softmax
from hw.execute.sparse import execute_static
from hw.machine import Machine, TileMachine
from hw.plan.dynamic import choose_dynamic
from hw.work import Contraction, Reduction, Scatter, Softmax, SparseContraction


def execute(
    item: Contraction | SparseContraction | Reduction | Softmax | Scatter,
    machine: Machine,
    left: ArrayLike,
    right: ArrayLike | None = None,
) -> Execution:
    """Run the plan that `hw.targets.cost_item` charges for `item`, tile by tile.

    Bytes and cycles are counted from the entries that really move and the vertices that really
    run, so that they can be compared with the supersteps of the charged cost.

    Parameters
    ----------
    item : Contraction, SparseContraction, Reduction, Softmax or Scatter
        A sparse product with a real pattern.
    machine : TileMachine
    left, right : array
        A dense product: [batch, m, k] and [batch, k, n]. ``spmm``: live blocks
        [block, br, bc] and X[cols, n]. ``spmm_t``: live blocks and Y[rows, n]. ``sddmm``:
        Y[rows, n] and X[cols, n]. A reduction (a sum) and a row operation: X[row, entry] alone.
        A scatter: index [row] and X[row, entry].

    Returns
    -------
    Execution
        With the product [batch, m, n]; Y[rows, n]; X[cols, n]; live blocks [block, br, bc]; sums
        [n_out]; rows [row, entry]; sums by index [n_target, entry].

    Raises
    ------
    ConfigError
        If the machine has no tiles, or a sparse item no pattern.
    ShapeError
        If an operand has another shape than the item says.
    """
    if not isinstance(machine, TileMachine):
        raise ConfigError(f"execute: {machine.name} is a {machine.kind} machine, not one of tiles")
    shapes = _shapes(item)
    if (right is None) != (len(shapes) == 1):
        raise ShapeError(f"execute: a {type(item).__name__} takes {len(shapes)} operands")
    arrays = [np.asarray(value, dtype=np.float64) for value in (left, right) if value is not None]
    for name, array, shape in zip(("left", "right"), arrays, shapes, strict=False):
        if array.shape != shape:
            raise ShapeError(f"execute: {name} must be {shape}, got {array.shape}")
    match item:
        case Contraction():
            return execute_dense(item, machine, *arrays)
        case Reduction():
            return execute_reduction(item, machine, *arrays)
        case Softmax():
            return execute_softmax(item, machine, *arrays)
        case Scatter():
            index = arrays[0].astype(np.int64)
            if index.size and not 0 <= index.min() <= index.max() < item.n_target:
                raise ShapeError(
                    f"execute: left must lie in 0..{item.n_target - 1}, "
                    f"got {index.min()} to {index.max()}"
                )
            return execute_scatter(item, machine, index, arrays[1])
    if item.mode == "dynamic" and item.product != "sddmm":
        if not choose_dynamic(item, machine)[1].fits:
            raise ConfigError(
                f"execute: {item.n} dense columns do not fit in one step of a dynamic product on "
                f"{machine.name}; run them in several, as the charged plan does"
            )
        return execute_dynamic(item, machine, *arrays)
    return execute_static(item, machine, *arrays)


def _shapes(
    item: Contraction | SparseContraction | Reduction | Softmax | Scatter,
) -> tuple[tuple[int, ...], ...]:
    match item:
        case Contraction():
            return (item.batch, item.m, item.k), (item.batch, item.k, item.n)
        case Reduction():
            return ((item.n_out, item.n_reduced),)
        case Softmax():
            return ((item.n_row, item.n_col),)
        case Scatter():
            return (item.n_row,), (item.n_row, item.row_element)
    blocks = (item.n_block, *item.block)
    return {
        "spmm": (blocks, (item.cols, item.n)),
        "spmm_t": (blocks, (item.rows, item.n)),
        "sddmm": ((item.rows, item.n), (item.cols, item.n)),
    }[item.product]
