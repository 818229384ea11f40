"""A machine is data: each number with its unit in its name, its source and its reading mark.

A machine file is TOML. Three keys are text (`name`, `title`, `kind`); `substitute` maps a format
that the machine lacks to the one used in its place; every other key is a number, or a table of
numbers by format, and each number is written ``{ value = ..., mark = ..., source = "..." }``.
An energy may carry its range, ``{ value = ..., low = ..., high = ..., mark = ..., source = ... }``:
the lowest and the highest figure that is published, or that the power of the chip leaves room for.
Without it a factor of `UNSTATED` either way is taken.
With ``like = "ipu_gc200"`` a file starts from a machine that ships with the package and states
only what differs; a table by format is stated anew as a whole. Without a title
of its own it is called by its name and that of the other.
The mark says how the figure was read: ``read`` at the primary source, ``secondary`` at someone
who quotes it, ``derived`` by arithmetic that the source text shows, ``fitted`` on measurements,
``recalled`` from memory and not yet confirmed.
"""

from __future__ import annotations

import dataclasses
import sys
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args

from core.errors import MachineError
from hw.formats import FORMAT_BYTE
from hw.machine_kind import (
    GpuMachine,
    Machine,
    Objective,
    Source,
    SystolicMachine,
    TileMachine,
)

__all__ = [
    "KINDS",
    "MACHINE_DIR",
    "MARKS",
    "GpuMachine",
    "Machine",
    "Objective",
    "Source",
    "SystolicMachine",
    "TileMachine",
    "load_machine",
    "machine_from_table",
    "machine_names",
    "planned_for",
]

MACHINE_DIR = Path(__file__).parent / "machines"
MARKS = ("read", "secondary", "derived", "fitted", "recalled")
#: The vendor's peak rate and clock x units x rate may differ by rounding of published figures.
PEAK_TOLERANCE = 0.03
#: Range of an energy whose file gives none.
UNSTATED = 2.0

KINDS: dict[str, type[Machine]] = {
    "tile": TileMachine,
    "gpu": GpuMachine,
    "systolic": SystolicMachine,
}
_TEXT = ("name", "title", "kind")


def machine_names() -> list[str]:
    """Return the names of the machines that ship with the package, sorted.

    Examples
    --------
    >>> import hw
    >>> "ipu_bow" in hw.machine_names()
    True
    """
    return sorted(path.stem for path in MACHINE_DIR.glob("*.toml"))


def load_machine(machine: str | Path | Machine) -> Machine:
    """Return a machine by name, from a TOML file, or unchanged if it is one already.

    Parameters
    ----------
    machine : str, Path or Machine
        A name out of `machine_names()`, or a path that ends in ``.toml``.

    Raises
    ------
    MachineError
        If there is no such machine, or its file has a missing, unknown or implausible field.

    Examples
    --------
    >>> import hw
    >>> bow = hw.load_machine("ipu_bow")
    >>> bow.kind, bow.clock_hz > 1e9
    ('tile', True)
    """
    if isinstance(machine, Machine):
        return machine
    path = Path(machine)
    if path.suffix != ".toml":
        if str(machine) not in machine_names():
            near = get_close_matches(str(machine), machine_names(), n=1)
            raise MachineError(
                f"no machine {str(machine)!r}; known are {', '.join(machine_names())}; "
                + (f"did you mean {near[0]!r}? A" if near else "a")
                + " path to a machine file ends in .toml"
            )
        path = MACHINE_DIR / f"{machine}.toml"
    if not path.is_file():
        raise MachineError(f"machine file {path} does not exist")
    return _read(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=64)
def planned_for(machine: Machine, objective: Objective) -> Machine:
    """Return a machine whose plans are chosen by time, energy, or temporary memory.

    Raises
    ------
    MachineError
        If the objective is none of these.
    """
    if objective not in get_args(Objective):
        raise MachineError(f"objective must be time, energy or memory, got {objective!r}")
    if machine.objective == objective:
        return machine
    return dataclasses.replace(machine, objective=objective)


