"""The one door to running a planned product."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from core.errors import ConfigError, ShapeError
from hw.execute.dense import execute_dense
from hw.execute.ledger import Execution
from hw.execute.sparse import execute_static
from hw.machine import Machine, TileMachine
from hw.work import Contraction, SparseContraction


def execute(
    item: Contraction | SparseContraction, machine: Machine, left: ArrayLike, right: ArrayLike
) -> Execution:
    """Run the plan that `hw.targets.cost_item` charges for `item`, tile by tile.

    Bytes and cycles are counted from the entries that really move and the vertices that really
    run, so that they can be compared with the supersteps of the charged cost.

    Parameters
    ----------
    item : Contraction or SparseContraction
        The latter with a real, static pattern.
    machine : TileMachine
    left, right : array
        A dense product: [batch, m, k] and [batch, k, n]. ``spmm``: live blocks
        [block, br, bc] and X[cols, n]. ``spmm_t``: live blocks and Y[rows, n]. ``sddmm``:
        Y[rows, n] and X[cols, n].

    Returns
    -------
    Execution
        With the product [batch, m, n]; Y[rows, n]; X[cols, n]; live blocks [block, br, bc].

    Raises
    ------
    ConfigError
        If the machine has no tiles, or a sparse item no pattern, or a dynamic one.
    ShapeError
        If an operand has another shape than the item says.
    """
    if not isinstance(machine, TileMachine):
        raise ConfigError(f"execute: {machine.name} is a {machine.kind} machine, not one of tiles")
    left, right = (np.asarray(value, dtype=np.float64) for value in (left, right))
    for name, array, shape in zip(("left", "right"), (left, right), _shapes(item), strict=True):
        if array.shape != shape:
            raise ShapeError(f"execute: {name} must be {shape}, got {array.shape}")
    if isinstance(item, Contraction):
        return execute_dense(item, machine, left, right)
    if item.mode != "static":
        raise ConfigError("execute: only static patterns can be run, got mode 'dynamic'")
    return execute_static(item, machine, left, right)


def _shapes(item: Contraction | SparseContraction) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if isinstance(item, Contraction):
        return (item.batch, item.m, item.k), (item.batch, item.k, item.n)
    blocks = (item.n_block, *item.block)
    return {
        "spmm": (blocks, (item.cols, item.n)),
        "spmm_t": (blocks, (item.rows, item.n)),
        "sddmm": ((item.rows, item.n), (item.cols, item.n)),
    }[item.product]
