"""Block-sparse products, segment sums and rounding against what else a Python user has.

Every row is measured in one process: product and peers take turns, so that they meet the same
weather, and the median of `n_repeat` turns counts. One thread is timed by its own processor time,
several by the clock. Dense peers of the training step are three forward products (a favour to
oneDNN: its weights are packed once and never repacked for the other two).
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import sparse

from core.kernels import call
from core.kernels.load import chosen_level
from core.precision import round_to_format
from core.sparse import BlockPattern, routes, segment_sum

RESULTS = Path(__file__).parent / "results" / "kernels.jsonl"
README = Path(__file__).parent / "README.md"
PASSES = ("forward", "dx", "dw", "step")
#: (batch, features, out_features) of the table without flags.
SHAPES = ((1024, 1024, 1024), (256, 2048, 2048), (64, 512, 512), (200, 700, 900))
BLOCKS = (1, 4, 8, 16)
DENSITIES = (0.5, 0.3, 0.1, 0.05, 0.01)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def interleaved(calls: dict[str, Callable[[], object]], n_repeat: int) -> dict[str, list[float]]:
    """Seconds of each call, turn by turn, after two turns of warm-up."""
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(n_repeat + 2):
        for name, run in calls.items():
            start = clock()
            run()
            if turn >= 2:
                seconds[name].append(clock() - start)
    return seconds


def quartiles(seconds: Sequence[float]) -> tuple[float, float, float]:
    low, middle, high = statistics.quantiles(seconds, n=4)
    return low, middle, high


def onednn_linear(x: torch.Tensor, weight: torch.Tensor) -> Callable[[], torch.Tensor]:
    """Dense product by oneDNN with weights packed ahead."""
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, x.shape[0])
    return lambda: torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")


def peak_flop_per_s(dtype: str) -> float:
    """Multiply-adds of one core that never leave its registers, counted as two operations."""
    kernels = call.kernels()
    if kernels is None or (dtype == "bf16" and not kernels.has_bf16()):
        return float("nan")
    n = 2_000_000
    best = float("inf")
    for _ in range(5):
        start = time.thread_time()
        n_lane = kernels.multiply_adds(n, dtype == "bf16")
        best = min(best, time.thread_time() - start)
    return 2.0 * n * n_lane / best


def machine() -> dict[str, Any]:
    """What every row says about where it was measured."""
    names = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parent,
    )  # fmt: skip
    return {
        "processor": names[0] if names else platform.processor(),
        "instructions": chosen_level() if call.kernels() else "torch",
        "n_thread": torch.get_num_threads(),
        "torch": torch.__version__,
        "commit": git.stdout.strip(),
    }


def measure_products(
    batch: int, features: int, out_features: int, block: int, density: float, *,
    dtype: str = "fp32", passes: Sequence[str] = PASSES, n_repeat: int = 20, seed: int = 0,
    library_peers: bool = False,
) -> list[dict[str, Any]]:  # fmt: skip
    """One row for each pass of a block-sparse layer."""
    g = torch.Generator().manual_seed(seed)
    pattern = BlockPattern.random((out_features, features), (block, block), density, g)
    kind = DTYPES[dtype]
    values = torch.randn(pattern.n_block, block, block, generator=g).to(kind)
    x, dy = (torch.randn(batch, n, generator=g).to(kind) for n in (features, out_features))
    weight = torch.randn(out_features, features, generator=g)
    wide_x, narrow_weight = x.float(), weight.to(kind)
    named, p = torch.ops.core, pattern
    calls: dict[str, Callable[[], object]] = {
        "forward": lambda: named.spmm(x, values, p.row_ptr, p.col_index, p.row_index, out_features),
        "dx": lambda: named.spmm_t(dy, values, p.col_ptr, p.row_index_t, p.order_t, features),
        "dw": lambda: named.sddmm(dy, x, p.row_index, p.col_index, block, block),
        "backward": lambda: named.spmm_backward(
            dy, x, values, p.row_index, p.col_index, p.col_ptr, p.row_index_t, p.order_t
        ),
        "torch_mm": lambda: wide_x @ weight.t(),
        "onednn": onednn_linear(wide_x, weight),
        "same_dtype_dense": lambda: x @ narrow_weight.t(),
    }
    if library_peers and dtype == "fp32":
        calls |= _library_products(pattern, values, x)
    seconds = interleaved(calls, n_repeat)
    seconds["step"] = [sum(t) for t in zip(seconds["forward"], seconds["backward"], strict=True)]
    peak = peak_flop_per_s(dtype)
    middle = {name: statistics.median(s) for name, s in seconds.items()}
    rows: list[dict[str, Any]] = []
    for name in passes:
        low, time_s, high = quartiles(seconds[name])
        n_product = 3 if name == "step" else 1
        flop = 2.0 * n_product * batch * values.numel()
        row: dict[str, Any] = {
            "what": "product", "batch": batch, "features": features, "out_features": out_features,
            "block": block, "density": density, "dtype": dtype, "pass": name, "seed": seed,
            "time_s": time_s, "time_quartiles_s": [low, high], "n_repeat": n_repeat,
            "ratio_vs_torch_mm": n_product * middle["torch_mm"] / time_s,
            "ratio_vs_onednn": n_product * middle["onednn"] / time_s,
            "ratio_vs_same_dtype_dense": n_product * middle["same_dtype_dense"] / time_s,
            "fraction_of_peak": flop / time_s / peak,
        }  # fmt: skip
        if name == "forward":
            for peer in calls.keys() - {
                *PASSES,
                "backward",
                "torch_mm",
                "onednn",
                "same_dtype_dense",
            }:
                row[f"ratio_vs_{peer}"] = middle[peer] / time_s
        rows.append(row | machine())
    return rows


def _library_products(
    pattern: BlockPattern, values: torch.Tensor, x: torch.Tensor
) -> dict[str, Callable[[], object]]:
    """Forward products of torch and scipy; their transposes are made ahead and not charged."""
    block = pattern.block[0]
    dense = routes.expand(values, pattern.row_index, pattern.col_index, pattern.grid)
    dense = dense[: pattern.shape[0], : pattern.shape[1]].contiguous()
    columns = x.t().contiguous()
    torch_csr = dense.to_sparse_csr()
    scipy_csr = sparse.csr_matrix(dense.numpy())
    columns_numpy = np.ascontiguousarray(columns.numpy())
    calls: dict[str, Callable[[], object]] = {
        "torch_csr": lambda: torch_csr @ columns,
        "scipy_csr": lambda: scipy_csr @ columns_numpy,
        "torch_route": lambda: routes.spmm(
            x, values, pattern.row_index, pattern.col_index, pattern.grid[0]
        ),
    }
    if block > 1 and all(n % block == 0 for n in pattern.shape):
        torch_bsr = dense.to_sparse_bsr((block, block))
        calls["torch_bsr"] = lambda: torch_bsr @ columns
    return calls


def measure_segment_sum(
    n_feature: int, *, n_molecule: int = 1024, n_repeat: int = 20, seed: int = 0
) -> dict[str, Any]:
    """Messages of 25-atom, 54-edge molecules summed into atoms, forward and with the gradient."""
    g = torch.Generator().manual_seed(seed)
    n_atom = 25 * n_molecule
    local = torch.randint(0, 25, (n_molecule, 54), generator=g).sort(1).values
    index = (local + 25 * torch.arange(n_molecule)[:, None]).reshape(-1)
    x = torch.randn(index.numel(), n_feature, generator=g)
    leaf = x.clone().requires_grad_()
    dy = torch.randn(n_atom, n_feature, generator=g)
    wide = index[:, None].expand(-1, n_feature)
    room = torch.empty_like(x)

    def scatter(x: torch.Tensor) -> torch.Tensor:  # what PyG falls back to without extensions
        return x.new_zeros(n_atom, n_feature).scatter_add(0, wide, x)

    def step(f: Callable[[torch.Tensor], torch.Tensor]) -> None:
        leaf.grad = None
        f(leaf).backward(dy)

    calls: dict[str, Callable[[], object]] = {
        "forward": lambda: segment_sum(x, index, n_atom),
        "step": lambda: step(lambda x: segment_sum(x, index, n_atom)),
        "scatter": lambda: scatter(x),
        "scatter_step": lambda: step(scatter),
        "index_add": lambda: x.new_zeros(n_atom, n_feature).index_add_(0, index, x),
        "copy": lambda: room.copy_(x),
    }
    t = {name: statistics.median(s) for name, s in interleaved(calls, n_repeat).items()}
    return {
        "what": "segment_sum", "n_molecule": n_molecule, "n_feature": n_feature, "seed": seed,
        "time_s": t["forward"], "step_time_s": t["step"], "n_repeat": n_repeat,
        "ratio_vs_scatter": t["scatter"] / t["forward"],
        "ratio_vs_index_add": t["index_add"] / t["forward"],
        "step_ratio_vs_scatter": t["scatter_step"] / t["step"],
        "time_over_copy": t["forward"] / t["copy"],
    } | machine()  # fmt: skip


def measure_rounding(format: str, *, n_repeat: int = 20, seed: int = 0) -> dict[str, Any]:
    """A million normal draws rounded at random and to nearest."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(1 << 20, generator=g)
    calls: dict[str, Callable[[], object]] = {
        "stochastic": lambda: round_to_format(x, format, rounding="stochastic", generator=g),
        "nearest": lambda: round_to_format(x, format),
    }
    t = {name: statistics.median(s) for name, s in interleaved(calls, n_repeat).items()}
    return {
        "what": "rounding", "format": format, "n_entry": x.numel(), "n_repeat": n_repeat,
        "stochastic_entry_per_s": x.numel() / t["stochastic"],
        "nearest_entry_per_s": x.numel() / t["nearest"],
    } | machine()  # fmt: skip


