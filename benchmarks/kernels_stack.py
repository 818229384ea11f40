"""Layers in a row whose activations stay packed: what the step of a layer costs inside of them."""

import statistics
from typing import Any

import torch

from benchmarks import kernels_measure as m
from core.kernels import call, packed
from core.sparse import BlockPattern


def measure_stack(
    batch: int, features: int, block: int, density: float, *, n_layer: int = 4, n_repeat: int = 20,
    seed: int = 0,
) -> list[dict[str, Any]]:  # fmt: skip
    """Training step of `n_layer` square layers, packing at both ends included, for one layer.

    The dense peers take three forward products a layer, as in `kernels_measure`.
    """
    kernels = call.kernels()
    if kernels is None or block % 4 or features % block:
        return []
    g = torch.Generator().manual_seed(seed)
    p = BlockPattern.random((features, features), (block, block), density, g)
    tensors = p.row_ptr, p.row_index, p.col_index, p.col_ptr, p.row_index_t, p.order_t
    values = [torch.randn(p.n_block, block, block, generator=g) for _ in range(n_layer)]
    x, dy = (torch.randn(batch, features, generator=g) for _ in range(2))
    weight = torch.randn(features, features, generator=g)

    def step() -> None:
        at = [packed.pack(kernels, x)]
        for v in values:
            at.append(
                packed.spmm_packed(kernels, at[-1], v, p.row_ptr, p.col_index, p.grid[1], None)
            )
        packed.unpack(kernels, at.pop())
        back = packed.pack(kernels, dy)
        for v in reversed(values):
            dx, _, _ = packed.backward_packed(kernels, back.x, at.pop(), v, tensors, True)
            assert dx is not None
            back = back._replace(x=dx)
        packed.unpack(kernels, back)

    calls: m.Calls = {
        "step": step, "torch_mm": lambda: x @ weight.t(), "onednn": m.onednn_linear(x, weight),
    }  # fmt: skip
    t = {name: statistics.median(s) for name, s in m.interleaved(calls, n_repeat).items()}
    time_s = t["step"] / n_layer
    flop = 6.0 * batch * p.n_block * block * block
    row = {
        "what": "packed stack", "batch": batch, "features": features, "block": block,
        "density": density, "dtype": "fp32", "pass": "step", "n_layer": n_layer, "seed": seed,
        "time_s": time_s, "fraction_of_peak": flop / time_s / m.peak_flop_per_s("fp32"),
        "ratio_vs_torch_mm": 3 * t["torch_mm"] / time_s,
        "ratio_vs_onednn": 3 * t["onednn"] / time_s,
    }  # fmt: skip
    return [row | m.machine()]


def measure_integer_stack(
    batch: int, features: int, block: int, density: float, *, n_layer: int = 4, n_repeat: int = 20,
    seed: int = 0,
) -> list[dict[str, Any]]:  # fmt: skip
    """Inference of `n_layer` square int8 layers with biases and ReLU, float32 at both ends.

    Everything counts: rounding, biases, ReLU. The peers are one bare product a layer: float32, or
    int8 of codes that are there already.
    """
    kernels = call.kernels()
    if kernels is None or not kernels.has_int8() or block % 16 or features % block:
        return []
    g = torch.Generator().manual_seed(seed)
    layers = []
    for _ in range(n_layer):
        p = BlockPattern.random((features, features), (block, block), density, g)
        codes = torch.randint(-127, 128, (p.n_block, block, block), generator=g, dtype=torch.int8)
        bias, scale = torch.randn(features, generator=g), torch.full((features, 1), 0.005)
        index = p.row_ptr, p.col_index
        at_both = bias, features, features
        layers.append(call.IntegerLayer(codes, scale, torch.tensor(0.03), *index, *at_both, True))
    x, weight = (torch.randn(n, features, generator=g) for n in (batch, features))
    x_codes, dense = ((t * 30).round().clamp(-127, 127).to(torch.int8) for t in (x, weight))
    calls: m.Calls = {
        "forward": lambda: call.stack_int8(kernels, x, layers),
        "torch_mm": lambda: x @ weight.t(),
        "same_dtype_dense": lambda: torch._int_mm(x_codes, dense.t()),
    }
    t = {name: statistics.median(s) for name, s in m.interleaved(calls, n_repeat).items()}
    time_s = t["forward"] / n_layer
    flop = 2.0 * batch * layers[0].codes.numel()
    row = {
        "what": "packed stack", "batch": batch, "features": features, "block": block,
        "density": density, "dtype": "int8", "pass": "forward", "n_layer": n_layer, "seed": seed,
        "time_s": time_s, "fraction_of_peak": flop / time_s / m.peak_flop_per_s("int8"),
        "ratio_vs_torch_mm": t["torch_mm"] / time_s,
        "ratio_vs_same_dtype_dense": t["same_dtype_dense"] / time_s,
    }  # fmt: skip
    return [row | m.machine()]
