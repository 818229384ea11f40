"""What `tessera bench kernels` measures: one function for each kind of row.

Every row is measured in one process: product and peers take turns, so that they meet the same
weather, and the median of the turns counts. One thread is timed by its own processor time, several
by the clock. Dense peers of the training step are three forward products (a favour to oneDNN: its
weights are packed once and never repacked for the other two). The kernels are measured as such:
nothing is handed to a dense product, however full the pattern.
"""

import contextlib
import functools
import importlib.util
import itertools
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import sparse

import core
from core.kernels import call
from core.kernels.load import LEVELS, chosen_level, library
from core.sparse import BlockPattern, break_even, ops, routes
from core.sparse.integer import linear_int8

PASSES = ("forward", "dx", "dw", "step")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.int8}
#: A density that no pattern reaches.
NEVER_DENSE = 2.0
#: A cell ends after so many seconds, if it has had five turns.
LONGEST_S = 4.0
#: Short turns go on for as long: the first after a pause find cold caches.
SHORTEST_S = 0.3
Calls = dict[str, Callable[[], object]]


def interleaved(calls: Calls, n_repeat: int, *, wall: bool = False) -> dict[str, list[float]]:
    """Seconds of each call, turn by turn, after two turns of warm-up; short turns are many."""
    one = torch.get_num_threads() == 1 and not wall
    clock = time.thread_time if one else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    begin = time.perf_counter()
    n_turn = max(n_repeat, 2) + 2  # quartiles need two
    for turn in range(20 * n_turn):
        elapsed = time.perf_counter() - begin
        if (turn >= n_turn and elapsed > SHORTEST_S) or (turn >= 7 and elapsed > LONGEST_S):
            break
        for name, run in calls.items():
            start = clock()
            run()
            if turn >= 2:
                seconds[name].append(clock() - start)
    return seconds


@contextlib.contextmanager
def kernels_only() -> Iterator[None]:
    """Keep the products on the kernels, and one block's break-even out of the other's rows."""
    before = os.environ.get("TESSERA_BREAK_EVEN")
    os.environ["TESSERA_BREAK_EVEN"] = "2"
    break_even.dense_from.cache_clear()
    try:
        yield
    finally:
        del os.environ["TESSERA_BREAK_EVEN"]
        if before is not None:
            os.environ["TESSERA_BREAK_EVEN"] = before
        break_even.dense_from.cache_clear()


def onednn_linear(x: torch.Tensor, weight: torch.Tensor) -> Callable[[], torch.Tensor]:
    """Dense product by oneDNN with weights packed ahead."""
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, x.shape[0])
    return lambda: torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")


def peak_flop_per_s(dtype: str, kernels: call.Kernels | None = None) -> float:
    """Multiply-adds of one core that never leave its registers, counted as two operations."""
    kernels = kernels or call.kernels()
    if kernels is None:
        return float("nan")
    n, best = 1_000_000, float("inf")
    for _ in range(5):
        start = time.thread_time()
        n_lane = kernels.multiply_adds(n, list(DTYPES).index(dtype))
        best = min(best, time.thread_time() - start)
    return 2.0 * n * n_lane / best if n_lane else float("nan")


@functools.cache
def _host() -> tuple[str, str]:
    said = [line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines()]
    words = {key.strip(): value.strip() for key, _, value in reversed(said)}  # of the first core
    # Virtual machines give several generations one name.
    name = words.get("model name") or platform.processor()
    if "cpu family" in words:
        name += f" (family {words['cpu family']}, model {words.get('model')})"

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", *words], capture_output=True, text=True, check=False, cwd=Path(__file__).parent
        )
        return done.stdout.strip()

    # Rows and pages are no code, nor is what lies above the kernels.
    changed = git(
        "diff", "--name-only", "HEAD", "--", ":/core", *Path(__file__).parent.glob("ker*.py")
    )
    commit = git("rev-parse", "--short", "HEAD") + ("-dirty" if changed else "")
    return name, commit


def machine() -> dict[str, Any]:
    """What every row says about where it was measured."""
    processor, commit = _host()
    return {
        "processor": processor,
        "instructions": chosen_level() if call.kernels() else "torch",
        "n_thread": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "torch": torch.__version__,
        "commit": commit,
    }


def without(package: str, what: str) -> bool:
    """Whether a peer is missing; if so, say what is left out and how to have it."""
    if importlib.util.find_spec(package):
        return False
    print(f"bench kernels: {what} left out: {package} is not installed", file=sys.stderr)
    return True


