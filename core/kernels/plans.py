"""Plans of products whose blocks are not made of quads, kept as long as their pattern.

Making a plan (`Plan` in entries.h: the order in which entries are visited) costs as much as a small
batch's product, and a pattern does not change from one call to the next. Plans are found by the
identity of the pattern's tensors and are made anew when one of these was written to.
"""

from __future__ import annotations

import operator
import weakref
from collections.abc import Callable

from torch import Tensor


class Plan:
    """One plan of the C++ library, freed with this object.

    Parameters
    ----------
    address : int
    free : Callable[[int], object]
        Gives the plan back to the library.
    """

    def __init__(self, address: int, free: Callable[[int], object]) -> None:
        self.address = address
        weakref.finalize(self, free, address)


#: By identity of an index tensor: a reference to it, its version, and its plans. A plan is found by
#: the product it is for, and holds with the other tensors and the versions it was made from.
_Found = tuple[tuple[Tensor, ...], tuple[int, ...], Plan]
_known: dict[int, tuple[weakref.ref[Tensor], int, dict[tuple[object, ...], _Found]]] = {}


def plan_for(
    index: Tensor,
    others: tuple[Tensor, ...],
    product: tuple[object, ...],
    make: Callable[[], Plan],
) -> Plan:
    """Return the plan of a product over a pattern, making it where there is none.

    Parameters
    ----------
    index, others : Tensor, int32
        Column indices, and what else of the pattern the plan is made from.
    product : tuple
        What else decides the plan, hashable.
    make : Callable[[], Plan]

    Tensors made in inference mode carry no version: their plans are made in every call.
    """
    if any(t.is_inference() for t in (index, *others)):
        return make()
    key, version = id(index), index._version
    entry = _known.get(key)
    if entry is None or entry[0]() is not index or entry[1] != version:
        forget = weakref.ref(index, lambda _: _known.pop(key, None))
        entry = _known[key] = forget, version, {}
    versions = tuple(t._version for t in others)
    found = entry[2].get(product)
    same = found is not None and found[1] == versions
    if found is not None and same and all(map(operator.is_, found[0], others)):
        return found[2]
    plan = make()
    entry[2][product] = others, versions, plan
    return plan
