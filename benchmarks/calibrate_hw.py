"""Refit the coefficients of the cost model on a table of published measurements.

    python -m benchmarks.calibrate_hw --table FILE.csv [--stage tile|move|gpu]

Each stage fits a few coefficients on the rows that `hw.validate.is_held_out` does not hold out, by
the mean of median and 90th percentile of |log(predicted / measured)|, each group of rows counting
alike, and prints them beside the values in use, with the errors on both halves. Nothing is written:
a changed coefficient is entered in its machine file by hand, in a commit of its own.

The stages together fit all coefficients marked ``fitted``, each time from the round numbers of
`START`: the values that ship are what they print, to three digits. Stage ``move`` puts the results
of static products in place by the byte instead of by the piece (`sparse_piece_cycle` 0) and keeps
the rate alone: it stands for operands that are read in another order, of which no measurement is
published; its other coefficient is not used. A layer norm's rows are not in the table:
`LAYER_NORM` adds them.
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
from hw.validate import COLUMNS, group_rows, is_held_out, predict_row, read_table

#: Layer norm of fp16 on an A100 80 GB, rows, columns, thousand million entries a second. Facts:
#: PrincetonUniversity/LLMCompass at b95c6c95, ae/figure5/de, measured there.
LAYER_NORM = [
    *((4096, 32, 2.476), (4096, 64, 4.844), (4096, 128, 10.06), (4096, 256, 19.59)),
    *((4096, 512, 39.27), (4096, 1024, 78.89), (4096, 2048, 139.1), (4096, 4096, 211.3)),
    *((4096, 8192, 265.3), (4096, 16384, 210.4), (4096, 32768, 199.3), (32, 4096, 2.499)),
    *((64, 4096, 5.021), (128, 4096, 9.996), (256, 4096, 20.08), (512, 4096, 40.16)),
    *((1024, 4096, 79.60), (2048, 4096, 141.9), (8192, 4096, 284.9), (16384, 4096, 345.8)),
    (32768, 4096, 385.8),
]
#: Coefficients by stage and testbed: fields of its machine, its `clock_fraction`, `overhead.OP`,
#: `host.OP`.
STAGES: dict[str, dict[str, tuple[str, ...]]] = {
    "tile": {
        "bow": (
            "held_block_cycle",
            "product_start_cycle",
            "sparse_vertex_factor",
            "sparse_piece_cycle",
        )
    },
    "move": {"bow": ("scatter_cycle_per_byte", "sparse_vertex_factor")},
    "gpu": {
        "a100 80GB": (
            "hbm_fraction",
            "wave_fill_s",
            "small_tile_loss",
            "l2_byte_per_s",
            "overhead.softmax",
            "host.layer_norm",
        ),
        "a100 dgx": ("clock_fraction",),
    },
}
START = {
    **{"held_block_cycle": 10.0, "product_start_cycle": 600.0, "sparse_vertex_factor": 1.1},
    **{"sparse_piece_cycle": 200.0, "scatter_cycle_per_byte": 8.0, "hbm_fraction": 0.85},
    **{"wave_fill_s": 3e-6, "small_tile_loss": 0.08, "l2_byte_per_s": 4e12},
    **{"overhead.softmax": 1.2e-5, "host.layer_norm": 5e-5, "clock_fraction": 0.8},
}
#: Values that a stage sets and does not fit.
FIXED: dict[str, dict[tuple[str, str], float]] = {"move": {("bow", "sparse_piece_cycle"): 0.0}}
GROUPS = {
    "tile": ("bow matmul fp16", "bow matmul fp32", "bow static spmm"),
    "move": ("bow static spmm",),
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
    kind, _, op = name.partition(".")
    if op:
        return float(getattr(testbed, f"{kind}_s")[op])
    if name == "clock_fraction":
        return testbed.clock_fraction
    return float(getattr(load_machine(testbed.machine), name))


def with_values(values: Mapping[tuple[str, str], float]) -> tuple[Testbed, ...]:
    """Return the testbeds with other coefficients; machines are shared by name."""
    by_label = {testbed.label: testbed for testbed in TESTBEDS}
    fields: dict[str, dict[str, Any]] = {}
    for (label, name), value in values.items():
        testbed = by_label[label]
        kind, _, op = name.partition(".")
        if op:
            times = {**getattr(testbed, f"{kind}_s"), op: value}
            by_label[label] = replace(testbed, **{f"{kind}_s": times})
        elif name == "clock_fraction":
            by_label[label] = replace(testbed, clock_fraction=value)
        else:
            fields.setdefault(str(testbed.machine), {})[name] = value
    return tuple(
        replace(t, machine=replace(load_machine(t.machine), **fields.get(str(t.machine), {})))
        for t in by_label.values()
    )


def layer_norm_rows() -> list[dict[str, str]]:
    """Return `LAYER_NORM` as rows of a table."""
    empty = dict.fromkeys(COLUMNS, "")
    same = {
        **{"machine": "A100 80GB (LLMCompass testbed)", "op": "layernorm", "dtype": "FP16"},
        **{"mode": "dense", "metric": "throughput"},
    }
    return [
        {**empty, **same, "id": f"LN-{m}-{n}", "m": str(m), "n": str(n), "value": str(rate)}
        for m, n, rate in LAYER_NORM
    ]


def main() -> None:
    """Fit each stage and print what it finds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--stage", choices=list(STAGES), action="append")
    parser.add_argument("--evaluations", type=int, default=300)
    arguments = parser.parse_args()
    table = [row for row in read_table(arguments.table) if not row["op"].startswith("train:")]
    rows = [*table, *layer_norm_rows()]
    for stage in arguments.stage or STAGES:
        cells = [c for c in rows if predict_row(c).group in GROUPS[stage]]
        fitted = [c for c in cells if not is_held_out(c)]
        names = [(label, name) for label, group in STAGES[stage].items() for name in group]
        start = [START[name] for _, name in names]
        in_use = [value_in_use(next(t for t in TESTBEDS if t.label == a), b) for a, b in names]
        fixed = FIXED.get(stage, {})

        def values(
            x: np.ndarray, names=names, start=start, fixed=fixed
        ) -> dict[tuple[str, str], float]:
            fitted = {n: float(s * math.exp(v)) for n, s, v in zip(names, start, x, strict=True)}
            return {**fitted, **fixed}

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
        for (label, name), old, new in zip(names, in_use, values(result.x).values(), strict=False):
            print(f"  {label:<12}{name:<26}{old:<12.5g}-> {new:.3g}", flush=True)
        testbeds = with_values(values(result.x))
        print(group_rows(predict_row(c, testbeds) for c in cells))


if __name__ == "__main__":
    main()
