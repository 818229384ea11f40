"""Molecules into blocks of a fixed number of atoms, for machines that want fixed shapes."""

from collections.abc import Sequence

import numpy as np

from core.errors import DataError


def fill_blocks(n_atom: Sequence[int], n_slot: int) -> list[list[int]]:
    """Return the molecules of each block, so that few slots stay empty.

    Parameters
    ----------
    n_atom : sequence of int
        Atoms of each molecule.
    n_slot : int
        Atoms that a block holds.

    Returns
    -------
    list of list of int
        Numbers of molecules; each occurs once.

    Raises
    ------
    DataError
        If a molecule is larger than a block.

    Notes
    -----
    Best fit, largest first: each molecule goes where it leaves the least room. At most 11/9 of the
    least number of blocks, plus one (Johnson et al., SIAM J. Comput. 3 (1974) 299).
    """
    sizes = np.asarray(n_atom)
    if sizes.size and sizes.max() > n_slot:
        big = int(sizes.argmax())
        raise DataError(
            f"fill_blocks: molecule {big} has {sizes[big]} atoms, a block holds {n_slot}; "
            "take larger blocks"
        )
    blocks: list[list[int]] = []
    waiting: list[list[int]] = [[] for _ in range(n_slot + 1)]  # blocks by their free slots
    for i in np.argsort(-sizes, kind="stable").tolist():
        size = int(sizes[i])
        free = next((room for room in range(size, n_slot) if waiting[room]), n_slot)
        if free == n_slot:
            place = len(blocks)
            blocks.append([])
        else:
            place = waiting[free].pop()
        blocks[place].append(i)
        waiting[free - size].append(place)
    return blocks


def packing_efficiency(
    blocks: Sequence[Sequence[int]], n_atom: Sequence[int], n_slot: int
) -> float:
    """Return the share of slots that hold atoms, 0..1."""
    held = sum(n_atom[i] for block in blocks for i in block)
    return held / (len(blocks) * n_slot) if blocks else 1.0
