"""What `tessera bench kernels` measures beside products: messages, segment sums, rounding.

As in `benchmarks.kernels_measure`: one process, turns, the median counts.
"""

import math
import statistics
from collections.abc import Callable
from typing import Any

import torch

import core
from benchmarks.kernels_measure import DTYPES, Calls, interleaved, machine, without
from core.precision import round_to_format
from core.sparse import segment_sum


def measure_messages(
    n_feature: int, *, edges: str = "none", n_molecule: int = 1024, n_repeat: int = 15,
    dtype: str = "fp32", seed: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """Messages on 25-atom, 54-edge molecules, beside PyG's scatter and `index_add`.

    `edges` is "none" (the message is a neighbour's row), "rows" (plus a row of the edge's own,
    then relu) or "kinds" (the same from a table of twelve kinds).
    """
    from torch_geometric.utils import scatter

    g = torch.Generator().manual_seed(seed)
    n_atom, kind = 25 * n_molecule, DTYPES[dtype]
    local = torch.randint(0, 25, (2, n_molecule, 54), generator=g)
    edge_index = (local + 25 * torch.arange(n_molecule)[:, None]).reshape(2, -1)
    source, target = edge_index
    x = torch.randn(n_atom, n_feature, generator=g).to(kind)
    dy = torch.randn(n_atom, n_feature, generator=g).to(kind)
    kinds = torch.randint(0, 12, target.shape, generator=g, dtype=torch.int32)
    table = torch.randn(12, n_feature, generator=g).to(kind)
    rows = table.index_select(0, kinds)
    order = core.EdgeOrder.from_index(edge_index, n_atom)
    own = {"none": None, "rows": rows, "kinds": table}[edges]
    leaves = [t.clone().requires_grad_() for t in (x, *([] if own is None else [own]))]
    theirs = [t.clone().requires_grad_() for t in (x, *([] if own is None else [rows]))]
    how: dict[str, Any] = {} if own is None else {"activation": "relu"}
    how |= {"kind": kinds} if edges == "kinds" else {}

    def message(x: torch.Tensor, edge: torch.Tensor | None = None) -> torch.Tensor:
        each = x.index_select(0, source)
        return each if edge is None else (each + edge).relu()

    def mine(*t: torch.Tensor) -> torch.Tensor:
        return core.pass_messages(t[0], order, *t[1:], **how)

    def pyg(*t: torch.Tensor) -> torch.Tensor:
        return scatter(message(*t), target, dim=0, dim_size=n_atom, reduce="sum")

    def index_add(*t: torch.Tensor) -> torch.Tensor:
        return x.new_zeros(n_atom, n_feature).index_add(0, target, message(*t))

    def step(f: Callable[..., torch.Tensor], leaves: list[torch.Tensor]) -> None:
        for leaf in leaves:
            leaf.grad = None
        f(*leaves).backward(dy)

    room, plain = torch.empty_like(x), [t.detach() for t in leaves]
    plain_theirs = [t.detach() for t in theirs]
    calls: Calls = {
        "copy": lambda: room.copy_(x),
        "forward": lambda: mine(*plain),
        "step": lambda: step(mine, leaves),
        "pyg_forward": lambda: pyg(*plain_theirs),
        "pyg_step": lambda: step(pyg, theirs),
        "index_add_step": lambda: step(index_add, theirs),
        "order": lambda: core.EdgeOrder.from_index(edge_index, n_atom),
    }
    t = {name: statistics.median(s) for name, s in interleaved(calls, n_repeat).items()}
    return {
        "what": "messages", "n_molecule": n_molecule, "n_feature": n_feature, "edges": edges,
        "dtype": dtype, "seed": seed, "time_s": t["forward"], "step_time_s": t["step"],
        "order_time_s": t["order"], "time_over_copy": t["forward"] / t["copy"],
        "ratio_vs_pyg_scatter": t["pyg_forward"] / t["forward"],
        "step_ratio_vs_pyg_scatter": t["pyg_step"] / t["step"],
        "step_ratio_vs_index_add": t["index_add_step"] / t["step"],
    } | machine()  # fmt: skip


def measure_segment_sum(
    n_feature: int, *, n_molecule: int = 1024, n_repeat: int = 15, seed: int = 0
) -> dict[str, Any]:
    """Rows of edges, sorted by atom, summed into atoms; forward and with the gradient."""
    from torch_geometric.utils import scatter

    g = torch.Generator().manual_seed(seed)
    n_atom = 25 * n_molecule
    local = torch.randint(0, 25, (n_molecule, 54), generator=g).sort(1).values
    index = (local + 25 * torch.arange(n_molecule)[:, None]).reshape(-1)
    x = torch.randn(index.numel(), n_feature, generator=g)
    leaf = x.clone().requires_grad_()
    dy, room = torch.randn(n_atom, n_feature, generator=g), torch.empty_like(x)

    def pyg(x: torch.Tensor) -> torch.Tensor:
        return scatter(x, index, dim=0, dim_size=n_atom, reduce="sum")

    def step(f: Callable[[torch.Tensor], torch.Tensor]) -> None:
        leaf.grad = None
        f(leaf).backward(dy)

    calls: Calls = {
        "copy": lambda: room.copy_(x),
        "forward": lambda: segment_sum(x, index, n_atom),
        "step": lambda: step(lambda x: segment_sum(x, index, n_atom)),
        "pyg": lambda: pyg(x),
        "pyg_step": lambda: step(pyg),
        "index_add": lambda: x.new_zeros(n_atom, n_feature).index_add_(0, index, x),
    }
    t = {name: statistics.median(s) for name, s in interleaved(calls, n_repeat).items()}
    return {
        "what": "segment sum", "n_molecule": n_molecule, "n_feature": n_feature, "dtype": "fp32",
        "seed": seed, "time_s": t["forward"], "step_time_s": t["step"],
        "time_over_copy": t["forward"] / t["copy"],
        "ratio_vs_pyg_scatter": t["pyg"] / t["forward"],
        "step_ratio_vs_pyg_scatter": t["pyg_step"] / t["step"],
        "ratio_vs_index_add": t["index_add"] / t["forward"],
    } | machine()  # fmt: skip


def measure_rounding(format: str, *, n_repeat: int = 20, seed: int = 0) -> dict[str, Any]:
    """A million normal draws rounded at random and to nearest, beside libraries that are there."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(1 << 20, generator=g)
    calls: Calls = {
        "stochastic": lambda: round_to_format(x, format, rounding="stochastic", generator=g),
        "nearest": lambda: round_to_format(x, format),
    }
    # unit_scaling has one template for float formats, e4m3 with its subnormals included; torchao
    # has bf16 only.
    bits = {"fp8_e4m3": (4, 3), "fp8_e5m2": (5, 2)}.get(format)
    if bits and not without("unit_scaling", "unit_scaling's rounding"):
        from unit_scaling.formats import FPFormat

        template = FPFormat(*bits, rounding="stochastic")
        calls["unit_scaling"] = lambda: template.quantise(x)
    if format == "bf16" and not without("torchao", "torchao's rounding"):
        from torchao.optim.quant_utils import _fp32_to_bf16_sr

        calls["torchao"] = lambda: _fp32_to_bf16_sr(x)
    t = {name: statistics.median(s) for name, s in interleaved(calls, n_repeat).items()}
    others = [s for name, s in t.items() if name not in ("stochastic", "nearest")]
    return {
        "what": "rounding", "format": format, "n_entry": x.numel(), "seed": seed,
        "stochastic_entry_per_s": x.numel() / t["stochastic"],
        "nearest_entry_per_s": x.numel() / t["nearest"],
        "ratio_vs_best_library": min(others, default=math.nan) / t["stochastic"],
    } | machine()  # fmt: skip
