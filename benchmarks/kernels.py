"""The command `tessera bench kernels`: one layer or the whole table; rows kept, tables made.

Rows are appended as they are measured; once the tables are made from them, the newest of every
question stay.
"""

import argparse
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

import core
from benchmarks import kernels_measure as m
from benchmarks.kernels_rows import measure_messages, measure_rounding, measure_segment_sum
from benchmarks.kernels_stack import measure_integer_stack, measure_stack
from core.errors import ConfigError

RESULTS = Path(__file__).parent / "results" / "kernels.jsonl"
README = Path(__file__).parent / "README.md"
#: (batch, features, out_features) of the table without flags.
SHAPES = (
    (1024, 1024, 1024), (64, 512, 512), (1024, 512, 512), (64, 1024, 1024), (200, 700, 900),
    (333, 1301, 2497), (256, 2048, 2048), (64, 4096, 4096), (1024, 4096, 4096),
)  # fmt: skip
#: Those on which two or three things about one product are looked at in detail.
FEW = (SHAPES[0], SHAPES[6], SHAPES[4], SHAPES[1])
BLOCKS = (1, 4, 8, 16)
Row = dict[str, Any]
#: What makes two rows answers to one question; the newer one counts.
ASKED = (
    "what", "batch", "features", "out_features", "block", "density", "dtype", "pass", "edges",
    "n_molecule", "n_feature", "format", "build", "n_thread", "processor", "instructions",
)  # fmt: skip