def break_even(rows: Sequence[dict[str, Any]], ratio: str = "ratio_vs_onednn") -> float:
    """Least sparsity from which on every row is at least as fast as dense (nan: none is).

    Between two rows, time is taken as linear in density.
    """
    steps = sorted((r for r in rows if r["pass"] == "step"), key=lambda r: r["density"])
    edge = float("nan")
    for before, after in zip([None, *steps], steps, strict=False):
        slow = 1 / after[ratio]
        if slow > 1:
            if before is None:
                return float("nan")
            share = (1 - 1 / before[ratio]) / (slow - 1 / before[ratio])
            return 1 - (before["density"] + share * (after["density"] - before["density"]))
        edge = 1 - after["density"]
    return edge


def measure_all(n_repeat: int = 20) -> list[dict[str, Any]]:
    """The whole table, row by row."""
    rows: list[dict[str, Any]] = []
    for shape in SHAPES:
        for dtype in DTYPES:
            for block in BLOCKS:
                for density in DENSITIES:
                    rows += measure_products(
                        *shape, block, density, dtype=dtype, n_repeat=n_repeat,
                        library_peers=shape == SHAPES[0],
                    )  # fmt: skip
    rows += [measure_segment_sum(n, n_repeat=n_repeat) for n in (128, 256)]
    rows += [measure_rounding(f, n_repeat=n_repeat) for f in ("fp8_e4m3", "bf16", "int8")]
    return rows