def measure_products(
    batch: int, features: int, out_features: int, block: int, density: float, *,
    dtype: str = "fp32", passes: Sequence[str] = PASSES, n_repeat: int = 20, seed: int = 0,
    library_peers: bool = False,
) -> list[dict[str, Any]]:  # fmt: skip
    """One row for each pass of a block-sparse layer; int8 has a forward pass only."""
    g = torch.Generator().manual_seed(seed)
    p = BlockPattern.random((out_features, features), (block, block), density, g)
    kind, is_int8 = DTYPES[dtype], dtype == "int8"
    wide_values = torch.randn(p.n_block, block, block, generator=g)
    wide_x, wide_dy = (torch.randn(batch, n, generator=g) for n in (features, out_features))
    weight = torch.randn(out_features, features, generator=g)
    calls: Calls = {
        "torch_mm": lambda: wide_x @ weight.t(),
        "onednn": onednn_linear(wide_x, weight),
    }
    if is_int8:
        passes = ("forward",)
        codes, x_codes, dense = (
            (t * 30).round().clamp(-127, 127).to(kind) for t in (wide_values, wide_x, weight)
        )
        x_scale, scale = torch.tensor(0.03), torch.full((p.grid[0] * block, 1), 0.01)
        index = p.row_ptr, p.col_index, p.row_index
        calls |= {
            "forward": lambda: linear_int8(wide_x, x_scale, codes, scale, index, out_features),
            "same_dtype_dense": lambda: torch._int_mm(x_codes, dense.t()),
        }
    else:
        values, x, dy = (t.to(kind) for t in (wide_values, wide_x, wide_dy))
        narrow = weight.to(kind)
        products = _products(x, dy, values, p)
        asked = {*passes} | ({"forward", "backward"} if "step" in passes else set())
        calls |= {name: run for name, run in products.items() if name in asked}
        if dtype != "fp32":
            calls["same_dtype_dense"] = lambda: x @ narrow.t()
        elif library_peers:
            calls |= _library_products(p, values, x)
    with kernels_only():
        seconds = interleaved(calls, n_repeat)
    seconds.setdefault("same_dtype_dense", seconds["torch_mm"])
    peers = seconds.keys() - {*PASSES, "backward"}
    if "step" in passes:
        pair = zip(seconds["forward"], seconds["backward"], strict=True)
        seconds["step"] = [sum(t) for t in pair]
    peak = peak_flop_per_s(dtype)
    middle = {name: statistics.median(s) for name, s in seconds.items()}
    rows: list[dict[str, Any]] = []
    for name in passes:
        low, time_s, high = statistics.quantiles(seconds[name], n=4)
        n_product = 3 if name == "step" else 1
        flop = 2.0 * n_product * batch * p.n_block * block * block
        mine = sorted(peers) if name == "forward" else ["onednn", "same_dtype_dense", "torch_mm"]
        rows.append(
            {
                "what": "product", "batch": batch, "features": features,
                "out_features": out_features, "block": block, "density": density, "dtype": dtype,
                "pass": name, "seed": seed, "time_s": time_s, "time_quartiles_s": [low, high],
                "n_repeat": len(seconds[name]), "fraction_of_peak": flop / time_s / peak,
            }
            | {f"ratio_vs_{peer}": n_product * middle[peer] / time_s for peer in mine}
            | machine()
        )  # fmt: skip
    return rows


def _products(x: torch.Tensor, dy: torch.Tensor, values: torch.Tensor, p: BlockPattern) -> Calls:
    """The products as layers call them: past the dispatcher, which costs small ones a fifth."""
    index = p.row_index, p.col_index
    index_t = p.col_ptr, p.row_index_t, p.order_t
    kernels = call.kernels() if x.dtype == torch.float32 else None
    return {
        "forward": lambda: core.matmul(x, values, p),
        "dx": lambda: ops._spmm_t(dy, values, *index_t, x.shape[1], NEVER_DENSE),
        "dw": lambda: (
            call.sddmm(kernels, dy, x, *index, *p.block, p.row_ptr)
            if kernels
            else ops._sddmm(dy, x, *index, *p.block, NEVER_DENSE)
        ),
        "backward": lambda: (
            call.spmm_backward(kernels, dy, x, values, *index, *index_t)
            if kernels
            else ops._both(dy, x, values, *index, *index_t, NEVER_DENSE)
        ),
    }


