"""How far an energy may be off: the range of each figure in the machine file, carried through.

Published energies per operation and per byte differ more than any model of the work does. Each
figure of a machine has a range (`hw.machine`); an energy's interval takes all figures at their low,
and all at their high ends. It says nothing of an error in the counted work.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from hw.machine import Machine

#: Where energy goes, and the fields of a machine that it is counted with.
FIELDS: dict[str, tuple[str, ...]] = {
    "compute": ("mac_pj", "vector_pj"),
    "local_memory": ("local_pj_per_byte",),
    "exchange": ("exchange_pj_per_byte",),
    "off_chip": ("off_chip_pj_per_byte",),
    "static": ("static_w",),
}
ENERGY_PARTS = tuple(FIELDS)


@lru_cache(maxsize=64)
def spans(machine: Machine) -> Mapping[str, tuple[float, float]]:
    """Return for each part the lowest and highest figure over the one in use.

    Arithmetic takes the widest span of any format: a program mixes them.
    """
    found = {}
    for part, fields in FIELDS.items():
        low = high = 1.0
        for label, (least, most) in machine.ranges.items():
            name, _, format = label.partition(".")
            if name in fields:
                value = getattr(machine, name)
                value = value[format] if format else value
                low, high = min(low, least / value), max(high, most / value)
        found[part] = (low, high)
    return found


def energy_interval(energy_j: Mapping[str, float], machine: Machine) -> tuple[float, float]:
    """Return the energy with all figures at their low, and all at their high ends.

    Parameters
    ----------
    energy_j : mapping of str to float
        Joule by part (`ENERGY_PARTS`).
    machine : Machine

    Returns
    -------
    (float, float)
        Joule.

    Examples
    --------
    >>> import hw
    >>> from hw.energy import energy_interval
    >>> low, high = energy_interval({"compute": 1.0, "static": 2.0}, hw.load_machine("tpu_v3"))
    >>> low < 3.0 < high
    True
    """
    span = spans(machine)
    low, high = (sum(j * span[part][i] for part, j in energy_j.items()) for i in (0, 1))
    return low, high
