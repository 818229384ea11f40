"""Predictions of the cost model beside published measurements, row by row and by group.

A table is a CSV file with the columns `COLUMNS`. Each row is either predicted, in the unit of its
metric, or left out with a reason; nothing is dropped in silence. `error` is
predicted / measured - 1. `is_held_out` says which rows the calibration never sees.
"""

from __future__ import annotations

import csv
import hashlib
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from core.errors import DataError
from hw.item import ItemCost
from hw.machine import GpuMachine, Machine, load_machine
from hw.targets import cost_item
from hw.work import Contraction, Pointwise, Softmax, SparseContraction, Work

COLUMNS = (
    *("id", "machine", "op", "dtype", "m", "k", "n", "block", "density", "mode", "metric"),
    "value",
)
#: Formats as the tables write them. Half storage with fp32 arithmetic counts as fp32.
FORMATS = {"FP16": "fp16", "FP32": "fp32", "FP16 storage FP32 compute (FP16*)": "fp32"}
#: Dense columns tried where a table gives the best over them and does not say which.
BEST_N = (16, 64, 256, 1024, 2048, 4096, 8192, 16384, 65536)
#: Sides of square products where a table gives the best product of a machine.
BEST_SIDE = (512, 1024, 1536, 2048, 4096)
#: Share of the measurements that the calibration leaves out.
HELD_OUT = 0.5
SPARSE_LIBRARY = ("cusparse_bsr_spmm", "cusparse_csr_spmm")


@dataclass(frozen=True, eq=False)
class Testbed:
    """How a machine was measured: the overhead around each operation, and its own variant.

    `overhead_s` by operation replaces the launch between kernels of a running program, since a
    benchmark that starts each operation from the host waits for more than that.
    """

    label: str
    machine: str | Machine
    overhead_s: Mapping[str, float]
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


#: Testbeds by the beginning of the table's machine cell. 21e-6 s per product is what LLMCompass
#: itself takes (ae/figure5/ab/test_matmul.py); the other overheads and the clock that the DGX
#: holds under load are fitted by benchmarks/calibrate_hw.py. The DGX is taken for the 40 GB model.
TESTBEDS = (
    Testbed("bow", "ipu_bow", {}),
    Testbed("ipu notebook", "ipu_bow", {}),
    Testbed(
        "a100 80GB", "a100", {"matmul": 21e-6, "softmax": 13.1e-6, "gelu": 45.6e-6}
    ),
    Testbed(
        "a100 dgx", "a100",
        {"matmul": 17e-6, "spmm": 17e-6}, clock_fraction=0.77, hbm_byte_per_s=1.555e12,
    ),
    Testbed("gc2", "ipu_gc2", {}),
)  # fmt: skip
_CELLS = (
    ("Bow IPU (1 chip", "bow"),
    ("IPU (clock not printed", "ipu notebook"),
    ("A100 80GB (LLMCompass", "a100 80GB"),
    ("A100 (DGX A100", "a100 dgx"),
    ("GC2", "gc2"),
)


class _NotPredictedError(Exception):
    """Says why a row is left out."""


@dataclass(frozen=True)
class Row:
    """One measurement with its prediction, or with the reason why there is none."""

    id: str
    group: str
    held_out: bool
    measured: float | None
    predicted: float | None
    error: float | None
    reason: str = ""


@dataclass(frozen=True)
class Group:
    """Errors of one group, as fractions: median and 90th percentile of |error|, median error."""

    n: int
    median_error: float
    p90_error: float
    bias: float


@dataclass(frozen=True)
class Validation:
    """All rows of a table and the errors of its groups."""

    rows: tuple[Row, ...]
    groups: Mapping[str, Group]

    def to_json(self) -> dict[str, Any]:
        """Return plain dictionaries: ``groups`` by name and ``rows``."""
        return {
            "groups": {name: asdict(group) for name, group in self.groups.items()},
            "rows": [asdict(row) for row in self.rows],
        }

    def __str__(self) -> str:
        """Return the table of groups, and how many rows were left out for which reason."""
        lines = [f"{'group':<42}{'rows':>5}{'median %':>10}{'p90 %':>8}{'bias %':>8}"]
        for name, g in self.groups.items():
            lines.append(
                f"{name:<42}{g.n:>5}{100 * g.median_error:>10.1f}{100 * g.p90_error:>8.1f}"
                f"{100 * g.bias:>+8.1f}"
            )
        left_out: dict[str, int] = {}
        for row in self.rows:
            if row.predicted is None:
                left_out[row.reason] = left_out.get(row.reason, 0) + 1
        lines += [f"not predicted: {n} rows: {reason}" for reason, n in left_out.items()]
        return "\n".join(lines)


