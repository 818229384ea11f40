"""Refit the coefficients of the cost model on a table of published measurements.

    python benchmarks/calibrate_hw.py --table FILE.csv [--stage tile|gpu]

Each stage fits a few coefficients on the rows that `hw.validate.is_held_out` does not hold out, by
the mean of median and 90th percentile of |log(predicted / measured)|, each group of rows counting
alike, and prints them beside the values in use, with the errors on both halves. Nothing is written:
a changed coefficient is entered in its machine file by hand, in a commit of its own.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize

from hw.machine import load_machine
from hw.testbed import TESTBEDS, Testbed
from hw.validate import group_rows, is_held_out, predict_row, read_table

#: Coefficients by stage and testbed: fields of its machine, its `clock_fraction`, `overhead.OP`.
STAGES: dict[str, dict[str, tuple[str, ...]]] = {
    "tile": {
        "bow": (
            "held_block_cycle",
            "product_start_cycle",
            "sparse_vertex_factor",
            "sparse_piece_cycle",
        )
    },
    "gpu": {
        "a100 80GB": (
            "hbm_fraction",
            "wave_fill_s",
            "small_tile_loss",
            "l2_byte_per_s",
            "overhead.softmax",
            "overhead.layer_norm",
        ),
        "a100 dgx": ("clock_fraction",),
    },
}
GROUPS = {
    "tile": ("bow matmul fp16", "bow matmul fp32", "bow static spmm"),
    "gpu": (
        "a100 80GB matmul",
        "a100 80GB softmax",
        "a100 80GB gelu",
        "a100 80GB layernorm",
        "a100 dgx matmul",
    ),
}


def value_in_use(testbed: Testbed, name: str) -> float:
    """Return a coefficient as it stands."""
    if name.startswith("overhead."):
        return testbed.overhead_s[name.removeprefix("overhead.")]
    if name == "clock_fraction":
        return testbed.clock_fraction
    return float(getattr(load_machine(testbed.machine), name))


def with_values(values: Mapping[tuple[str, str], float]) -> tuple[Testbed, ...]:
    """Return the testbeds with other coefficients; machines are shared by name."""
    by_label = {testbed.label: testbed for testbed in TESTBEDS}
    fields: dict[str, dict[str, Any]] = {}
    for (label, name), value in values.items():
        testbed = by_label[label]
        if name.startswith("overhead."):
            overhead = {**testbed.overhead_s, name.removeprefix("overhead."): value}
            by_label[label] = replace(testbed, overhead_s=overhead)
        elif name == "clock_fraction":
            by_label[label] = replace(testbed, clock_fraction=value)
        else:
            fields.setdefault(str(testbed.machine), {})[name] = value
    return tuple(
        replace(t, machine=replace(load_machine(t.machine), **fields.get(str(t.machine), {})))
        for t in by_label.values()
    )


def main() -> None:
    """Fit each stage and print what it finds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--stage", choices=list(STAGES), action="append")
    parser.add_argument("--evaluations", type=int, default=120)
    arguments = parser.parse_args()
    rows = read_table(arguments.table)
    for stage in arguments.stage or STAGES:
        cells = [c for c in rows if predict_row(c).group in GROUPS[stage]]
        fitted = [c for c in cells if not is_held_out(c)]
        names = [(label, name) for label, group in STAGES[stage].items() for name in group]
        start = [value_in_use(next(t for t in TESTBEDS if t.label == a), b) for a, b in names]

        def values(x: np.ndarray, names=names, start=start) -> dict[tuple[str, str], float]:
            return {n: float(s * math.exp(v)) for n, s, v in zip(names, start, x, strict=True)}

        def loss(x: np.ndarray, fitted=fitted, values=values) -> float:
            testbeds = with_values(values(x))
            by_group: dict[str, list[float]] = {}
            for c in fitted:
                row = predict_row(c, testbeds)
                assert row.predicted is not None
                assert row.measured is not None
                error = abs(math.log(row.predicted / row.measured))
                by_group.setdefault(row.group, []).append(error)
            return float(np.mean([np.quantile(e, (0.5, 0.9)).mean() for e in by_group.values()]))

        simplex = np.vstack([np.zeros(len(names)), 0.1 * np.eye(len(names))])
        options = {"maxfev": arguments.evaluations, "initial_simplex": simplex, "xatol": 0.005}
        result = minimize(loss, simplex[0], method="Nelder-Mead", options=options)
        print(f"stage {stage}: {len(fitted)} of {len(cells)} rows, loss {result.fun:.4f}")
        for (label, name), old, new in zip(names, start, values(result.x).values(), strict=True):
            print(f"  {label:<12}{name:<26}{old:<12.5g}-> {new:.5g}")
        testbeds = with_values(values(result.x))
        print(group_rows(predict_row(c, testbeds) for c in cells))


if __name__ == "__main__":
    main()
