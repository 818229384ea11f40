"""Predictions of the cost model beside published measurements, row by row and by group.

A table is a CSV file with the columns `COLUMNS`. Each row is either predicted, in the unit of its
metric, or left out with a reason; nothing is dropped in silence. `error` is
predicted / measured - 1. `is_held_out` says which rows the calibration never sees. Training runs
(`hw.pods`) were never used to fit anything: all of them are held out.
"""

from __future__ import annotations

import csv
import hashlib
import math
import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from core.errors import DataError, TesseraError
from hw.interval import error_of, interval
from hw.machine import load_machine
from hw.pods import items_of, parse_chips, predict_training, round_of
from hw.predict import (
    SPARSE_LIBRARY,
    VECTOR,
    number_or_none,
    operation_cost,
    predict_operation,
    product_of,
    vector_work,
    whole,
)
from hw.testbed import TESTBEDS, NotPredictedError, Testbed, find_testbed
from hw.work import Work

COLUMNS = (
    *("id", "machine", "op", "dtype", "m", "k", "n", "block", "density", "mode", "metric"),
    "value",
)
#: Without these a table says nothing.
_NEEDED = ("machine", "op", "value")
#: Share of the measurements that the calibration leaves out.
HELD_OUT = 0.5


@dataclass(frozen=True)
class Row:
    """One measurement with its prediction, or with the reason why there is none.

    `low` and `high` bound the measurement nine times in ten, by `hw.interval`; `outside` says what
    of the row lies outside the sizes that were measured for that interval.
    """

    id: str
    group: str
    held_out: bool
    measured: float | None
    predicted: float | None
    error: float | None
    reason: str = ""
    low: float | None = None
    high: float | None = None
    outside: str = ""


@dataclass(frozen=True)
class Group:
    """Errors of one group, as fractions: median and 90th percentile of |error|, median error."""

    n: int
    median_error: float
    p90_error: float
    bias: float


@dataclass(frozen=True)
class Scaling:
    """Throughput by chip on more chips over that on fewer, measured and predicted."""

    model: str
    fewer: int
    more: int
    measured: float
    predicted: float