@lru_cache(maxsize=64)
def _read(path: Path, modified_ns: int) -> Machine:
    """Read one file; the time of its last change keeps the cache honest."""
    machine = machine_from_table(_parse(path), where=path.name)
    if path.parent != MACHINE_DIR and machine.name in machine_names():
        raise MachineError(
            f"{path.name}: name {machine.name!r} is that of a machine that ships, whose errors "
            f"were measured; give this one a name of its own"
        )
    return machine


def _parse(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # a slip, no UTF-8, a number of 5000 digits
        raise MachineError(f"{path.name}: not a readable TOML file: {error}") from error


def machine_from_table(table: Mapping[str, Any], *, where: str) -> Machine:
    """Build a machine from a parsed machine file and check every field.

    Parameters
    ----------
    table : mapping
        As described at the top of this module.
    where : str
        What to call the file in error messages.

    Raises
    ------
    MachineError
        Names the file, the field, and the interval or the spelling that was expected.
    """
    table = _with_base(table, where)
    for key in _TEXT:
        if not isinstance(table.get(key), str) or not table[key].strip():
            got = f"got {table[key]!r}" if key in table else "it is missing"
            raise MachineError(f"{where}: {key} must be a text, {got}")
    if table["kind"] not in KINDS:
        raise MachineError(
            f"{where}: kind must be one of {', '.join(KINDS)}, got {table['kind']!r}"
        )
    kind = KINDS[table["kind"]]
    numbers = {f.name: f for f in dataclasses.fields(kind) if f.metadata}
    for key in table:
        if key not in numbers and key not in (*_TEXT, "substitute"):
            near = get_close_matches(key, numbers, n=1)
            raise MachineError(
                f"{where}: unknown field {key!r} for a {kind.__name__}"
                + (f"; did you mean {near[0]!r}?" if near else "")
            )
    missing = [key for key in numbers if key not in table]
    if missing:
        low, high = numbers[missing[0]].metadata["interval"]
        raise MachineError(
            f"{where}: missing field {', '.join(missing)}; "
            f"{missing[0]} must be a number in [{low:g}, {high:g}]"
        )

    sources: dict[str, Source] = {}
    ranges: dict[str, tuple[float, float]] = {}
    values: dict[str, Any] = {}
    for key, f in numbers.items():
        has_range = "has_range" in f.metadata
        interval = f.metadata["interval"]
        if "by_format" in f.metadata:
            if not isinstance(table[key], Mapping) or "value" in table[key]:
                raise MachineError(f"{where}: {key} must be a table of numbers by format")
            values[key] = {}
            for format, entry in table[key].items():
                if format not in FORMAT_BYTE:
                    raise MachineError(
                        f"{where}: {key}.{format} is no format; known are {', '.join(FORMAT_BYTE)}"
                    )
                label = f"{key}.{format}"
                values[key][format], sources[label] = _entry(
                    entry, interval, where, label, has_range=has_range
                )
                if has_range:
                    ranges[label] = _range(entry, interval, where, label)
        else:
            value, sources[key] = _entry(table[key], interval, where, key, has_range=has_range)
            if has_range:
                ranges[key] = _range(table[key], interval, where, key)
            if f.type == "int":
                if value != int(value):
                    raise MachineError(f"{where}: {key} must be a whole number, got {value:g}")
                value = int(value)
            values[key] = value
    substitute = table.get("substitute", {})
    wrong = substitute
    if isinstance(substitute, Mapping):
        wrong = {f: instead for f, instead in substitute.items() if not isinstance(instead, str)}
    if wrong or not isinstance(substitute, Mapping):
        raise MachineError(
            f"{where}: substitute must be a table from a format to the one computed in instead, "
            f'such as {{ tf32 = "fp32" }}, got {wrong!r}'
        )
    text = {key: table[key] for key in _TEXT}
    machine = kind(**text, **values, substitute=dict(substitute), sources=sources, ranges=ranges)
    if isinstance(machine, TileMachine) and machine.code_byte >= machine.tile_memory_byte:
        raise MachineError(
            f"{where}: code_byte = {machine.code_byte:g} leaves nothing of tile_memory_byte = "
            f"{machine.tile_memory_byte:g}; one of them is wrong"
        )
    _check_formats(machine, where)
    _check_peak(machine, where)
    return machine


def _with_base(table: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the table laid over that of the machine it is `like`."""
    own = dict(table)
    base = own.pop("like", None)
    if base is None:
        return own
    if base not in machine_names():
        raise MachineError(
            f"{where}: like must name one of {', '.join(machine_names())}, got {base!r}"
        )
    table = _with_base(_parse(MACHINE_DIR / f"{base}.toml"), f"{base}.toml")
    del table["name"]
    return table | {"title": f"{own.get('name')}, like {table['title']}"} | own


def _entry(
    entry: Any, interval: tuple[float, float], where: str, label: str, *, has_range: bool
) -> tuple[float, Source]:
    """Return value and source of one ``{ value, mark, source }`` entry."""
    keys = {"value", "mark", "source"}
    allowed = [keys, keys | {"low", "high"}] if has_range else [keys]
    if not isinstance(entry, Mapping) or set(entry) not in allowed:
        low, high = interval
        limits = " low = ..., high = ...," if has_range else ""
        raise MachineError(
            f"{where}: {label} must be written {{ value = a number in [{low:g}, {high:g}],"
            f"{limits} mark = ..., source = ... }}, got {entry!r}"
        )
    value = _number(entry["value"], interval, where, label)
    if entry["mark"] not in MARKS:
        raise MachineError(
            f"{where}: mark of {label} must be one of {', '.join(MARKS)}, got {entry['mark']!r}"
        )
    if not isinstance(entry["source"], str) or not entry["source"].strip():
        raise MachineError(f"{where}: {label} has no source")
    return value, Source(entry["mark"], entry["source"])


def _range(
    entry: Mapping[str, Any], interval: tuple[float, float], where: str, label: str
) -> tuple[float, float]:
    """Return the range of an energy, which has to hold its value."""
    if "low" not in entry:
        value = float(entry["value"])
        return max(interval[0], value / UNSTATED), min(interval[1], value * UNSTATED)
    low, high = (_number(entry[key], interval, where, f"{label}.{key}") for key in ("low", "high"))
    if not low <= entry["value"] <= high:
        raise MachineError(
            f"{where}: {label} = {entry['value']:g} lies outside its own range, {low:g} to {high:g}"
        )
    return low, high


def _number(value: Any, interval: tuple[float, float], where: str, label: str) -> float:
    low, high = interval
    expected = f"a number in [{low:g}, {high:g}]"
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not abs(value) <= sys.float_info.max:  # a NaN is not either
        raise MachineError(f"{where}: {label} must be {expected}, got {value!r:.60}")
    if not low <= value <= high:
        raise MachineError(
            f"{where}: {label} = {value:g} is implausible, expected {expected}; check its unit"
        )
    return float(value)


def _check_formats(machine: Machine, where: str) -> None:
    """Check that tables by format hold the native ones, and every format leads to one of them."""
    native = set(machine.mac_per_cycle)
    for f in dataclasses.fields(machine):
        if "by_format" not in f.metadata or f.name == "peak_flop_per_s":
            continue
        named = set(getattr(machine, f.name))
        for one, other, more in (
            (f.name, "mac_per_cycle", named - native),
            ("mac_per_cycle", f.name, native - named),
        ):
            if more:
                raise MachineError(
                    f"{where}: {one} has {', '.join(sorted(more))}, which {other} has not; a table "
                    f"by format is stated as a whole"
                )
    for format in FORMAT_BYTE:
        try:
            machine.native(format)
        except MachineError as error:
            raise MachineError(f"{where}: {error}") from None


def _check_peak(machine: Machine, where: str) -> None:
    """Hold the published peak against clock, units and rate."""
    for format, stated in machine.peak_flop_per_s.items():
        computed = 2 * machine.mac_per_s(format)
        if abs(computed / stated - 1) > PEAK_TOLERANCE:
            raise MachineError(
                f"{where}: peak_flop_per_s.{format} = {stated:g}, but "
                f"2 x clock_hz x {machine.n_unit} units x mac_per_cycle = {computed:g}; "
                f"one of them is wrong"
            )