def validate(table: Path, testbeds: Sequence[Testbed] = TESTBEDS) -> Validation:
    """Predict every row of a table of published measurements that the model can.

    Parameters
    ----------
    table : Path
        CSV file with at least the columns `COLUMNS`.
    testbeds : sequence of Testbed
        What the machines of the table are; the calibration tries others than `TESTBEDS`.

    Raises
    ------
    DataError
        If the file is missing, empty or lacks a column.
    """
    return group_rows(predict_row(cells, testbeds) for cells in read_table(table))


def group_rows(predicted: Iterable[Row]) -> Validation:
    """Put predicted rows and the errors of their groups together."""
    rows = tuple(predicted)
    groups: dict[str, Group] = {}
    for name in sorted({row.group for row in rows if row.error is not None}):
        members = [row for row in rows if row.group == name and row.error is not None]
        groups[name] = _group([row.error for row in members if row.error is not None])
        held = [row.error for row in members if row.held_out and row.error is not None]
        if held and len(held) < len(members):
            groups[f"{name}, held out"] = _group(held)
    return Validation(rows, groups)


def read_table(table: Path) -> list[dict[str, str]]:
    """Return the rows of a table of measurements, as text.

    Raises
    ------
    DataError
        If the file is missing, empty or lacks a column.
    """
    if not table.is_file():
        raise DataError(f"validate: table {table} does not exist; give a CSV file of measurements")
    with table.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
        if missing:
            raise DataError(
                f"validate: {table.name} lacks the column {', '.join(missing)}; "
                f"expected {', '.join(COLUMNS)}"
            )
        return [{key: value or "" for key, value in row.items() if key} for row in reader]


def is_held_out(cells: Mapping[str, str]) -> bool:
    """Tell whether a measurement is left out of the calibration.

    The first byte of the SHA-256 of what was measured, ``op|dtype|m|k|n|block|density|mode``, lies
    in the upper half. All rows on the same operation fall on the same side, so that a speed-up
    cannot leak the time that it was derived from.
    """
    keys = ("op", "dtype", "m", "k", "n", "block", "density", "mode")
    digest = hashlib.sha256("|".join(cells[key] for key in keys).encode()).digest()
    return digest[0] >= 256 * (1 - HELD_OUT)


def _group(errors: Sequence[float]) -> Group:
    size = sorted(abs(error) for error in errors)
    p90 = size[min(len(size) - 1, math.ceil(0.9 * len(size)) - 1)]
    return Group(len(size), statistics.median(size), p90, statistics.median(errors))


def predict_row(cells: Mapping[str, str], testbeds: Sequence[Testbed] = TESTBEDS) -> Row:
    """Predict one row of a table, or say why not."""
    group, predicted, reason = "", None, ""
    measured = _number_or_none(cells["value"])
    try:
        if cells["metric"] == "no_result":
            raise _NotPredictedError(_reason_of_no_result(cells, testbeds))
        if measured is None:
            raise _NotPredictedError(f"value {cells['value']!r} is not a number")
        testbed = _testbed(cells, testbeds)
        group = _group_name(cells, testbed)
        predicted = _predict_metric(cells, testbed)
    except _NotPredictedError as left_out:
        reason = str(left_out)
    error = None if predicted is None or not measured else predicted / measured - 1
    return Row(cells["id"], group, is_held_out(cells), measured, predicted, error, reason)


def _testbed(cells: Mapping[str, str], testbeds: Sequence[Testbed]) -> Testbed:
    for start, label in _CELLS:
        if cells["machine"].startswith(start):
            return next(testbed for testbed in testbeds if testbed.label == label)
    if cells["op"].startswith("train:"):
        raise _NotPredictedError("training of a whole model on many chips is not modelled here")
    raise _NotPredictedError(f"no testbed for machine {cells['machine']!r}")


def _group_name(cells: Mapping[str, str], testbed: Testbed) -> str:
    op = "sparse library" if cells["op"] in SPARSE_LIBRARY else cells["op"]
    parts = [testbed.label, op]
    if op == "spmm":
        parts.insert(1, cells["mode"])
    if op == "matmul" and testbed.label == "bow":
        parts.append(cells["dtype"].lower())
    if cells["metric"] == "speedup_vs_dense":
        parts.append("speed-up")
    if cells["n"] == "best":
        parts.append("best n")
    return " ".join(parts)


