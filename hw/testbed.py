"""Which machine a row of a table was measured on, and what its benchmark adds to each operation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from hw.machine import GpuMachine, Machine, load_machine, machine_names


class NotPredictedError(Exception):
    """Says why a row is left out."""


@dataclass(frozen=True, eq=False)
class Testbed:
    """How a machine was measured: the overhead around each operation, and its own variant.

    `overhead_s` by operation replaces the launch between kernels of a running program, since a
    benchmark that starts each operation from the host waits for more than that. `host_s` by
    operation is what the host takes for one call, which it may end after the kernel that it
    started: no call is shorter.
    """

    label: str
    machine: str | Machine
    overhead_s: Mapping[str, float] = field(default_factory=dict)
    host_s: Mapping[str, float] = field(default_factory=dict)
    clock_fraction: float = 1.0
    hbm_byte_per_s: float | None = None

    @lru_cache(maxsize=64)  # noqa: B019
    def load(self, op: str) -> Machine:
        """Return the machine as it stood on this testbed, for one kind of operation."""
        machine = load_machine(self.machine)
        if isinstance(machine, GpuMachine):
            return replace(
                machine,
                clock_hz=machine.clock_hz * self.clock_fraction,
                hbm_byte_per_s=self.hbm_byte_per_s or machine.hbm_byte_per_s,
                launch_s=self.overhead_s.get(op, machine.launch_s),
            )
        return machine


#: Testbeds that were calibrated. 21e-6 s per product and 45e-6 s per GELU or layer norm are what
#: LLMCompass takes (hardware_model/compute_module.py), and the other bench of the same card is
#: taken to need as much; the overhead of a softmax, the host's time for a layer norm and the clock
#: that the DGX holds under load are fitted by benchmarks/calibrate_hw.py. The DGX is taken for the
#: 40 GB model.
TESTBEDS = (
    Testbed("bow", "ipu_bow"),
    Testbed("ipu notebook", "ipu_bow"),
    Testbed(
        "a100 80GB", "a100",
        {"matmul": 21e-6, "softmax": 13.1e-6, "gelu": 45e-6, "layer_norm": 45e-6},
        {"layer_norm": 52.8e-6},
    ),
    Testbed(
        "a100 dgx", "a100",
        {"matmul": 21e-6, "spmm": 21e-6}, clock_fraction=0.769, hbm_byte_per_s=1.555e12,
    ),
)  # fmt: skip
_CALIBRATED = (
    ("Bow IPU (1 chip", "bow"),
    ("IPU (clock not printed", "ipu notebook"),
    ("A100 80GB (LLMCompass", "a100 80GB"),
    ("A100 (DGX A100", "a100 dgx"),
)
#: Words in a machine cell that name a machine, the more special ones first.
_NAMED = (
    *(("c600", "ipu_c600"), ("ipu21", "ipu_c600"), ("bow", "ipu_bow"), ("gc200", "ipu_gc200")),
    *(("m2000", "ipu_gc200"), ("mk2", "ipu_gc200"), ("gc2", "ipu_gc2"), ("mk1", "ipu_gc2")),
    *(("a100", "a100"), ("tpu v3", "tpu_v3"), ("tpuv3", "tpu_v3"), ("tpu-v3", "tpu_v3")),
)


def find_testbed(
    cell: str, testbeds: Sequence[Testbed] = TESTBEDS, extra: Mapping[str, str] | None = None
) -> Testbed:
    """Return the testbed of a machine cell.

    Parameters
    ----------
    cell : str
        As the table writes it: a calibrated testbed, else any text that names a machine, the name
        of a machine file, or a path to one.
    testbeds : sequence of Testbed
    extra : mapping of str to str, optional
        Machine names or files by the beginning of a cell; looked at first.

    Raises
    ------
    NotPredictedError
        If nothing in the cell names a machine.
    """
    for start, machine in (extra or {}).items():
        if cell.startswith(start):
            return Testbed(start, machine)
    for start, label in _CALIBRATED:
        if cell.startswith(start):
            return next(testbed for testbed in testbeds if testbed.label == label)
    if cell in machine_names() or cell.endswith(".toml"):
        return Testbed(cell, cell)
    for word, machine in _NAMED:
        if word in cell.lower():
            return Testbed(machine.removeprefix("ipu_"), machine)
    raise NotPredictedError(
        f"no machine is known by {cell!r}; name its file by --machine '{cell}=FILE.toml'"
    )
