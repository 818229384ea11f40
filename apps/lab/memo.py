"""What runs of one process share: worked out once for an object, and kept as long as it lives.

A study makes dozens of runs on one table in one process; what depends on the table alone
(baselines, similarities) is then worked out by the first of them.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

A = TypeVar("A")
R = TypeVar("R")
P = ParamSpec("P")


def once_per_object(function: Callable[Concatenate[A, P], R]) -> Callable[Concatenate[A, P], R]:
    """Remember what `function` gave for its first argument, told by identity, and the others.

    The others have to be hashable. What is given is the same object each time: callers read it and
    leave it as it is. It is forgotten when the first argument is.
    """
    kept: dict[Any, tuple[Any, R]] = {}

    @functools.wraps(function)
    def remembering(first: A, /, *rest: P.args, **named: P.kwargs) -> R:
        key = (id(first), rest, tuple(sorted(named.items())))
        found = kept.get(key)
        if found is None or found[0]() is not first:
            value = function(first, *rest, **named)
            found = kept[key] = (weakref.ref(first, lambda _: kept.pop(key, None)), value)
        return found[1]

    return remembering