def keep(rows: Sequence[dict[str, Any]], file: Path) -> None:
    """Append rows to `file` as JSON lines."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as out:
        out.writelines(json.dumps(row) + "\n" for row in rows)


def tables(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown of the newest row of every question."""
    asked = ("what", "batch", "features", "out_features", "block", "density", "dtype", "pass",
             "n_molecule", "n_feature", "format", "n_thread")  # fmt: skip
    newest = {tuple(str(row.get(k)) for k in asked): row for row in rows}
    parts: dict[str, list[str]] = {}
    for row in sorted(newest.values(), key=lambda r: (r["what"], *(r.get(k, 0) for k in SORTED))):
        where = f"{row['processor']}, {row['instructions']}, {row['n_thread']} thread"
        if row["what"] == "product":
            title = f"Batch {row['batch']}, {row['features']} to {row['out_features']}, {where}"
            cells = (
                row["dtype"], row["block"], f"{100 * (1 - row['density']):.3g} %", row["pass"],
                f"{1e3 * row['time_s']:.3f}",
                *(f"{row[k]:.2f}" for k in RATIOS), row["commit"],
            )  # fmt: skip
            head = ["format", "block", "zeros", "pass", "time_ms", "torch.mm", "oneDNN"]
            head += ["same-format", "peak", "commit"]
        else:
            skipped = {"what", "seed", "n_repeat", "processor", "instructions", "n_thread", "torch"}
            title = f"{row['what'].replace('_', ' ').capitalize()}, {where}"
            head = [k for k in row if k not in skipped]
            cells = tuple(f"{row[k]:.3g}" if type(row[k]) is float else row[k] for k in head)
        first = [f"## {title}", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
        parts.setdefault(title, first).append(f"| {' | '.join(map(str, cells))} |")
    return "\n\n".join("\n".join(lines) for lines in parts.values()) + "\n"


SORTED = ("batch", "features", "dtype", "block", "density", "n_feature")
RATIOS = (
    "ratio_vs_torch_mm", "ratio_vs_onednn", "ratio_vs_same_dtype_dense", "fraction_of_peak",
)  # fmt: skip
INTRODUCTION = """# Benchmarks

Written by `tessera bench kernels` from results/kernels.jsonl; the newest row of every question.
Columns named after a peer say how many times faster than that peer: torch.mm, oneDNN with weights
packed ahead, and torch's dense product in the same format. `peak` is the share of the multiply-adds
that one core does without touching memory. A step is forward, input and weight gradient; dense
steps count as three forward products. Single cells scatter by some 10 %.

"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure one layer, or without a size the whole table; keep the rows and print tables."""
    parser = argparse.ArgumentParser(prog="tessera bench kernels", description=main.__doc__)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--features", type=int)
    parser.add_argument("--out-features", type=int)
    parser.add_argument("--block", type=int)
    parser.add_argument("--density", type=float)
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="fp32")
    parser.add_argument("--pass", dest="passes", choices=PASSES)
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="append rows here and leave the tables alone")
    a = parser.parse_args(arguments)
    given = (a.features, a.out_features, a.block, a.density, a.passes)
    before = torch.get_num_threads()
    torch.set_num_threads(a.threads)
    try:
        if all(value is None for value in given):
            rows = measure_all(a.repeat)
        else:
            features = a.features or 1024
            rows = measure_products(
                a.batch, features, a.out_features or features, a.block or 16,
                0.1 if a.density is None else a.density, dtype=a.dtype,
                passes=(a.passes,) if a.passes else PASSES, n_repeat=a.repeat,
                library_peers=a.passes in (None, "forward"),
            )  # fmt: skip
    finally:
        torch.set_num_threads(before)
    keep(rows, a.json or RESULTS)
    if a.json is None:
        lines = RESULTS.read_text(encoding="utf-8").splitlines()
        whole = README.with_suffix(".part")
        whole.write_text(INTRODUCTION + tables([json.loads(line) for line in lines]), "utf-8")
        os.replace(whole, README)
    print(tables(rows), end="")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
