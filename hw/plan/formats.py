"""Which format a machine computes in, and how many bytes an entry takes there."""

from __future__ import annotations

from hw.formats import FORMAT_BYTE
from hw.machine import Machine


def stored_byte(machine: Machine, format: str) -> float:
    """Return the bytes of one entry at rest: its own width, or less where the machine has less.

    An int8 weight stays one byte on a machine that computes it in fp16; an fp64 entry takes four
    on a machine that has only fp32.
    """
    return min(FORMAT_BYTE[format], FORMAT_BYTE[machine.native(format)])


def compute_format(machine: Machine, *formats: str) -> str:
    """Return the widest of the native formats that stand for `formats`."""
    return max((machine.native(f) for f in formats), key=lambda f: FORMAT_BYTE[f])


def substitutes(machine: Machine, *formats: str) -> str:
    """Return a note such as ``"bf16 as fp16"`` for the formats that the machine lacks."""
    pairs = [f"{f} as {machine.native(f)}" for f in dict.fromkeys(formats)]
    missing = [p for p in pairs if p.split(" as ")[0] != p.split(" as ")[1]]
    return "; " + ", ".join(missing) if missing else ""
