"""Rows picked, or added into, by an index that is known only while the program runs."""

from __future__ import annotations

import numpy as np

from hw.item import ItemCost
from hw.machine import TileMachine
from hw.plan.dense import received, vertex_cycles
from hw.plan.formats import compute_format, stored_byte, substitutes
from hw.plan.phases import Candidates
from hw.work import Gather, Scatter

#: Issue slots to test one index against a tile's range and to address the row that it names.
INDEX_CYCLE = 6
#: Tiles that share the rows of the table, the look-ups, the entries of a row.
Splits = tuple[int, int, int]


def plan_gather(item: Gather, machine: TileMachine) -> ItemCost:
    """Split look-ups and source rows; each tile serves its own rows, then results move home."""
    return choose_gather(item, machine)[1]


def choose_gather(item: Gather, machine: TileMachine) -> tuple[Splits, ItemCost]:
    """Return the splits of the best plan, and its cost."""
    return _look_up(
        item.n_row, item.row_element, item.n_source, item.in_format, machine, adds=False
    )


def plan_scatter(item: Scatter, machine: TileMachine) -> ItemCost:
    """Split updates and target rows; each tile adds what falls to its own rows."""
    return choose_scatter(item, machine)[1]


def choose_scatter(item: Scatter, machine: TileMachine) -> tuple[Splits, ItemCost]:
    """Return the splits of the best plan, and its cost."""
    return _look_up(item.n_row, item.row_element, item.n_target, item.in_format, machine, adds=True)


def look_up_cycles(
    machine: TileMachine, n_index: float, n_hit: float, row_byte: float, *, adds: bool
) -> float:
    """Return a tile's cycles to see `n_index` indices and copy, or add, the rows that it hits."""
    per_row = row_byte / machine.load_byte_per_cycle * (2 if adds else 1)
    return vertex_cycles(machine) + n_index * INDEX_CYCLE + n_hit * (INDEX_CYCLE + per_row)


def _look_up(
    n_row: int, row_element: int, n_source: int, in_format: str, machine: TileMachine, *, adds: bool
) -> tuple[Splits, ItemCost]:
    """Return splits and cost of picking rows by a run-time index, or of adding rows at one.

    `p_row` tiles share the rows of the table, `p_index` the look-ups, `p_col` each row's entries.
    A tile sees every index of its share and works on those that fall into its rows. The results of
    a share of look-ups lie on the tiles that look them up, in equal runs: a row that is found on
    another tile of the share is sent. Rows to be added come from anywhere; if several shares add
    into one row, they are reduced.
    """
    format = compute_format(machine, in_format)
    byte = stored_byte(machine, in_format)
    powers = 2.0 ** np.arange(0, 12)
    p_row, p_index, p_col = (a.ravel() for a in np.meshgrid(powers, powers, powers, indexing="ij"))
    inside = (p_row * p_index * p_col <= machine.n_tile) & (p_row <= max(n_source, 1))
    inside &= (p_index <= max(n_row, 1)) & (p_col <= max(row_element, 1))
    p_row, p_index, p_col = p_row[inside], p_index[inside], p_col[inside]
    index_l, col_l = np.ceil(n_row / p_index), np.ceil(row_element / p_col)
    hit_l = np.ceil(index_l / p_row)
    table_l = np.ceil(n_source / p_row) * col_l
    c = Candidates(machine, p_row.size)
    c.n_tile = p_row * p_index * p_col
    c.exchange("indices to the tiles", index_l * 4, index_l * 4 * c.n_tile, shared=1.0)
    row_byte = hit_l * col_l * byte
    total = n_row * row_element * byte
    copies = np.where(p_index > 1, table_l * byte, 0.0)
    if adds:
        c.exchange("rows to the tiles", row_byte, total, n_fragment=hit_l)
    else:
        c.exchange(
            "table to the tiles",
            received(table_l, p_index) * byte,
            n_source * row_element * byte * (p_index - 1),
            shared=p_index % 2 == 0,
        )
    c.compute(
        "scatter" if adds else "gather",
        look_up_cycles(machine, index_l, hit_l, col_l * byte, adds=adds),
        local_byte=total * (3 if adds else 2),
        pj=n_row * row_element * machine.vector_pj[format] if adds else 0.0,
    )
    if adds:
        share = table_l * byte * (1 - 1 / p_index)
        c.exchange("partial sums", share, share * c.n_tile, n_fragment=p_index)
        c.compute(
            "reduction",
            np.where(
                p_index > 1,
                vertex_cycles(machine) + table_l * byte / machine.load_byte_per_cycle,
                0,
            ),
        )
        copies = 2 * copies
    else:
        # of the rows that end on a tile, those that it found itself stay
        from_others = hit_l - np.floor(hit_l / p_row)
        c.exchange(
            "rows to their place",
            from_others * col_l * byte,
            total * (1 - 1 / p_row),
            n_fragment=from_others,
        )
    c.temporary_byte = row_byte + copies + index_l * 4
    note = substitutes(machine, in_format)
    cost = c.best_cost(
        lambda i: (
            f"table rows over {int(p_row[i])}, look-ups over {int(p_index[i])}, "
            f"columns over {int(p_col[i])} tiles{note}"
        )
    )
    best = c.choose()[0]
    return (int(p_row[best]), int(p_index[best]), int(p_col[best])), cost
