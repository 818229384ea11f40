"""One door: the cost of any item of work on any machine, remembered."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable

from hw.item import ItemCost
from hw.machine import GpuMachine, Machine, SystolicMachine, TileMachine
from hw.targets.gpu import cost_on_gpu
from hw.targets.systolic import cost_on_systolic
from hw.targets.tile import cost_on_tiles
from hw.work import Attention, Pointwise, SparseContraction, Work

#: Plans kept; a training step has some hundred distinct items.
N_REMEMBERED = 16_384
_remembered: OrderedDict[tuple[Work, Machine, bytes], ItemCost] = OrderedDict()


def cost_item(item: Work, machine: Machine) -> ItemCost:
    """Return time, energy and memory of `item` on `machine`, by its best plan.

    Parameters
    ----------
    item : Work
        Any item of `hw.work`.
    machine : Machine
        From `hw.load_machine`.

    Raises
    ------
    MachineError
        If the machine has neither a rate nor a substitute for one of the item's formats.
    """
    key = (item, machine, _pattern_digest(item))
    cost = _remembered.get(key)
    if cost is None:
        cost = _cost(item, machine)
        _remembered[key] = cost
        if len(_remembered) > N_REMEMBERED:
            _remembered.popitem(last=False)
    return cost


def expanded(items: Iterable[Work], machine: Machine) -> tuple[Work, ...]:
    """Return the items of one op that are planned one by one.

    Attention is one item on a GPU alone. Where one kernel runs an op, a bias is added as its
    product is written, and is no item.
    """
    if not isinstance(machine, TileMachine):
        items = [i for i in items if not (isinstance(i, Pointwise) and i.is_bias)]
    if isinstance(machine, GpuMachine):
        return tuple(items)
    return tuple(part for i in items for part in (i.parts if isinstance(i, Attention) else (i,)))


def _cost(item: Work, machine: Machine) -> ItemCost:
    if isinstance(machine, TileMachine):
        return cost_on_tiles(item, machine)
    if isinstance(machine, GpuMachine):
        return cost_on_gpu(item, machine)
    if isinstance(machine, SystolicMachine):
        return cost_on_systolic(item, machine)
    raise TypeError(f"cost_item: no target for a {type(machine).__name__}")


def _pattern_digest(item: Work) -> bytes:
    """Tell items with equal counts and different patterns apart."""
    if not isinstance(item, SparseContraction) or item.row_index is None:
        return b""
    digest = hashlib.sha256(item.row_index.tobytes())
    if item.col_index is not None:
        digest.update(item.col_index.tobytes())
    return digest.digest()
