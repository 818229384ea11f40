"""A machine is data: each number with its unit in its name, its source and its reading mark.

A machine file is TOML. Three keys are text (`name`, `title`, `kind`); `substitute` maps a format
that the machine lacks to the one used in its place; every other key is a number, or a table of
numbers by format, and each number is written ``{ value = ..., mark = ..., source = "..." }``.
With ``like = "ipu_gc200"`` a file starts from a machine that ships with the package and states
only what differs; a table by format is stated anew as a whole.
The mark says how the figure was read: ``read`` at the primary source, ``secondary`` at someone
who quotes it, ``derived`` by arithmetic that the source text shows, ``fitted`` on measurements,
``recalled`` from memory and not yet confirmed.

The dataclasses below declare each field once, with the interval outside which a value is taken
for a slip of the pen. The reader, its error messages and the test over `machines/*.toml` all
follow from these declarations.
"""

from __future__ import annotations

import dataclasses
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

from core.errors import MachineError
from hw.formats import FORMAT_BYTE

MACHINE_DIR = Path(__file__).parent / "machines"
MARKS = ("read", "secondary", "derived", "fitted", "recalled")
#: The vendor's peak rate and clock x units x rate may differ by rounding of published figures.
PEAK_TOLERANCE = 0.03


Objective = Literal["time", "energy", "memory"]


@dataclass(frozen=True)
class Source:
    """Where a number was read, and how (one of `MARKS`)."""

    mark: str
    text: str


def _number(low: float, high: float) -> Any:
    return field(metadata={"interval": (low, high)})


def _by_format(low: float, high: float) -> Any:
    return field(metadata={"interval": (low, high), "by_format": True})


@dataclass(frozen=True, eq=False, kw_only=True)
class Machine:
    """What all machines have. Compared by identity, so that plans can be cached per machine.

    A *unit* is one tile, one streaming multiprocessor or one systolic array. Rates by format
    hold the native formats only; `native` maps any format to a native one.
    """

    name: str
    title: str
    kind: str
    substitute: Mapping[str, str]
    sources: Mapping[str, Source] = field(repr=False)
    objective: Objective = "time"
    """What plans are chosen by: see `planned_for`."""

    clock_hz: float = _number(0.2e9, 4e9)
    mac_per_cycle: Mapping[str, float] = _by_format(1, 100_000)
    """Multiply-adds per cycle and unit in the matrix engine."""
    vector_per_cycle: Mapping[str, float] = _by_format(0.1, 10_000)
    """Additions or multiplications per cycle and unit outside the matrix engine."""
    peak_flop_per_s: Mapping[str, float] = _by_format(1e12, 5e15)
    """The published peak (2 per multiply-add), kept to check the rates against."""
    host_byte_per_s: float = _number(1e9, 200e9)
    host_latency_s: float = _number(1e-7, 1e-3)
    chip_link_byte_per_s: float = _number(1e9, 2e12)
    """Sent, and at once received, by one chip to others of its node."""
    chip_link_latency_s: float = _number(1e-7, 1e-3)
    node_chip: int = _number(1, 4096)
    """Chips that the fast links join: a board, a server, a torus."""
    node_link_byte_per_s: float = _number(1e9, 1e13)
    """Sent, and at once received, by all chips of a node together to other nodes."""
    node_link_latency_s: float = _number(1e-7, 1e-3)
    mac_pj: Mapping[str, float] = _by_format(0.005, 30)
    vector_pj: Mapping[str, float] = _by_format(0.003, 30)
    """Energy of one addition or multiplication outside the matrix engine."""
    local_pj_per_byte: float = _number(0.1, 20)
    exchange_pj_per_byte: float = _number(0.1, 50)
    off_chip_pj_per_byte: float = _number(5, 500)
    static_w: float = _number(5, 400)
    board_w: float = _number(50, 1000)
    """Rated power of the chip with its memory; a check on the energies, not used in a cost."""
    time_error_fraction: float = _number(0.0, 0.95)
    """90th percentile of |predicted / measured - 1| on measurements left out of the fit."""

    @property
    def n_unit(self) -> int:
        """Number of tiles, multiprocessors or arrays."""
        raise NotImplementedError

    @property
    def device_memory_byte(self) -> float:
        """Bytes a program's tensors may take in all."""
        raise NotImplementedError

    @property
    def traffic_byte_per_s(self) -> float:
        """Rate of the traffic that a roofline is drawn over: exchange, or off-chip memory."""
        raise NotImplementedError

    def native(self, format: str) -> str:
        """Return `format`, or the format that this machine computes in instead.

        Raises
        ------
        MachineError
            If the machine has neither a rate nor a substitute for `format`.
        """
        seen = format
        for _ in range(len(self.substitute) + 1):
            if seen in self.mac_per_cycle:
                return seen
            seen = self.substitute.get(seen, "")
        raise MachineError(
            f"machine {self.name}: no rate and no substitute for format {format!r}; "
            f"native formats are {', '.join(self.mac_per_cycle)}; "
            f"add {format!r} to the [substitute] table of its file"
        )

    def mac_per_s(self, format: str) -> float:
        """Return the peak multiply-adds per second of the whole chip, in a native format."""
        return self.clock_hz * self.n_unit * self.mac_per_cycle[self.native(format)]


