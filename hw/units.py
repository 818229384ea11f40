"""Values with their units, for people."""

from __future__ import annotations

_PREFIX = (
    *((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")),
    *((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"), (1e-12, "p")),
)


def si(value: float, unit: str) -> str:
    """Return a value with three digits and an SI prefix, as in ``1.25 ms``."""
    value = float(f"{value:.3g}")
    for factor, prefix in _PREFIX:
        if abs(value) >= factor:
            return f"{value / factor:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"
