"""The one door to running a planned product."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from core.errors import ConfigError, ShapeError
from hw.execute.dense import execute_dense
from hw.execute.ledger import Execution
from hw.machine import Machine, TileMachine
from hw.work import Contraction


def execute(item: Contraction, machine: Machine, left: ArrayLike, right: ArrayLike) -> Execution:
    """Run the plan that `hw.targets.cost_item` charges for `item`, tile by tile.

    Bytes and cycles are counted from the entries that really move and the vertices that really
    run, so that they can be compared with the supersteps of the charged cost.

    Parameters
    ----------
    item : Contraction
    machine : TileMachine
    left, right : array
        [batch, m, k] and [batch, k, n].

    Returns
    -------
    Execution
        With the product [batch, m, n].

    Raises
    ------
    ConfigError
        If the machine has no tiles.
    ShapeError
        If an operand has another shape than the item says.
    """
    if not isinstance(machine, TileMachine):
        raise ConfigError(f"execute: {machine.name} is a {machine.kind} machine, not one of tiles")
    expected = {
        "left": (item.batch, item.m, item.k),
        "right": (item.batch, item.k, item.n),
    }
    arrays = {
        name: np.asarray(value, dtype=np.float64)
        for name, value in (("left", left), ("right", right))
    }
    for name, shape in expected.items():
        if arrays[name].shape != shape:
            raise ShapeError(f"execute: {name} must be {shape}, got {arrays[name].shape}")
    return execute_dense(item, machine, arrays["left"], arrays["right"])