@dataclass(frozen=True, eq=False, kw_only=True)
class TileMachine(Machine):
    """Many tiles with memory of their own, in bulk-synchronous steps over an exchange."""

    n_tile: int = _number(2, 100_000)
    n_worker: int = _number(1, 64)
    tile_memory_byte: int = _number(16_384, 16_777_216)
    temporary_fraction: float = _number(0.05, 1.0)
    """Share of a tile that the temporaries of one operation may take."""
    code_byte: float = _number(0, 1_000_000)
    """Program, exchange tables and stacks on each tile, taken off its memory."""
    load_byte_per_cycle: float = _number(1, 128)
    load_interleaved_byte_per_cycle: float = _number(1, 128)
    store_byte_per_cycle: float = _number(1, 128)
    exchange_byte_per_cycle: float = _number(0.5, 256)
    """Received per tile and cycle."""
    exchange_pair_byte_per_cycle: float = _number(0.5, 512)
    """The same when both tiles of a pair receive the same data."""
    exchange_fragment_cycle: float = _number(0, 1000)
    sync_cycle: float = _number(1, 5000)
    supervisor_cycle: float = _number(0, 1000)
    """To start the workers of a tile on a vertex."""
    worker_entry_cycle: float = _number(0, 1000)
    """To enter and leave one worker, in that worker's own cycles."""
    transcendental_cycle: Mapping[str, float] = _by_format(0.1, 200)
    """Issue slots of a tile for one exp, log, tanh ..."""
    divide_cycle: Mapping[str, float] = _by_format(0.1, 200)
    held_block_cycle: float = _number(0, 1000)
    """For one worker to take up the next block of the operand held in the matrix unit."""
    product_start_cycle: float = _number(0, 20_000)
    """Control code, set-up and loop around one planned product."""
    sparse_vertex_factor: float = _number(1, 3)
    """Cycles of the slowest tile's sparse vertex over the estimate for even workers."""
    sparse_piece_cycle: float = _number(0, 5000)
    """Control code for each piece in which a static sparse product's result reaches its place."""
    scatter_cycle_per_byte: float = _number(0, 64)
    """To put one byte of an operand that is read in another order into its place."""
    stream_byte_per_s: float = _number(1e9, 2e12)
    """To and from the memory outside the chip."""

    @property
    def n_unit(self) -> int:
        """Number of tiles."""
        return self.n_tile

    @property
    def device_memory_byte(self) -> float:
        """Bytes a program's tensors may take in all."""
        return self.n_tile * (self.tile_memory_byte - self.code_byte)

    @property
    def traffic_byte_per_s(self) -> float:
        """All tiles receive at once."""
        return self.n_tile * self.exchange_byte_per_cycle * self.clock_hz


@dataclass(frozen=True, eq=False, kw_only=True)
class GpuMachine(Machine):
    """Multiprocessors over a shared cache and a stacked memory outside the chip."""

    n_sm: int = _number(1, 1000)
    shared_byte: int = _number(16_384, 4_194_304)
    l2_byte: int = _number(1_000_000, 1_000_000_000)
    l2_byte_per_s: float = _number(1e11, 1e14)
    hbm_byte: float = _number(1e9, 1e12)
    hbm_byte_per_s: float = _number(1e11, 2e13)
    transcendental_per_cycle: float = _number(1, 1024)
    launch_s: float = _number(1e-7, 1e-3)
    """From one kernel's end to the next one's start, with the queue kept full."""
    hbm_fraction: float = _number(0.3, 1)
    """Share of the memory's peak rate that a long stream reaches."""
    wave_fill_s: float = _number(0, 5e-5)
    """To fill the pipeline of a wave of matrix tiles and to store its result."""
    small_tile_loss: float = _number(0, 2)
    """Time added to a 64 x 64 matrix tile by feeding it, over two; inverse to the tile's sides."""

    @property
    def n_unit(self) -> int:
        """Number of multiprocessors."""
        return self.n_sm

    @property
    def device_memory_byte(self) -> float:
        """Bytes a program's tensors may take in all."""
        return self.hbm_byte

    @property
    def traffic_byte_per_s(self) -> float:
        """Peak rate of the memory outside the chip."""
        return self.hbm_byte_per_s


