"""Time of a piece of Python as a ratio to a fixed piece of work, measured beside it.

A bound in seconds breaks on a slower or a crowded machine. Here both times are processor time of
one process, minutes apart at most, and what is compared is their ratio; to keep the bounds
readable it is given in seconds of the core on which the fixed piece takes `UNIT_S`.
"""

import time
from collections.abc import Callable

#: Processor seconds of `fixed_work` on the core the bounds were set on (Zen 4, 3.7 GHz, idle).
UNIT_S = 0.04


def fixed_work() -> int:
    """Objects, dictionaries, calls and a sort: what planners and importers spend their time on."""
    table: dict[tuple[int, int], list[int]] = {}
    for i in range(20_000):
        table.setdefault((i % 251, i * i % 8191), []).append(i)
    rows = sorted(table.items(), key=lambda item: (len(item[1]), item[0]))
    return sum(min(row) for _, row in rows)


def cpu_s(work: Callable[[], object]) -> float:
    """Give the processor seconds of this process that `work` takes."""
    start = time.process_time()
    work()
    return time.process_time() - start


def scale() -> float:
    """Give what turns seconds here and now into seconds of the core named above."""
    return UNIT_S / min(cpu_s(fixed_work) for _ in range(3))


def least_s(work: Callable[[], object], bound_s: float, n_try: int = 3) -> float:
    """Give the least of up to `n_try` times of `work`, in seconds of the core named above.

    A try at or below `bound_s` ends the search: a crowded spell passes, slow work stays slow.
    """
    best = float("inf")
    for _ in range(n_try):
        before = scale()
        took = cpu_s(work)
        best = min(best, took * min(before, scale()))
        if best <= bound_s:
            break
    return best
