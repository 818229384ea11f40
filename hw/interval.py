"""How far a prediction may be off: errors seen on held-out measurements, by kind of operation.

Each kind carries the 90th percentile of |predicted / measured - 1| over measurements that the
calibration left out, and the sizes that were measured. Outside those sizes, and for kinds that were
never measured by themselves, the interval is wider: by half for each factor of four in a size, and
by half for a kind. On a machine of the user's own, of which nothing was measured, it is three times
as wide. `tessera hw validate` prints the figures that stand here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from hw.machine import GpuMachine, Machine, TileMachine, machine_names
from hw.work import Contraction, Fused, Pointwise, Softmax, SparseContraction, Work

#: How much wider it is on a machine that does not ship with the package: on the one that was tried
#: (tests/hw/test_new_machine.py) the 90th percentiles are two to four times those of the A100.
UNSEEN_MACHINE = 3.0
#: The widest interval that is stated: a factor of four either way.
WIDEST = 0.75


_SHIPPED = frozenset(machine_names())


@dataclass(frozen=True)
class Seen:
    """Held-out error of one kind of operation, and the range of each size that was measured."""

    error: float
    sizes: Mapping[str, tuple[float, float]]


_PRODUCT = {"rows": (1024, 8192), "depth": (1024, 8192)}
#: By kind of machine and of operation.
SEEN: dict[tuple[str, str], Seen] = {
    ("tile", "dense"): Seen(0.10, {**_PRODUCT, "columns": (4, 32768)}),
    ("tile", "static"): Seen(
        0.20, {**_PRODUCT, "columns": (16, 4096), "density": (1 / 32, 1 / 4), "block": (1, 16)}
    ),
    ("tile", "dynamic"): Seen(
        0.27, {**_PRODUCT, "columns": (16, 65536), "density": (1 / 32, 1 / 4), "block": (1, 16)}
    ),
    ("gpu", "dense"): Seen(
        0.19, {"rows": (64, 32768), "depth": (64, 32768), "columns": (16, 32768)}
    ),
    ("gpu", "softmax"): Seen(0.12, {"rows": (32, 32768), "columns": (32, 32768)}),
    ("gpu", "layer_norm"): Seen(0.11, {"rows": (32, 32768), "columns": (32, 32768)}),
    ("gpu", "pointwise"): Seen(0.08, {"entries": (1024, 1.1e9)}),
}


def error_of(item: Work, machine: Machine) -> tuple[float, str]:
    """Return the relative error to expect nine times in ten, and what lies outside the measured.

    Parameters
    ----------
    item : Work
    machine : Machine

    Returns
    -------
    float
        At most `WIDEST`.
    str
        Empty inside the calibrated range.
    """
    kind, sizes = _sizes(item)
    family = (
        "tile"
        if isinstance(machine, TileMachine)
        else "gpu"
        if isinstance(machine, GpuMachine)
        else ""
    )
    seen = SEEN.get((family, kind))
    if seen is None:
        wider = min(WIDEST, 1.5 * machine.time_error_fraction)
        return wider, f"{kind} was never measured by itself on such a machine"
    error, outside = seen.error, []
    if machine.name not in _SHIPPED:
        error *= UNSEEN_MACHINE
        outside.append(f"no measurement on {machine.title}")
    for name, (low, high) in seen.sizes.items():
        size = sizes[name]
        beyond = max(low / size, size / high, 1.0)
        if beyond > 1:
            error *= 1 + 0.5 * math.log(beyond, 4)
            outside.append(f"{name} {size:g} (measured: {low:g} to {high:g})")
    return min(WIDEST, error), ", ".join(outside)


def _sizes(item: Work) -> tuple[str, dict[str, float]]:
    """Return the kind of an item and the sizes by which its measurements are ranged."""
    match item:
        case Contraction():
            # either operand may be the one that streams
            rows, columns = max(item.m, item.n), min(item.m, item.n)
            return "dense", {"rows": rows, "depth": item.k, "columns": columns}
        case SparseContraction():
            n_place = math.ceil(item.rows / item.block[0]) * math.ceil(item.cols / item.block[1])
            density = max(item.n_block, 1) / n_place
            return item.mode, {
                **{"rows": item.rows, "depth": item.cols, "columns": item.n},
                **{"density": density, "block": min(item.block)},
            }
        case Softmax():
            return item.kind, {"rows": item.n_row, "columns": item.n_col}
        case Pointwise():
            return "pointwise", {"entries": max(1, item.n_element)}
        case Fused():
            return "pointwise", {"entries": max(1, item.steps[-1].n_element)}
    return type(item).__name__.lower(), {}


def interval(time_s: float, error: float) -> tuple[float, float]:
    """Return where a measurement would lie: predicted / measured within 1 -/+ `error`."""
    return time_s / (1 + error), time_s / (1 - error)