@dataclass(frozen=True, eq=False, kw_only=True)
class SystolicMachine(Machine):
    """Square arrays that operands stream through, a vector unit, and stacked memory."""

    n_array: int = _number(1, 64)
    array_rows: int = _number(8, 1024)
    array_cols: int = _number(8, 1024)
    sram_byte: int = _number(1_000_000, 1_000_000_000)
    hbm_byte: float = _number(1e9, 1e12)
    hbm_byte_per_s: float = _number(1e11, 2e13)
    transcendental_per_cycle: float = _number(0.1, 10_000)
    launch_s: float = _number(1e-7, 1e-3)
    """From one compiled operation to the next inside a program."""

    @property
    def n_unit(self) -> int:
        """Number of arrays."""
        return self.n_array

    @property
    def device_memory_byte(self) -> float:
        """Bytes a program's tensors may take in all."""
        return self.hbm_byte

    @property
    def traffic_byte_per_s(self) -> float:
        """Peak rate of the memory outside the chip."""
        return self.hbm_byte_per_s


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
                f"no machine {str(machine)!r}; known are {', '.join(machine_names())}"
                + (f"; did you mean {near[0]!r}?" if near else "")
                + " A path to a machine file ends in .toml"
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
    return machine_from_table(_parse(path), where=path.name)


def _parse(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
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
        if not isinstance(table.get(key), str):
            raise MachineError(f"{where}: {key} must be a text, got {table.get(key)!r}")
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
    values: dict[str, Any] = {}
    for key, f in numbers.items():
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
                values[key][format], sources[label] = _entry(entry, interval, where, label)
        else:
            value, sources[key] = _entry(table[key], interval, where, key)
            if f.type == "int":
                if value != int(value):
                    raise MachineError(f"{where}: {key} must be a whole number, got {value:g}")
                value = int(value)
            values[key] = value
    substitute = table.get("substitute", {})
    if not isinstance(substitute, Mapping) or not all(
        isinstance(instead, str) for instead in substitute.values()
    ):
        raise MachineError(
            f"{where}: substitute must be a table from a format to the one computed in instead, "
            f'such as {{ tf32 = "fp32" }}, got {substitute!r}'
        )
    text = {key: table[key] for key in _TEXT}
    machine = kind(**text, **values, substitute=dict(substitute), sources=sources)
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
    return _with_base(_parse(MACHINE_DIR / f"{base}.toml"), f"{base}.toml") | own


def _entry(
    entry: Any, interval: tuple[float, float], where: str, label: str
) -> tuple[float, Source]:
    """Return value and source of one ``{ value, mark, source }`` entry."""
    low, high = interval
    expected = f"a number in [{low:g}, {high:g}]"
    if not isinstance(entry, Mapping) or set(entry) != {"value", "mark", "source"}:
        raise MachineError(
            f"{where}: {label} must be written "
            f"{{ value = {expected}, mark = ..., source = ... }}, got {entry!r}"
        )
    value = entry["value"]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise MachineError(f"{where}: {label} must be {expected}, got {value!r}")
    if not low <= value <= high:
        raise MachineError(
            f"{where}: {label} = {value:g} is implausible, expected {expected}; check its unit"
        )
    if entry["mark"] not in MARKS:
        raise MachineError(
            f"{where}: mark of {label} must be one of {', '.join(MARKS)}, got {entry['mark']!r}"
        )
    if not isinstance(entry["source"], str) or not entry["source"].strip():
        raise MachineError(f"{where}: {label} has no source")
    return float(value), Source(entry["mark"], entry["source"])


def _check_formats(machine: Machine, where: str) -> None:
    """Check that tables by format hold the native ones, and every format leads to one of them."""
    native = set(machine.mac_per_cycle)
    for f in dataclasses.fields(machine):
        if "by_format" not in f.metadata or f.name == "peak_flop_per_s":
            continue
        difference = native.symmetric_difference(getattr(machine, f.name))
        if difference:
            raise MachineError(
                f"{where}: {f.name} and mac_per_cycle must name the same formats; "
                f"they differ in {', '.join(sorted(difference))}"
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
