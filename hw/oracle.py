"""An exact search over a small program's spreads and kept copies, to judge the heuristic by.

`hw.layout` tries a few spreads for the products of each layer and keeps every copy in another
order that serves again. Here many more spreads are tried, and which of them and of the copies are
taken is solved exactly under the tiles' memory, with OR-tools (extra ``oracle``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from core.errors import ConfigError
from hw import layout
from hw.machine import TileMachine
from hw.program import Program
from hw.rules import Task
from hw.targets import cost_item
from hw.work import Contraction, Move

#: Whole units of the solver: a nanosecond, a byte.
_NANO = 1e9


@dataclass(frozen=True)
class Verdict:
    """Seconds for the products of layers and all rearrangements: the heuristic's, the best."""

    heuristic_s: float
    exact_s: float
    is_proved: bool

    @property
    def excess(self) -> float:
        """How much longer the heuristic takes, as a fraction."""
        return self.heuristic_s / self.exact_s - 1 if self.exact_s else 0.0


def judge(
    program: Program,
    tasks: list[Task],
    machine: TileMachine,
    *,
    n_spread: int = 24,
    limit_s: float = 20.0,
) -> Verdict:
    """Compare the layout of a program with the best one.

    Parameters
    ----------
    program : Program
    tasks : list of Task
        Its work, as `hw.rules.tasks_of` gives it.
    machine : TileMachine
    n_spread : int
        Spreads of each product that are tried for a layer's three.
    limit_s : float
        Time for the solver.

    Raises
    ------
    ConfigError
        If OR-tools is not installed, or no choice fits in memory.
    """
    try:
        from ortools.sat.python import cp_model
    except ImportError as error:
        raise ConfigError(
            "hw.oracle: OR-tools is not installed; install the extra: pip install 'tessera[oracle]'"
        ) from error
    planned = layout.lay_out(program, tasks, machine, whole=True)
    heuristic_s = planned.shared_s + planned.planned_s
    model = cp_model.CpModel()
    live = program.live_byte() / machine.n_tile + machine.code_byte
    used: dict[int, list[tuple[object, int]]] = {}  # by op: variable, bytes on a tile
    terms = []
    for members in layout.layers_of(program, tasks):
        weight_byte = layout.weight_byte(program, members[0])
        products = tuple(layout.product_of(task) for task in members)
        chosen = []
        for splits in (None, *layout.common_splits(products, machine, n_spread)):
            items: list[Contraction] = list(products)
            if splits is not None:
                items = [replace(i, split=s) for i, s in zip(products, splits, strict=True)]
            costs = [cost_item(item, machine) for item in items]
            if not all(cost.fits for cost in costs):
                continue
            time_s = sum(cost.time_s for cost in costs)
            if splits is None:
                time_s += cost_item(Move(weight_byte, "rearrange"), machine).time_s
            take = model.new_bool_var("")
            chosen.append(take)
            terms.append(round(time_s * _NANO) * take)
            for task, cost in zip(members, costs, strict=True):
                used.setdefault(task.i_op, []).append((take, int(cost.temporary_byte)))
        model.add_exactly_one(chosen)
    moves, copies = layout.moves_of(program, tasks, machine, whole=True)
    always_s = sum(
        cost_item(Move(byte, "reorder"), machine).time_s for of in moves.values() for byte in of
    )
    apart = layout.moves_of(program, tasks, machine, whole=False)[0]
    saved_s = sum(
        cost_item(Move(byte, "reorder"), machine).time_s for of in apart.values() for byte in of
    )
    each_s = (saved_s - always_s) / max(1, len(copies))
    for copy in copies.values():
        keep = model.new_bool_var("")
        # a copy that is not kept is made again
        terms.append(round(each_s * _NANO) * (1 - keep))
        for i_op in range(copy.first_op, copy.last_op + 1):
            used.setdefault(i_op, []).append((keep, int(copy.byte / machine.n_tile)))
    for i_op, parts in used.items():
        room = machine.tile_memory_byte - live[i_op]
        model.add(sum(byte * variable for variable, byte in parts) <= int(room))  # type: ignore[operator, misc]
    model.minimize(sum(terms))
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = limit_s
    solver.parameters.num_workers = 1
    status = solver.solve(model)
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        raise ConfigError("hw.oracle: no choice of spreads and copies fits in the tiles' memory")
    exact_s = solver.objective_value / _NANO + always_s
    return Verdict(heuristic_s, exact_s, status == cp_model.OPTIMAL)