def _predict_metric(cells: Mapping[str, str], testbed: Testbed) -> float:
    """Return the prediction in the unit of the row's metric."""
    op, metric = cells["op"], cells["metric"]
    if op == "peak" and metric == "throughput":
        machine = load_machine(testbed.machine)
        return 2 * machine.mac_per_s("fp16" if cells["dtype"] == "mixed" else "fp32") / 1e12
    if op == "matmul best" and metric == "throughput":
        format = "fp16" if "FP16" in cells["dtype"] else "fp32"
        squares = (Contraction(1, m, m, m, format, format, format) for m in BEST_SIDE)
        costs = [_cost(square, testbed, "matmul") for square in squares]
        return max(2e-12 * cost.n_mac / cost.time_s for cost in costs if cost.fits)
    if op not in ("matmul", "spmm", "softmax", "gelu", *SPARSE_LIBRARY):
        raise _NotPredictedError(f"no prediction for {op!r} of metric {metric!r}")
    if metric == "fitted_speedup_law":
        raise _NotPredictedError("a fitted law, not a measurement")
    if op in ("softmax", "gelu"):
        if metric != "throughput":
            raise _NotPredictedError(f"no prediction for {op!r} of metric {metric!r}")
        work = _vector_work(cells)
        n = work.n_element if isinstance(work, Pointwise) else work.n_row * work.n_col
        return n / _cost(work, testbed, op).time_s / 1e9
    if metric == "speedup_vs_dense":
        sparse = _best_throughput(cells, testbed, dense=False)
        dense = _best_throughput(cells, testbed, dense=True)
        return sparse / dense / _density(cells)
    if metric in ("throughput", "nonzero_throughput"):
        dense = op == "matmul"
        share = _density(cells) if dense and metric == "nonzero_throughput" else 1.0
        return _best_throughput(cells, testbed, dense=dense) * share / 1e12
    if metric == "latency":
        return 1e3 * _cost(_product(cells, int(cells["n"]), dense=True), testbed, "matmul").time_s
    raise _NotPredictedError(f"no prediction for {op!r} of metric {metric!r}")


def _reason_of_no_result(cells: Mapping[str, str], testbeds: Sequence[Testbed]) -> str:
    """Say whether a case without a result, most likely for want of memory, would fit here."""
    work = _product(cells, _whole(cells, "n"), dense=cells["op"] == "matmul")
    fits = _cost(work, _testbed(cells, testbeds), cells["op"]).fits
    return f"the source has no result; predicted {'to fit' if fits else 'not to fit'} in memory"


def _best_throughput(cells: Mapping[str, str], testbed: Testbed, *, dense: bool) -> float:
    """Return the operations per second on (live) entries, the best over n if n is not given."""
    columns = BEST_N if cells["n"] == "best" else (_whole(cells, "n"),)
    rates = []
    for n in columns:
        work = _product(cells, n, dense=dense)
        cost = _cost(work, testbed, "matmul" if dense else "spmm")
        if cost.fits or len(columns) == 1:
            rates.append(2 * cost.n_mac / cost.time_s)
    return max(rates)


@lru_cache(maxsize=4096)
def _cost(work: Work, testbed: Testbed, op: str) -> ItemCost:
    return cost_item(work, testbed.load(op))


def _product(cells: Mapping[str, str], n: int, *, dense: bool) -> Contraction | SparseContraction:
    m, k, format = _whole(cells, "m"), _whole(cells, "k"), _format(cells)
    if dense:
        return Contraction(1, m, k, n, format, format, format)
    b = _whole(cells, "block")
    n_block = round(m * k * _density(cells) / b**2)
    mode = "static" if cells["mode"] == "static" else "dynamic"
    return SparseContraction(
        "spmm", m, k, n, (b, b), n_block, format, format, format, mode  # type: ignore[arg-type]
    )  # fmt: skip


def _vector_work(cells: Mapping[str, str]) -> Pointwise | Softmax:
    format = _format(cells)
    if cells["op"] == "softmax":
        return Softmax(_whole(cells, "m"), _whole(cells, "n"), format)
    return Pointwise(_whole(cells, "m"), "transcendental", format, format)


def _format(cells: Mapping[str, str]) -> str:
    if cells["dtype"] not in FORMATS:
        raise _NotPredictedError(f"dtype {cells['dtype']!r} is unknown")
    return FORMATS[cells["dtype"]]


def _density(cells: Mapping[str, str]) -> float:
    value = _number_or_none(cells["density"])
    if value is None or not 0 < value <= 1:
        raise _NotPredictedError(f"density {cells['density']!r} is not a number in (0, 1]")
    return value


def _whole(cells: Mapping[str, str], key: str) -> int:
    value = _number_or_none(cells[key])
    if value is None or value != int(value) or value < 1:
        raise _NotPredictedError(f"{key} {cells[key]!r} is not a positive whole number")
    return int(value)


def _number_or_none(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
