"""What describes a machine, by kind.

Each number is declared once, with the interval outside which a value is taken for a slip of the
pen. The reader of machine files (`hw.machine`), its error messages and the test over
`machines/*.toml` all follow from these declarations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from core.errors import MachineError

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


def _energy(low: float, high: float, *, by_format: bool = False) -> Any:
    """Declare an energy or a power, which a file states with the range of published figures."""
    metadata = {"interval": (low, high), "has_range": True}
    return field(metadata=metadata | ({"by_format": True} if by_format else {}))


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
    ranges: Mapping[str, tuple[float, float]] = field(repr=False)
    """Lowest and highest published figure of each energy, by the key of `sources`."""
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
    stream_byte: float = _number(1e9, 1e14)
    """What the memory beside the chip holds for it: on its board, or its share of the host's."""
    stream_byte_per_s: float = _number(1e9, 2e12)
    """To or from the memory beside the chip, one way at a time."""
    chip_link_byte_per_s: float = _number(1e9, 2e12)
    """Sent, and at once received, by one chip to others of its node."""
    chip_link_latency_s: float = _number(1e-7, 1e-3)
    node_chip: int = _number(1, 4096)
    """Chips that the fast links join: a board, a server, a torus."""
    node_link_byte_per_s: float = _number(1e9, 1e13)
    """Sent, and at once received, by all chips of a node together to other nodes."""
    node_link_latency_s: float = _number(1e-7, 1e-3)
    rack_chip: int = _number(1, 1_000_000)
    """Chips whose nodes reach each other at `node_link_byte_per_s`."""
    rack_link_byte_per_s: float = _number(1e9, 1e13)
    """The same as `node_link_byte_per_s`, to a node in another rack."""
    mac_pj: Mapping[str, float] = _energy(0.005, 30, by_format=True)
    vector_pj: Mapping[str, float] = _energy(0.003, 30, by_format=True)
    """Energy of one addition or multiplication outside the matrix engine."""
    local_pj_per_byte: float = _energy(0.1, 20)
    exchange_pj_per_byte: float = _energy(0.1, 50)
    off_chip_pj_per_byte: float = _energy(5, 500)
    static_w: float = _energy(5, 400)
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
class HbmMachine(Machine):
    """A chip beside a stacked memory that holds what a program needs."""

    hbm_byte: float = _number(1e9, 1e12)
    hbm_byte_per_s: float = _number(1e11, 2e13)

    @property
    def device_memory_byte(self) -> float:
        """Bytes a program's tensors may take in all."""
        return self.hbm_byte

    @property
    def traffic_byte_per_s(self) -> float:
        """Peak rate of the memory outside the chip."""
        return self.hbm_byte_per_s


@dataclass(frozen=True, eq=False, kw_only=True)
class GpuMachine(HbmMachine):
    """Multiprocessors over a shared cache and a stacked memory outside the chip."""

    n_sm: int = _number(1, 1000)
    shared_byte: int = _number(16_384, 4_194_304)
    l2_byte: int = _number(1_000_000, 1_000_000_000)
    l2_byte_per_s: float = _number(1e11, 1e14)
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


@dataclass(frozen=True, eq=False, kw_only=True)
class SystolicMachine(HbmMachine):
    """Square arrays that operands stream through, a vector unit, and stacked memory."""

    n_array: int = _number(1, 64)
    array_rows: int = _number(8, 1024)
    array_cols: int = _number(8, 1024)
    sram_byte: int = _number(1_000_000, 1_000_000_000)
    transcendental_per_cycle: float = _number(0.1, 10_000)
    launch_s: float = _number(1e-7, 1e-3)
    """From one compiled operation to the next inside a program."""

    @property
    def n_unit(self) -> int:
        """Number of arrays."""
        return self.n_array
