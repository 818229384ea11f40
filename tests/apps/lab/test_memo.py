"""Work is done once for an object, and forgotten with it."""

import gc
from dataclasses import dataclass

from apps.lab.memo import once_per_object


@dataclass(frozen=True)
class Numbers:
    """Not hashable, as a table is not."""

    values: list[int]


def test_work_is_done_once_for_an_object_and_each_setting():
    calls = []

    @once_per_object
    def total(numbers, *, times=1):
        calls.append(times)
        return times * sum(numbers.values)

    one, equal = Numbers([1, 2]), Numbers([1, 2])
    assert [total(one), total(one), total(one, times=2), total(equal)] == [3, 3, 6, 3]
    assert calls == [1, 2, 1]  # an equal object is another one


def test_what_is_kept_goes_with_the_object():
    @once_per_object
    def copied(numbers):
        return Numbers(list(numbers.values))

    seen = []
    for value in range(5):  # objects that follow each other may have the same address
        numbers = Numbers([value])
        seen.append(copied(numbers).values)
        del numbers
        gc.collect()
    assert seen == [[0], [1], [2], [3], [4]]
    (kept,) = (c.cell_contents for c in copied.__closure__ if isinstance(c.cell_contents, dict))
    assert kept == {}