def the_table(n_repeat: int = 20) -> Iterator[tuple[str, Callable[[], list[Row]]]]:
    """Everything that is measured without flags, as (name, measurement)."""

    def one(measure: Callable[..., Row], *args: Any, **how: Any) -> Callable[[], list[Row]]:
        return lambda: [measure(*args, **how)]

    products = partial(m.measure_products, n_repeat=n_repeat)
    for shape in SHAPES:
        for block in BLOCKS:
            for density in (0.1, 0.05, 0.01):
                name = f"{shape} block {block}, {100 * (1 - density):g} % zeros"
                peers = shape == SHAPES[0] and density == 0.1
                yield name, partial(products, *shape, block, density, library_peers=peers)
    for batch, features, out_features in SHAPES:
        for block in BLOCKS[1:]:
            for density in (0.1, 0.01):
                if features == out_features:
                    name = f"packed stack {batch} x {features} block {block}, density {density}"
                    yield name, partial(measure_stack, batch, features, block, density)
        if features == out_features:
            name = f"packed stack {batch} x {features} int8"
            yield name, partial(measure_integer_stack, batch, features, 16, 0.1)
    for dtype, blocks in (("bf16", (4, 8, 16)), ("int8", (4, 8, 16))):
        for shape in SHAPES:
            for block in blocks if shape in FEW else blocks[-1:]:
                yield (
                    f"{dtype} {shape} block {block}",
                    partial(products, *shape, block, 0.1, dtype=dtype),
                )
    for shape in SHAPES:
        for block in BLOCKS:
            yield (
                f"break-even {shape} block {block}",
                one(m.measure_break_even, *shape, block, n_repeat=max(3, n_repeat // 3)),
            )
    for block in BLOCKS:
        yield f"instruction sets, block {block}", partial(m.measure_instructions, block)
    for block in (1, 16):
        yield f"two threads, block {block}", one(m.measure_threads, block, n_repeat=n_repeat)
    for density in (0.2, 0.1, 0.05):
        yield f"SparseProp, density {density}", partial(m.measure_sparseprop, density)
    yield "call overhead", one(m.measure_overhead)
    for n_feature in (128, 256):
        for edges in ("none", "rows", "kinds"):
            yield f"messages {n_feature} {edges}", one(measure_messages, n_feature, edges=edges)
        yield f"segment sum {n_feature}", one(measure_segment_sum, n_feature)
    yield "messages in bf16", one(measure_messages, 256, edges="kinds", dtype="bf16")
    for format in ("fp8_e4m3", "fp8_e5m2", "bf16", "int8"):
        yield f"rounding {format}", one(measure_rounding, format, n_repeat=n_repeat)


def keep(rows: Sequence[Row], file: Path) -> None:
    """Append rows to `file` as JSON lines."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as out:
        out.writelines(json.dumps(row) + "\n" for row in rows)


def newest(rows: Sequence[Row]) -> list[Row]:
    """Return the last row of every question."""
    return list({tuple(str(row.get(k)) for k in ASKED): row for row in rows}.values())


#: Goal, its bound ("<" or ">"), rows it is about, figure. The worst row counts.
GOALS: tuple[tuple[str, str, float, Row, str], ...] = (
    *(
        (f"break-even sparsity of a step against oneDNN, block {block}", "<", share,
         {"what": "break-even", "block": block}, "sparsity_vs_onednn")
        for block, share in ((16, 0.15), (8, 0.25), (4, 0.30), (1, 0.50))
    ),
    *(
        (f"step at 90 % zeros over oneDNN, block {block}", ">", goal,
         {"what": "product", "pass": "step", "dtype": "fp32", "density": 0.1, "block": block},
         "ratio_vs_onednn")
        for block, goal in ((16, 8.0), (8, 8.0), (4, 8.0), (1, 5.0))
    ),
    *(
        (f"step at 99 % zeros over oneDNN, {n} features", ">", goal,
         {"what": "product", "pass": "step", "dtype": "fp32", "density": 0.01, "features": n},
         "ratio_vs_onednn")
        for n, goal in ((1024, 25.0), (4096, 40.0))
    ),
    *(
        (f"step at 90 % zeros, layers that stay packed, block {block}", ">", 8.0,
         {"what": "packed stack", "dtype": "fp32", "density": 0.1, "block": block},
         "ratio_vs_onednn")
        for block in (16, 8, 4)
    ),
    *(
        (f"step at 99 % zeros, layers that stay packed, {n} features", ">", goal,
         {"what": "packed stack", "density": 0.01, "features": n}, "ratio_vs_onednn")
        for n, goal in ((1024, 25.0), (4096, 40.0))
    ),
    ("bf16 step at 90 % zeros over fp32 torch.mm, block 16", ">", 16.0,
     {"what": "product", "pass": "step", "dtype": "bf16", "density": 0.1, "block": 16},
     "ratio_vs_torch_mm"),
    ("int8 forward at 90 % zeros over fp32 torch.mm, block 16", ">", 30.0,
     {"what": "product", "dtype": "int8", "density": 0.1, "block": 16}, "ratio_vs_torch_mm"),
    ("the same over dense int8", ">", 5.0,
     {"what": "product", "dtype": "int8", "density": 0.1, "block": 16},
     "ratio_vs_same_dtype_dense"),
    ("int8 forward at 90 % zeros over fp32 torch.mm, layers that stay packed", ">", 30.0,
     {"what": "packed stack", "dtype": "int8"}, "ratio_vs_torch_mm"),
    ("the same over dense int8, its rounding not counted", ">", 5.0,
     {"what": "packed stack", "dtype": "int8"}, "ratio_vs_same_dtype_dense"),
    ("AVX2 build's share of its peak over the best build's", ">", 0.7,
     {"what": "instruction sets", "build": "avx2"}, "fraction_over_best_build"),
    ("messages, forward and backward, over PyG's scatter", ">", 8.0,
     {"what": "messages", "edges": "none", "dtype": "fp32"}, "step_ratio_vs_pyg_scatter"),
    ("messages, forward, in copies of the atoms", "<", 1.5,
     {"what": "messages", "edges": "none", "dtype": "fp32"}, "time_over_copy"),
    ("stochastic rounding to e4m3 over the best library", ">", 10.0,
     {"what": "rounding", "format": "fp8_e4m3"}, "ratio_vs_best_library"),
    ("two threads over one", ">", 1.8, {"what": "threads"}, "speedup"),
    ("call of a small layer beyond nn.Linear, µs", "<", 5.0, {"what": "call overhead"},
     "forward_beyond_linear_us"),
)  # fmt: skip


def goals(rows: Sequence[Row]) -> str:
    """Markdown: each goal, the worst and middle row of one processor, how many rows reach it."""
    head = ["", "goal", "worst", "where", "median", "reached in"]
    lines = [
        f"## Goals, {rows[0]['processor']}",
        "",
        f"| {' | '.join(head)} |",
        "|---" * len(head) + "|",
    ]
    for text, sense, bound, wanted, figure in GOALS:
        mine = [r for r in newest(rows) if all(r.get(k) == v for k, v in wanted.items())]
        known = sorted((r for r in mine if not math.isnan(r.get(figure, math.nan))),
                       key=lambda r: r[figure], reverse=sense == "<")  # fmt: skip
        cells = ["not measured", "", "", ""]
        if known:
            is_reached = [r[figure] <= bound if sense == "<" else r[figure] >= bound for r in known]
            middle = statistics.median(r[figure] for r in known)
            cells = [f"{known[0][figure]:.3g}", where(known[0]), f"{middle:.3g}",
                     f"{sum(is_reached)} of {len(known)}"]  # fmt: skip
        sign = "≤" if sense == "<" else "≥"
        lines.append(f"| {text} | {sign} {bound:g} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def where(row: Row) -> str:
    """Say in few words which product or message a row is about."""
    if "features" in row:
        size = f"{row['batch']} x {row['features']}"
        out = row.get("out_features", row["features"])
        size += f" to {out}" if out != row["features"] else ""
        return f"{size}, block {row['block']}"
    return f"{row['n_feature']} features" if "n_feature" in row else ""


def tables(rows: Sequence[Row]) -> str:
    """Markdown of the newest row of every question."""
    order = ("batch", "features", "dtype", "block", "density", "n_feature", "edges")
    parts: dict[str, list[str]] = {}
    for row in sorted(newest(rows), key=lambda r: (r["what"], *(r.get(k, 0) for k in order))):
        where = f"{row['processor']}, {row['instructions']}, {row['n_thread']} thread"
        if row["what"] == "product":
            title = f"Batch {row['batch']}, {row['features']} to {row['out_features']}, {where}"
            others = ", ".join(
                f"{k.removeprefix('ratio_vs_')} {v:.3g}"
                for k, v in row.items()
                if k.startswith("ratio_vs_") and k not in RATIOS
            )
            cells = (
                row["dtype"], row["block"], f"{100 * (1 - row['density']):.3g} %", row["pass"],
                f"{1e3 * row['time_s']:.3f}",
                *(f"{row[k]:.2f}" for k in RATIOS), others, row["commit"],
            )  # fmt: skip
            head = ["format", "block", "zeros", "pass", "time_ms", "torch.mm", "oneDNN"]
            head += ["same-format", "peak", "other peers", "commit"]
        else:
            skipped = {"what", "seed", "n_repeat", "processor", "instructions", "n_thread", "torch",
                       "load"}  # fmt: skip
            title = f"{row['what'][0].upper()}{row['what'][1:]}, {where}"
            head = [k for k in row if k not in skipped]
            cells = tuple(f"{row[k]:.3g}" if type(row[k]) is float else row[k] for k in head)
        first = [f"## {title}", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
        parts.setdefault(title, first).append(f"| {' | '.join(map(str, cells))} |")
    return "\n\n".join("\n".join(lines) for lines in parts.values()) + "\n"


RATIOS = (
    "ratio_vs_torch_mm", "ratio_vs_onednn", "ratio_vs_same_dtype_dense", "fraction_of_peak",
)  # fmt: skip
INTRODUCTION = """# Benchmarks

Written by `tessera bench kernels` from results/kernels.jsonl; the newest row of every question.
Columns named after a peer say how many times faster than that peer: torch.mm, oneDNN with weights
packed ahead, and torch's dense product in the same format. `peak` is the share of the multiply-adds
that one core does without touching memory. A step is forward, input and weight gradient; dense
steps count as three forward products. int8 products round their inputs first; their dense peer
`torch._int_mm` gets them rounded. Single cells scatter by some 10 %.

"""


def page(rows: Sequence[Row]) -> str:
    """Return the whole README of the benchmarks."""
    mine = newest(rows)
    # A process of its own and the peers in it make a load of one.
    n_quiet = sum(row.get("load", math.inf) < 2 for row in mine)
    load = (
        f"{len(mine) - n_quiet} of {len(mine)} rows were measured beside other work on the machine "
        "(load average of two and more, or not noted):\nsmall layers and threads suffer from that "
        "most.\n\n"
    )
    processors = dict.fromkeys(row["processor"] for row in reversed(mine))  # latest first
    reached = (goals([r for r in mine if r["processor"] == name]) for name in processors)
    return INTRODUCTION + load + "\n".join([*reached, tables(rows)])


def read(file: Path) -> list[Row]:
    """Return the rows of a file, oldest first."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def _replace(file: Path, text: str) -> None:
    whole = file.with_suffix(".part")
    whole.write_text(text, "utf-8")
    os.replace(whole, file)


def _measure_all(file: Path, n_repeat: int, only: str) -> list[Row]:
    """Measure the whole table; rows are kept at once, so that an end in between loses nothing."""
    rows: list[Row] = []
    begin, work = time.perf_counter(), [part for part in the_table(n_repeat) if only in part[0]]
    if not work:
        names = "\n  ".join(name for name, _ in the_table())
        raise ConfigError(f"--only {only!r} fits nothing of the table; its parts are\n  {names}")
    for i, (name, measure) in enumerate(work, 1):
        elapsed = time.perf_counter() - begin
        print(f"[{i}/{len(work)}, {elapsed:4.0f} s] {name}", file=sys.stderr, flush=True)
        new = measure()
        keep(new, file)
        rows += new
    return rows


def _count(text: str) -> int:
    """Read a whole number of one or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of 1 or more, got {text!r}")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure one layer, or without a size the whole table; keep the rows and print tables."""
    parser = argparse.ArgumentParser(prog="tessera bench kernels", description=main.__doc__)
    parser.add_argument("--batch", type=_count, default=1024)
    parser.add_argument("--features", type=_count)
    parser.add_argument("--out-features", type=_count)
    parser.add_argument("--block", type=_count)
    parser.add_argument("--density", type=float)
    parser.add_argument("--dtype", choices=tuple(m.DTYPES))
    parser.add_argument(
        "--pass", dest="passes", choices=m.PASSES, help="all, if left out; int8 has forward only"
    )
    parser.add_argument("--repeat", type=_count, default=20)
    parser.add_argument("--threads", type=_count, default=1)
    parser.add_argument("--json", type=Path, help="append rows here and leave the tables alone")
    parser.add_argument(
        "--only", metavar="TEXT", help="of the whole table, what has this in its name"
    )
    parser.add_argument(
        "--readme",
        action="store_true",
        help="measure nothing; keep the newest rows and write the tables from them",
    )
    a = parser.parse_args(arguments)
    if a.dtype == "int8" and a.passes not in (None, "forward"):
        parser.error("--dtype int8 has --pass forward only: training multiplies in fp32 or bf16")
    file = a.json or RESULTS
    given = (a.features, a.out_features, a.block, a.density, a.passes, a.dtype)
    before = torch.get_num_threads()
    torch.set_num_threads(a.threads)
    core.keep_freed_memory()  # as the commands do; it serves the peers as well
    rows: list[Row] = []
    try:
        if a.readme:
            pass
        elif all(value is None for value in given):
            rows = _measure_all(file, a.repeat, a.only or "")
        else:
            features = 1024 if a.features is None else a.features
            rows = m.measure_products(
                a.batch, features, a.out_features or features, a.block or 16,
                0.1 if a.density is None else a.density, dtype=a.dtype or "fp32",
                passes=(a.passes,) if a.passes else m.PASSES, n_repeat=a.repeat,
                library_peers=a.passes in (None, "forward"),
            )  # fmt: skip
            keep(rows, file)
    finally:
        torch.set_num_threads(before)
    if a.json is None:
        kept = newest(read(RESULTS))
        _replace(RESULTS, "".join(json.dumps(row) + "\n" for row in kept))
        _replace(README, page(kept))
    print(tables(rows), end="")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