@dataclass(frozen=True)
class Validation:
    """All rows of a table, the errors of its groups, scaling efficiencies of training runs."""

    rows: tuple[Row, ...]
    groups: Mapping[str, Group]
    scaling: tuple[Scaling, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain dictionaries: ``groups`` by name, ``rows`` and ``scaling``."""
        return {
            "groups": {name: asdict(group) for name, group in self.groups.items()},
            "rows": [asdict(row) for row in self.rows],
            "scaling": [asdict(one) for one in self.scaling],
        }

    def __str__(self) -> str:
        """Return the table of groups, and how many rows were left out for which reason."""
        width = max((len(name) for name in self.groups), default=5)
        lines = [f"{'group':<{width}}{'rows':>5}{'median %':>10}{'p90 %':>8}{'bias %':>8}"]
        for name, g in self.groups.items():
            lines.append(
                f"{name:<{width}}{g.n:>5}{100 * g.median_error:>10.1f}{100 * g.p90_error:>8.1f}"
                f"{100 * g.bias:>+8.1f}"
            )
        inside = [r for r in self.rows if r.low is not None and not r.outside]
        beyond = [r for r in self.rows if r.low is not None and r.outside]
        for name, rows in (("inside", inside), ("outside", beyond)):
            if rows:
                hit = sum(_within(row) for row in rows) / len(rows)
                lines.append(
                    f"{len(rows)} predictions {name} the calibrated range: "
                    f"{hit:.0%} of the measurements lie in their 90 % intervals"
                )
        if self.scaling:
            lines.append("scaling efficiency of training, measured and predicted, in percent")
        for s in self.scaling:
            lines.append(
                f"  {s.model:<40}{s.fewer:>4} to {s.more:<5}{100 * s.measured:>7.1f}"
                f"{100 * s.predicted:>8.1f}{100 * (s.predicted - s.measured):>+8.1f} points"
            )
        left_out: dict[str, int] = {}
        for row in self.rows:
            if row.predicted is None:
                left_out[row.reason] = left_out.get(row.reason, 0) + 1
        lines += [f"not predicted: {n} rows: {reason}" for reason, n in left_out.items()]
        return "\n".join(lines)


def _within(row: Row) -> bool:
    assert row.low is not None
    assert row.high is not None
    assert row.measured is not None
    return row.low <= row.measured <= row.high


def validate(
    table: Path,
    testbeds: Sequence[Testbed] = TESTBEDS,
    machines: Mapping[str, str] | None = None,
) -> Validation:
    """Predict every row of a table of published measurements that the model can.

    Parameters
    ----------
    table : Path
        CSV file with the columns `COLUMNS`; a row that needs a missing one says so.
    testbeds : sequence of Testbed
        What the machines of the table are; the calibration tries others than `TESTBEDS`.
    machines : mapping of str to str, optional
        Machine names or files by the beginning of the table's machine cell.

    Raises
    ------
    DataError
        If the file is missing, empty, or has none of the columns ``machine``, ``op``, ``value``.
    MachineError
        If one of `machines` does not exist or is wrong.
    """
    for machine in (machines or {}).values():
        load_machine(machine)
    table_rows = read_table(table)
    rows = [predict_row(cells, testbeds, machines) for cells in table_rows]
    result = group_rows(rows)
    return Validation(result.rows, result.groups, tuple(_scaling(table_rows, rows)))


def group_rows(predicted: Iterable[Row]) -> Validation:
    """Put predicted rows and the errors of their groups together."""
    rows = tuple(predicted)
    groups: dict[str, Group] = {}
    for name in sorted({row.group for row in rows if row.error is not None}):
        members = [row for row in rows if row.group == name and row.error is not None]
        groups[name] = _group(members)
        held = [row for row in members if row.held_out]
        if held and len(held) < len(members):
            groups[f"{name}, held out"] = _group(held)
    training = [r for r in rows if r.group.startswith("training thr") and r.error is not None]
    if training:
        groups["training throughput, all"] = _group(training)
    return Validation(rows, groups)


def read_table(table: Path) -> list[dict[str, str]]:
    """Return the rows of a table of measurements, as text, absent columns empty.

    Raises
    ------
    DataError
        If the file is missing, not a text, or lacks the columns that any row needs.
    """
    if not table.is_file():
        raise DataError(f"validate: table {table} does not exist; give a CSV file of measurements")
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            names = reader.fieldnames or ()
            missing = [column for column in COLUMNS if column not in names]
            if any(column in missing for column in _NEEDED):
                raise DataError(
                    f"validate: {table.name} lacks the column {', '.join(missing)}; "
                    f"expected {', '.join(COLUMNS)}"
                )
            empty = {**dict.fromkeys(missing, ""), "missing": " ".join(missing)}
            return [
                {**empty, **{k: (v or "").strip() for k, v in row.items() if isinstance(k, str)}}
                for row in reader
            ]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"validate: {table.name} is not a CSV file in UTF-8: {error}") from error


def is_held_out(cells: Mapping[str, str]) -> bool:
    """Tell whether a measurement is left out of the calibration.

    The first byte of the SHA-256 of what was measured, ``op|dtype|m|k|n|block|density|mode``, lies
    in the upper half. All rows on the same operation fall on the same side, so that a speed-up
    cannot leak the time that it was derived from. Training runs are all left out.
    """
    if cells["op"].startswith("train:"):
        return True
    keys = ("op", "dtype", "m", "k", "n", "block", "density", "mode")
    digest = hashlib.sha256("|".join(cells[key] for key in keys).encode()).digest()
    return digest[0] >= 256 * (1 - HELD_OUT)


def _group(rows: Sequence[Row]) -> Group:
    errors = [row.error for row in rows if row.error is not None]
    size = sorted(abs(error) for error in errors)
    p90 = size[min(len(size) - 1, math.ceil(0.9 * len(size)) - 1)]
    return Group(len(size), statistics.median(size), p90, statistics.median(errors))


def predict_row(
    cells: Mapping[str, str],
    testbeds: Sequence[Testbed] = TESTBEDS,
    machines: Mapping[str, str] | None = None,
) -> Row:
    """Predict one row of a table, or say why not."""
    group, reason, outside = "", "", ""
    predicted = low = high = None
    measured = number_or_none(cells["value"])
    try:
        if cells["metric"] == "no_result":
            raise NotPredictedError(_reason_of_no_result(cells, testbeds, machines))
        if measured is None or measured <= 0:
            what = "a number" if measured is None else "positive"
            raise NotPredictedError(f"value {cells['value']!r} is not {what}")
        if cells["op"].startswith("train:"):
            predicted, group = predict_training(cells)
        else:
            testbed = find_testbed(cells["machine"], testbeds, machines)
            group = _group_name(cells, testbed)
            predicted = predict_operation(cells, testbed)
            low, high, outside = _interval(cells, testbed, predicted)
    except NotPredictedError as left_out:
        predicted, reason = None, str(left_out)
    except TesseraError as refused:
        predicted, reason = None, f"cannot be predicted: {refused}"
    error = None if predicted is None or measured is None else predicted / measured - 1
    return Row(
        cells["id"], group, is_held_out(cells), measured, predicted, error, reason,
        low, high, outside,
    )  # fmt: skip


def _interval(
    cells: Mapping[str, str], testbed: Testbed, predicted: float
) -> tuple[float | None, float | None, str]:
    """Return bounds of the measurement for a row that is one operation, and what is outside."""
    op = cells["op"]
    if op not in ("matmul", "spmm", *VECTOR) or cells["n"] == "best":
        return None, None, ""
    if op in VECTOR:
        work: Work = vector_work(cells)
    else:
        work = product_of(cells, whole(cells, "n"), dense=op == "matmul")
    error, outside = error_of(work, testbed.load(op))
    if cells["metric"] == "speedup_vs_dense":
        dense = product_of(cells, whole(cells, "n"), dense=True)
        error = min(0.75, math.hypot(error, error_of(dense, testbed.load(op))[0]))
    if cells["metric"] == "latency":
        return *interval(predicted, error), outside
    return predicted * (1 - error), predicted * (1 + error), outside


def _group_name(cells: Mapping[str, str], testbed: Testbed) -> str:
    op = "sparse library" if cells["op"] in SPARSE_LIBRARY else cells["op"]
    if cells["metric"] == "throughput_vs_cublas":
        op = "block-sparse against dense"
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


def _reason_of_no_result(
    cells: Mapping[str, str], testbeds: Sequence[Testbed], machines: Mapping[str, str] | None
) -> str:
    """Say whether a case without a result, most likely for want of memory, would fit here."""
    work = product_of(cells, whole(cells, "n"), dense=cells["op"] == "matmul")
    fits = operation_cost(work, find_testbed(cells["machine"], testbeds, machines), "spmm").fits
    return f"the source has no result; predicted {'to fit' if fits else 'not to fit'} in memory"


def _scaling(table: Sequence[Mapping[str, str]], rows: Sequence[Row]) -> list[Scaling]:
    """Return the efficiency from the fewest chips of a model to each larger number.

    Runs of one model in one framework, or one round of submissions, belong together; of several,
    the median counts. A time to the target counts as the items that it took, over that time.
    """
    runs: dict[tuple[str, str], dict[int, list[tuple[float, float]]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for cells, row in zip(table, rows, strict=True):
        if row.predicted is None or row.measured is None:
            continue
        if not row.group.startswith("training t"):
            continue
        machine, n_chip = parse_chips(cells["machine"])
        framework = re.search(r"SDK/framework \S+ (\w+)", cells.get("note", ""))
        label = framework.group(1) if framework else round_of(cells)
        key = (f"{machine} {cells['op'].removeprefix('train:')}", label)
        rate = (row.measured, row.predicted)
        if row.group.startswith("training time"):
            items = items_of(cells)
            rate = (items / 60 / row.measured, items / 60 / row.predicted)
        runs[key][n_chip].append((rate[0] / n_chip, rate[1] / n_chip))
    found = []
    for (model, label), by_chip in sorted(runs.items()):
        sizes = sorted(by_chip)
        per_chip = {
            n: [statistics.median(run[i] for run in by_chip[n]) for i in (0, 1)] for n in sizes
        }
        fewest = sizes[0]
        for n in sizes[1:]:
            measured, predicted = (per_chip[n][i] / per_chip[fewest][i] for i in (0, 1))
            found.append(Scaling(f"{model} {label}".strip(), fewest, n, measured, predicted))
    return found