def _library_products(pattern: BlockPattern, values: torch.Tensor, x: torch.Tensor) -> Calls:
    """Forward products of torch and scipy; their transposes are made ahead and not charged."""
    block = pattern.block[0]
    dense = routes.expand(values, pattern.row_index, pattern.col_index, pattern.grid)
    dense = dense[: pattern.shape[0], : pattern.shape[1]].contiguous()
    columns = x.t().contiguous()
    torch_csr = dense.to_sparse_csr()
    scipy_csr = sparse.csr_matrix(dense.numpy())
    columns_numpy = np.ascontiguousarray(columns.numpy())
    calls: Calls = {
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


def _train(layer: torch.nn.Module, x: torch.Tensor, dy: torch.Tensor) -> None:
    x.grad = None
    for p in layer.parameters():
        p.grad = None
    layer(x).backward(dy)


def measure_sparseprop(
    density: float, *, batch: int = 1024, features: int = 1024, n_repeat: int = 10, seed: int = 0
) -> list[dict[str, Any]]:
    """Training step of a layer of single weights, beside SparseProp's on the same weights."""
    if without("sparseprop", "SparseProp"):
        return []
    from sparseprop.modules.linear import SparseLinear

    g = torch.Generator().manual_seed(seed)
    p = BlockPattern.random((features, features), (1, 1), density, g)
    layer = core.BlockSparseLinear(features, features, pattern=p, bias=False, generator=g)
    theirs = SparseLinear(routes.expand(layer.values.detach(), p.row_index, p.col_index, p.grid))
    x = torch.randn(batch, features, generator=g).requires_grad_()
    dy = torch.randn(batch, features, generator=g)
    calls: Calls = {
        "step": lambda: _train(layer, x, dy),
        "sparseprop": lambda: _train(theirs, x, dy),
    }
    with kernels_only():
        t = {name: statistics.median(s) for name, s in interleaved(calls, n_repeat).items()}
    row = {"what": "beside SparseProp", "batch": batch, "features": features, "density": density,
           "block": 1, "dtype": "fp32", "pass": "step", "seed": seed, "time_s": t["step"],
           "ratio_vs_sparseprop": t["sparseprop"] / t["step"]}  # fmt: skip
    return [row | machine()]


def measure_break_even(
    batch: int, features: int, out_features: int, block: int, *, n_repeat: int = 7, seed: int = 0
) -> dict[str, Any]:
    """Least sparsity from which on a training step beats three packed oneDNN products.

    Patterns grow fuller from half full on until the step has lost, or thinner until it has won;
    between two of them time counts as linear in density.
    """
    rows: list[dict[str, Any]] = []
    for densities in ((0.5, 0.6, 0.7, 0.8, 0.9, 1.0), (0.4, 0.3, 0.2, 0.1)):
        for density in densities:
            rows += measure_products(
                batch, features, out_features, block, density, passes=("step",),
                n_repeat=n_repeat, seed=seed,
            )  # fmt: skip
            ratio = rows[-1]["ratio_vs_onednn"]
            if ratio < 0.95 if densities[0] == 0.5 else ratio > 1.05:
                break
        if rows[0]["ratio_vs_onednn"] >= 1:
            break
    return {
        "what": "break-even", "batch": batch, "features": features, "out_features": out_features,
        "block": block, "dtype": "fp32", "pass": "step", "seed": seed, "n_repeat": n_repeat,
        "sparsity_vs_onednn": least_sparsity(rows, "ratio_vs_onednn"),
        "sparsity_vs_torch_mm": least_sparsity(rows, "ratio_vs_torch_mm"),
    } | machine()  # fmt: skip


def least_sparsity(rows: Sequence[dict[str, Any]], ratio: str = "ratio_vs_onednn") -> float:
    """Least sparsity from which on every step is at least as fast as dense (1: none is).

    Between two rows, time is taken as linear in density.
    """
    steps = sorted((r for r in rows if r["pass"] == "step"), key=lambda r: r["density"])
    edge = 1.0
    for before, after in zip([None, *steps], steps, strict=False):
        slow = 1 / after[ratio]
        if slow > 1:
            if before is None:
                return 1.0
            share = (1 - 1 / before[ratio]) / (slow - 1 / before[ratio])
            return 1 - (before["density"] + share * (after["density"] - before["density"]))
        edge = 1 - after["density"]
    return edge


def measure_instructions(
    block: int, density: float = 0.1, *, batch: int = 1024, features: int = 1024,
    n_repeat: int = 10, seed: int = 0,
) -> list[dict[str, Any]]:  # fmt: skip
    """The step by the best build and by that for AVX2, each held against its own peak."""
    best = chosen_level() if call.kernels() else None
    if best is None:
        return []
    fitting = list(LEVELS)[list(LEVELS).index(best) :]
    names = [name for name in fitting if name in (best, "avx2")]
    g = torch.Generator().manual_seed(seed)
    p = BlockPattern.random((features, features), (block, block), density, g)
    values = torch.randn(p.n_block, block, block, generator=g)
    x, dy = (torch.randn(batch, features, generator=g) for _ in range(2))
    built = {name: call.Kernels(lib) for name in names if (lib := library(name)) is not None}

    def step(kernels: call.Kernels) -> None:
        call.spmm(kernels, x, values, p.row_ptr, p.col_index, features)
        call.spmm_backward(kernels, dy, x, values, p.row_index, p.col_index, p.col_ptr,
                           p.row_index_t, p.order_t)  # fmt: skip

    calls: Calls = {name: functools.partial(step, k) for name, k in built.items()}
    t = {name: statistics.median(s) for name, s in interleaved(calls, n_repeat).items()}
    flop = 6.0 * batch * values.numel()
    peak = {name: peak_flop_per_s("fp32", k) for name, k in built.items()}
    share = {name: flop / t[name] / peak[name] for name in t}
    return [
        {"what": "instruction sets", "block": block, "density": density, "batch": batch,
         "features": features, "dtype": "fp32", "pass": "step", "seed": seed, "build": name,
         "time_s": t[name], "peak_flop_per_s": peak[name], "fraction_of_peak": share[name],
         "speed_over_best_build": t[best] / t[name],
         "fraction_over_best_build": share[name] / share[best]} | machine()
        for name in t
    ]  # fmt: skip


def measure_threads(
    block: int, density: float = 0.1, *, n_thread: int = 2, batch: int = 1024,
    features: int = 1024, n_repeat: int = 20, seed: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """A training step on one thread and on several, by the clock; best turns, as others run too."""
    g = torch.Generator().manual_seed(seed)
    spec = core.LayerSpec(density, block)
    layer = core.build_linear(features, features, spec, generator=g, bias=False)
    x = torch.randn(batch, features, generator=g).requires_grad_()
    dy, weight = torch.randn(batch, features, generator=g), torch.randn(features, features)
    before = torch.get_num_threads()

    runs: Calls = {"step": lambda: _train(layer, x, dy), "dense": lambda: x.detach() @ weight}
    t: dict[str, float] = {}
    try:
        with kernels_only():
            for _ in range(n_repeat):
                for (name, run), n in itertools.product(runs.items(), (1, n_thread)):
                    torch.set_num_threads(n)
                    run()  # wakes the threads that work will find awake
                    start = time.perf_counter()
                    run()
                    seconds = time.perf_counter() - start
                    t[f"{name} {n}"] = min(seconds, t.get(f"{name} {n}", seconds))
    finally:
        torch.set_num_threads(before)
    return {
        "what": "threads", "block": block, "density": density, "batch": batch,
        "features": features, "dtype": "fp32", "pass": "step", "seed": seed,
        "time_s": t[f"step {n_thread}"], "speedup": t["step 1"] / t[f"step {n_thread}"],
        "torch_mm_speedup": t["dense 1"] / t[f"dense {n_thread}"],
    } | machine() | {"n_thread": n_thread}  # fmt: skip


def measure_overhead(
    *, features: int = 64, batch: int = 32, block: int = 4, density: float = 0.1, seed: int = 0
) -> dict[str, Any]:
    """Small layers, where calling costs more than multiplying; microseconds beyond nn.Linear."""
    g = torch.Generator().manual_seed(seed)
    layer = core.build_linear(features, features, core.LayerSpec(density, block), generator=g)
    dense = torch.nn.Linear(features, features)
    x, dy = (torch.randn(batch, features, generator=g) for _ in range(2))
    leaf = x.clone().requires_grad_()

    def forward(module: torch.nn.Module) -> None:
        with torch.no_grad():
            for _ in range(50):
                module(x)

    def step(module: torch.nn.Module) -> None:
        for _ in range(50):
            _train(module, leaf, dy)

    calls: Calls = {"forward": lambda: forward(layer), "dense_forward": lambda: forward(dense),
                    "step": lambda: step(layer), "dense_step": lambda: step(dense)}  # fmt: skip
    t = {name: min(s) / 50 * 1e6 for name, s in interleaved(calls, 100).items()}
    return {
        "what": "call overhead", "features": features, "batch": batch, "block": block,
        "density": density, "dtype": "fp32", "seed": seed,
        "forward_us": t["forward"], "forward_beyond_linear_us": t["forward"] - t["dense_forward"],
        "step_us": t["step"], "step_beyond_linear_us": t["step"] - t["dense_step"],
    } | machine()  # fmt: skip
