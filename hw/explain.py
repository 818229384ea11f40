"""Why an operation takes as long as it does, and at which density sparsity begins to pay."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hw.energy import energy_interval
from hw.item import ItemCost
from hw.machine import Machine, TileMachine
from hw.targets import cost_item
from hw.units import si
from hw.work import Contraction, SparseContraction, Work, dense_shape

if TYPE_CHECKING:
    from hw.cost import CostReport
    from hw.op_cost import OpCost

DENSITIES = tuple(2.0**-i for i in range(9))


def explain(item: Work, machine: Machine) -> str:
    """Return the winning plan of one operation, the next best, every term of its cost, what binds.

    Parameters
    ----------
    item : Work
    machine : Machine
    """
    cost = cost_item(item, machine)
    lines = [
        f"{machine.title}: {si(cost.time_s, 's')}",
        f"  plan        {cost.plan}",
        f"  next best   {_next_best(cost)}",
        f"  binds       {cost.binds}{_of_peak(item, cost, machine)}",
        f"  terms{'':<35}{'time':>11}{'share':>8}{'received':>12}",
    ]
    terms: list[tuple[str, float, str, float]] = [
        (s.label, s.cycles / machine.clock_hz, s.part, s.received_byte) for s in cost.supersteps
    ]
    terms = terms or [(part, seconds, "", 0.0) for part, seconds in cost.parts_s.items()]
    for label, seconds, part, byte in terms:
        name = f"{label} ({part})" if part and part not in label else label
        lines.append(
            f"    {name:<38}{si(seconds, 's'):>11}{seconds / cost.time_s:>8.1%}"
            f"{f'{byte:,.0f} B' if byte else '':>14}"
        )
    energy = {**cost.energy_j, "static": machine.static_w * cost.time_s}
    parts = ", ".join(f"{part} {si(joule, 'J')}" for part, joule in energy.items() if joule)
    low, high = (si(joule, "J") for joule in energy_interval(energy, machine))
    lines.append(f"  energy      {si(sum(energy.values()), 'J')} ({low} to {high}): {parts}")
    if isinstance(machine, TileMachine):
        bound = machine.temporary_fraction * machine.tile_memory_byte
        lines.append(
            f"  memory      {cost.temporary_byte:,.0f} of {bound:,.0f} byte for temporaries on "
            f"the fullest tile, {cost.n_tile_used:,} of {machine.n_tile:,} tiles"
        )
    return "\n".join(lines)


def explain_program(report: CostReport, n_op: int = 12) -> str:
    """Return plan, next best and what binds of the costliest ops of a program, alike ones once.

    Parameters
    ----------
    report : CostReport
    n_op : int
        How many ops are shown.
    """
    groups: dict[tuple[str, str, str], list[OpCost]] = defaultdict(list)
    for op in report.ops:
        groups[op.name, op.phase, op.plan].append(op)
    ordered = sorted(groups.values(), key=lambda ops: -sum(op.time_s for op in ops))
    lines = [f"{report.title}: the costliest plans"]
    for ops in ordered[:n_op]:
        op, seconds = ops[0], sum(op.time_s for op in ops)
        terms: dict[str, float] = defaultdict(float)
        for label, s in [(s.label, s.cycles / report.clock_hz) for s in op.supersteps] or list(
            op.parts_s.items()
        ):
            terms[label] += s
        largest = sorted(terms.items(), key=lambda term: -term[1])[:4]
        lines += [
            f"  {op.name} [{op.phase}] {op.module}: {len(ops)} x {si(op.time_s, 's')}, "
            f"{seconds / max(report.time_s, 1e-30):.1%} of the program, binds: {op.binds}",
            f"    plan       {op.plan}",
            f"    next best  {op.runner_up or 'no other plan that fits'}",
            "    terms      " + ", ".join(f"{name} {si(s, 's')}" for name, s in largest),
        ]
    return "\n".join(lines)


def _next_best(cost: ItemCost) -> str:
    if cost.runner_up is None:
        return "no other plan that fits"
    plan, seconds = cost.runner_up
    return f"{plan}: {si(seconds, 's')}, {seconds / cost.time_s - 1:+.1%}"


def _of_peak(item: Work, cost: ItemCost, machine: Machine) -> str:
    if not isinstance(item, Contraction | SparseContraction) or not cost.n_mac:
        return ""
    format = item.a_format if isinstance(item, Contraction) else item.dense_format
    ideal_s = cost.n_mac / machine.mac_per_s(format)
    return f"; the multiply-adds alone would take {si(ideal_s, 's')}, {ideal_s / cost.time_s:.1%}"


@dataclass(frozen=True)
class DensityPoint:
    """Seconds of one product at one density: by a static, a dynamic and the dense plan."""

    density: float
    static_s: float
    dynamic_s: float
    dense_s: float


def density_curve(
    item: SparseContraction, machine: Machine, densities: Sequence[float] = DENSITIES
) -> list[DensityPoint]:
    """Return what a product costs at each density, in all three ways.

    Parameters
    ----------
    item : SparseContraction
        Its shape, block and formats; patterns count as random.
    machine : Machine
    densities : sequence of float
        Shares of live blocks, each in (0, 1].
    """
    n_place = math.ceil(item.rows / item.block[0]) * math.ceil(item.cols / item.block[1])
    m, k, n = dense_shape(item)
    dense = Contraction(1, m, k, n, item.weight_format, item.dense_format, item.out_format)
    dense_s = cost_item(dense, machine).time_s
    points = []
    for density in densities:
        n_block = max(1, round(density * n_place))
        one = replace(item, n_block=n_block, row_index=None, col_index=None)
        static_s = cost_item(replace(one, mode="static"), machine).time_s
        dynamic_s = cost_item(replace(one, mode="dynamic"), machine).time_s
        points.append(DensityPoint(density, static_s, dynamic_s, dense_s))
    return points


def break_even(points: Sequence[DensityPoint], mode: str) -> float | None:
    """Return the largest density below which the sparse plan (`mode`) beats the dense one.

    Between two points the logarithms are joined by a straight line. None if it wins nowhere.
    """
    ordered = sorted(points, key=lambda point: point.density)
    gain = [math.log(getattr(p, f"{mode}_s") / p.dense_s) for p in ordered]
    for i in reversed(range(len(ordered))):
        if gain[i] >= 0:
            continue
        if i + 1 == len(ordered):
            return ordered[i].density
        share = -gain[i] / (gain[i + 1] - gain[i])
        low, high = math.log(ordered[i].density), math.log(ordered[i + 1].density)
        return math.exp(low + share * (high - low))
    return None


def density_table(points: Sequence[DensityPoint]) -> str:
    """Return the curve as text, with the densities of break-even."""
    lines = [f"  {'density':>9}{'static':>11}{'dynamic':>11}{'dense':>11}"]
    for p in points:
        times = "".join(f"{si(s, 's'):>11}" for s in (p.static_s, p.dynamic_s, p.dense_s))
        lines.append(f"  {p.density:>9.4g}{times}")
    for mode in ("static", "dynamic"):
        density = break_even(points, mode)
        verdict = "at none of these densities" if density is None else f"below {density:.3g}"
        lines.append(f"  {mode} beats dense {verdict}")
    return "\n".join(lines)
