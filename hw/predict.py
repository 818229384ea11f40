"""The prediction for one row of a table of measured operations, in the unit of its metric."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

from hw.item import ItemCost
from hw.links import Group, all_reduce
from hw.machine import TileMachine, load_machine
from hw.targets import cost_item
from hw.testbed import NotPredictedError, Testbed
from hw.work import Contraction, Pointwise, Softmax, SparseContraction, Work

Cells = Mapping[str, str]
#: Formats as the tables write them. Half storage with fp32 arithmetic counts as fp32.
FORMATS = {
    **{"FP16": "fp16", "FP32": "fp32", "BF16": "bf16", "TF32": "tf32", "INT8": "int8"},
    **{"FP16 storage FP32 compute (FP16*)": "fp32", "mixed": "fp16", "mixed FP16": "fp16"},
    "FP16.16": "fp16",
}
#: Dense columns tried where a table gives the best over them and does not say which.
BEST_N = (16, 64, 256, 1024, 2048, 4096, 8192, 16384, 65536)
#: Sides of square products where a table gives the best product of a machine.
BEST_SIDE = (512, 1024, 1536, 2048, 4096)
SPARSE_LIBRARY = ("cusparse_bsr_spmm", "cusparse_csr_spmm")
#: Tokens, width, inner width and experts of the mixtures that stk's bars stand for (MegaBlocks,
#: megablocks/ops/matmul_benchmark.py; Gale et al. 2022, arXiv 2211.15841).
MIXTURES = {
    "MoE-XS": (65536, 512, 2048, 64),
    "MoE-Small": (32768, 768, 3072, 64),
    "MoE-Medium": (8192, 1024, 4096, 64),
}
VECTOR = {
    "softmax": "softmax",
    "gelu": "gelu",
    "layernorm": "layer_norm",
    "layer_norm": "layer_norm",
}


#: How many of each unit that a table may use make one of the unit in which a figure is predicted.
UNITS: dict[str, dict[str, float]] = {
    "TFLOP/s": {"PFLOP/s": 1e-3, "TFLOP/s": 1, "GFLOP/s": 1e3},
    "Gelem/s": {"Telem/s": 1e-3, "Gelem/s": 1, "Melem/s": 1e3},
    "TB/s": {"TB/s": 1, "GB/s": 1e3},
    "ms": {"s": 1e-3, "ms": 1, "us": 1e3, "µs": 1e3},
    "x": {"x": 1},
    "%": {"%": 1},
}


def predict_operation(cells: Cells, testbed: Testbed) -> float:
    """Return the prediction in the row's unit; in that of its metric, if the row has none.

    Raises
    ------
    NotPredictedError
        Says what is missing or not modelled.
    """
    value, usual = _predict(cells, testbed)
    unit, known = cells.get("unit") or usual, UNITS[usual]
    if unit not in known:
        raise NotPredictedError(f"unit {unit!r} is none of {', '.join(known)}")
    return value * known[unit]


def _predict(cells: Cells, testbed: Testbed) -> tuple[float, str]:
    """Return a figure and its unit."""
    op, metric = cells["op"], cells["metric"]
    if metric == "fitted_speedup_law":
        raise NotPredictedError("a fitted law, not a measurement")
    if metric == "throughput_vs_cublas":
        return _against_dense(op, testbed), "%"
    figure = _machine_figure(op, cells, testbed)
    if figure is not None:
        return figure, "TB/s" if metric == "bandwidth" else "TFLOP/s"
    if op in VECTOR:
        work = vector_work(cells)
        time_s = operation_cost(work, testbed, VECTOR[op]).time_s
        n = work.n_element if isinstance(work, Pointwise) else work.n_row * work.n_col
        if metric == "throughput":
            return n / time_s / 1e9, "Gelem/s"
        if metric == "latency":
            return time_s * 1e3, "ms"
    elif op.startswith("transformer"):
        if metric == "latency":
            return 1e3 * _transformer_s(cells, testbed), "ms"
    elif op in ("matmul", "spmm", *SPARSE_LIBRARY):
        dense = op == "matmul"
        if metric == "speedup_vs_dense":
            sparse = _best_throughput(cells, testbed, dense=False)
            dense_rate = _best_throughput(cells, testbed, dense=True)
            return sparse / dense_rate / density_of(cells), "x"
        if metric in ("throughput", "nonzero_throughput"):
            share = density_of(cells) if dense and metric == "nonzero_throughput" else 1.0
            return _best_throughput(cells, testbed, dense=dense) * share / 1e12, "TFLOP/s"
        if metric == "latency":
            item = product_of(cells, whole(cells, "n"), dense=dense)
            cost = operation_cost(item, testbed, "matmul" if dense else "spmm")
            return 1e3 * cost.time_s, "ms"
    raise NotPredictedError(_REASON.get(op, f"no prediction for {op!r} of metric {metric!r}"))


_COMPILER = (
    "another compiler's plan, which is not described; the hidden width is not in the table either"
)
_REASON = {
    "exchange p2p on-chip under load": "exchange on the chip is modelled free of contention",
    "exchange p2p off-chip under load": "a range over several loads, which the row does not give",
    **{
        f"SigLIP MLP {what} {order}": _COMPILER
        for what in ("whole", "exchange phases")
        for order in ("columns-fast", "rows-fast")
    },
}


def _machine_figure(op: str, cells: Cells, testbed: Testbed) -> float | None:
    """Return a peak, the best product, or a bandwidth, if the row asks for one."""
    machine = load_machine(testbed.machine)
    if op == "peak" and cells["metric"] == "throughput":
        return 2 * machine.mac_per_s(format_of(cells)) / 1e12
    if op == "matmul best" and cells["metric"] == "throughput":
        format = format_of(cells)
        squares = (Contraction(1, m, m, m, format, format, format) for m in BEST_SIDE)
        costs = [operation_cost(square, testbed, "matmul") for square in squares]
        return max(2e-12 * cost.n_mac / cost.time_s for cost in costs if cost.fits)
    if cells["metric"] != "bandwidth":
        return None
    if op.startswith("exchange aggregate"):
        return machine.traffic_byte_per_s / 1e12
    if op.startswith("device to host"):
        raise NotPredictedError(
            "the machine file's own host_byte_per_s, which was read off such a measurement"
        )
    if op == "local SRAM" and isinstance(machine, TileMachine):
        width = machine.load_interleaved_byte_per_cycle + machine.store_byte_per_cycle
        return machine.n_tile * machine.clock_hz * width / 1e12
    return None


def _against_dense(op: str, testbed: Testbed) -> float:
    """Return the rate of a mixture's block-sparse product over that of a batch of dense ones."""
    words = re.fullmatch(r"block_sparse_layer([01]):(\w+):(sdd|dsd):\w+ (\S+)", op)
    sizes = MIXTURES.get(words.group(4)) if words else None
    if words is None or sizes is None:
        raise NotPredictedError(f"no sizes of the mixture of {op!r} are known")
    tokens, width, inner, n_expert = sizes
    f, side = "fp16", 128
    product = "sddmm" if words.group(3) == "sdd" else "spmm"
    n_block = tokens // side * (inner // side)
    if words.group(2) == "gradw":
        # the sparse gradient or activation, transposed, against dense rows of `width`
        dense = Contraction(n_expert, inner, tokens // n_expert, width, f, f, f)
        product = "spmm_t"
    elif product == "spmm":
        dense = Contraction(n_expert, tokens // n_expert, inner, width, f, f, f)
    else:
        dense = Contraction(n_expert, tokens // n_expert, width, inner, f, f, f)
    sparse = SparseContraction(
        *(product, tokens, inner * n_expert, width, (side, side), n_block, f, f, f, "dynamic"),  # type: ignore[arg-type]
    )
    costs = [operation_cost(work, testbed, "matmul") for work in (dense, sparse)]
    return 100 * costs[0].time_s / costs[1].time_s


def _transformer_s(cells: Cells, testbed: Testbed) -> float:
    """Return a block's forward time: `m` rows, `n` tokens in a sequence, `k` wide; tensor parallel.

    `mode` holds the number of chips, as in ``tp4``; `block` the number of heads (128 wide without).
    """
    rows, n, width = (whole(cells, key) for key in ("m", "n", "k"))
    digits = re.search(r"(\d+)", cells["mode"])
    chips = int(digits.group(1)) if digits else 1
    head = whole(cells, "block") if cells["block"] else max(1, width // 128)
    f, size = format_of(cells), width // head
    batch = max(1, rows // n) * head // chips
    works: list[tuple[Work, str]] = [
        (Contraction(1, rows, width, 3 * width // chips, f, f, f), "matmul"),
        (Contraction(batch, n, size, n, f, f, f), "matmul"),
        (Softmax(batch * n, n, f), "softmax"),
        (Contraction(batch, n, n, size, f, f, f), "matmul"),
        (Contraction(1, rows, width // chips, width, f, f, f), "matmul"),
        (Contraction(1, rows, width, 4 * width // chips, f, f, f), "matmul"),
        (Pointwise(rows * 4 * width // chips, "transcendental", f, f), "gelu"),
        (Contraction(1, rows, 4 * width // chips, width, f, f, f), "matmul"),
        *[(Softmax(rows, width, f, "layer_norm"), "layer_norm")] * 2,
    ]
    machine = load_machine(testbed.machine)
    byte = rows * width * (4 if f == "fp32" else 2)
    summed = 2 * all_reduce(byte, Group(chips), machine).time_s
    return summed + sum(operation_cost(work, testbed, op).time_s for work, op in works)


def _best_throughput(cells: Cells, testbed: Testbed, *, dense: bool) -> float:
    """Return the operations per second on (live) entries, the best over n if n is not given."""
    columns = BEST_N if cells["n"] == "best" else (whole(cells, "n"),)
    rates = []
    for n in columns:
        work = product_of(cells, n, dense=dense)
        cost = operation_cost(work, testbed, "matmul" if dense else "spmm")
        if cost.fits or len(columns) == 1:
            rates.append(2 * cost.n_mac / cost.time_s)
    if not rates:
        raise NotPredictedError("no number of columns that was tried fits in memory")
    return max(rates)


@lru_cache(maxsize=4096)
def operation_cost(work: Work, testbed: Testbed, op: str) -> ItemCost:
    """Return the cost of an item on a testbed, with the overhead of its benchmark."""
    cost = cost_item(work, testbed.load(op))
    waits_s = testbed.host_s.get(op, 0.0) - cost.time_s
    if waits_s <= 0:
        return cost
    parts_s = {**cost.parts_s, "host": waits_s}
    return replace(cost, time_s=cost.time_s + waits_s, parts_s=parts_s)


def product_of(cells: Cells, n: int, *, dense: bool) -> Contraction | SparseContraction:
    """Return the product of a row against `n` dense columns."""
    m, k, format = whole(cells, "m"), whole(cells, "k"), format_of(cells)
    if dense:
        return Contraction(1, m, k, n, format, format, format)
    b = whole(cells, "block")
    n_block = max(1, round(m * k * density_of(cells) / b**2))
    mode = "static" if cells["mode"] == "static" else "dynamic"
    return SparseContraction(
        "spmm", m, k, n, (b, b), n_block, format, format, format, mode  # type: ignore[arg-type]
    )  # fmt: skip


def vector_work(cells: Cells) -> Pointwise | Softmax:
    """Return the item of a softmax, a norm or a GELU."""
    format = format_of(cells)
    if cells["op"] == "gelu":
        n = whole(cells, "n") if cells["n"] else 1
        return Pointwise(whole(cells, "m") * n, "transcendental", format, format)
    kind = "softmax" if cells["op"] == "softmax" else "layer_norm"
    return Softmax(whole(cells, "m"), whole(cells, "n"), format, kind)  # type: ignore[arg-type]


def format_of(cells: Cells) -> str:
    """Return the format of a row."""
    if cells["dtype"] not in FORMATS:
        raise NotPredictedError(_bad(cells, "dtype", "no format that is known"))
    return FORMATS[cells["dtype"]]


def density_of(cells: Cells) -> float:
    """Return the share of live entries."""
    value = number_or_none(cells["density"])
    if value is None or not 0 < value <= 1:
        raise NotPredictedError(_bad(cells, "density", "not a number in (0, 1]"))
    return value


def whole(cells: Cells, key: str) -> int:
    """Return a size."""
    value = number_or_none(cells[key])
    if value is None or value != int(value) or value < 1:
        raise NotPredictedError(_bad(cells, key, "not a positive whole number"))
    return int(value)


def number_or_none(text: str) -> float | None:
    """Return a finite number, or None for any other text."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _bad(cells: Cells, key: str, expected: str) -> str:
    if key in cells.get("missing", "").split():
        return f"the table has no column {key}"
    return f"{key} {cells[key]!r} is {expected}"
