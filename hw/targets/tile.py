"""The tile machine: each kind of work to its planner."""

from __future__ import annotations

from hw.item import ItemCost, joined
from hw.machine import TileMachine
from hw.plan import vector
from hw.plan.dense import plan_contraction
from hw.plan.dynamic import plan_dynamic
from hw.plan.fourier import plan_fourier
from hw.plan.lookup import plan_gather, plan_scatter
from hw.plan.sparse import plan_static
from hw.work import (
    Attention,
    Contraction,
    Fourier,
    Fused,
    Gather,
    HostRead,
    Move,
    Pointwise,
    Reduction,
    Scatter,
    Softmax,
    SparseContraction,
    Work,
)


def cost_on_tiles(item: Work, machine: TileMachine) -> ItemCost:
    """Return the cost of `item` by the quickest plan that fits in the tiles' memory."""
    match item:
        case Contraction():
            return plan_contraction(item, machine)
        case SparseContraction():
            # the weight gradient on live blocks needs no buckets: its pattern is that of the output
            if item.mode == "dynamic" and item.product != "sddmm":
                return plan_dynamic(item, machine)
            return plan_static(item, machine)
        case Pointwise():
            return vector.plan_pointwise(item, machine)
        case Fused():
            return vector.plan_fused(item, machine)
        case Reduction():
            return vector.plan_reduction(item, machine)
        case Softmax():
            return vector.plan_softmax(item, machine)
        case Gather():
            return plan_gather(item, machine)
        case Scatter():
            return plan_scatter(item, machine)
        case Fourier():
            return plan_fourier(item, machine)
        case Move():
            return vector.plan_move(item, machine)
        case Attention():
            return joined([cost_on_tiles(part, machine) for part in item.parts])
        case HostRead():
            return vector.plan_host_read(item, machine)
