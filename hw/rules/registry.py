"""Rules by op name. An op without a rule is an error, never zero."""

from __future__ import annotations

from collections.abc import Callable

from hw.program import Op
from hw.work import Work

Rule = Callable[[Op], list[Work]]
_RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a function as the rule of the ops `names` (``"aten.mm aten.bmm"``, or one each).

    The in-place spelling of a name (``"aten.add_"``) shares its rule.
    """

    def register(function: Rule) -> Rule:
        for name in " ".join(names).split():
            assert name not in _RULES, f"two rules for {name}"
            _RULES[name] = function
        return function

    return register


def find_rule(name: str) -> Rule | None:
    """Return the rule of an op, or None."""
    return _RULES.get(name) or _RULES.get(name.removesuffix("_"))


def known_ops() -> list[str]:
    """Return the names of all ops with a rule, sorted.

    Examples
    --------
    >>> from hw.rules import known_ops
    >>> "aten.addmm" in known_ops()
    True
    """
    return sorted(_RULES)
