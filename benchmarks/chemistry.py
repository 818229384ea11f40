"""Training steps of the binding network against plain PyG GINE and chemprop's D-MPNN.

One thread and one process; the models take turns of four steps on the same molecules, so that they
meet the same weather, and the median of the thread's own processor time counts, the first step of a
turn left out. All have four rounds of messages and the same width; ours carries a wider readout and
head on top, which is not taken out. The last peer has the same layers as ours, put together
from what PyG and PyTorch offer. A step is forward, loss, backward and optimizer on a batch that
lies ready. Peers that are not installed are left out with a note. Where a step's time goes is told
by PyTorch's profiler, whose own cost is in it.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import core
from apps.chemistry.config import FitConfig
from apps.chemistry.datasets import load_table
from apps.chemistry.fitting import make_optimizer
from apps.chemistry.molecules import (
    N_ATOM_FEATURE,
    N_EDGE_FEATURE,
    featurise_many,
    mol_from_smiles,
)
from apps.chemistry.network import BindingNetwork, pack, pyg_data
from apps.chemistry.packing import fill_blocks, packing_efficiency
from apps.lab.files import write_atomic
from apps.lab.variant import Variant

SCHEMA = "tessera.chemistry.throughput/1"
Step = Callable[[], None]
N_LAYER = 4
PEERS = ("PyG GINE", "chemprop D-MPNN", "our network of PyG's parts")
VARIANTS = {
    "dense fp32": Variant(),
    "dense bf16": Variant(weight_format="bf16", activation_format="bf16"),
    "90 % block-sparse fp32": Variant(density=0.1, block=16),
    "90 % block-sparse bf16": Variant(
        density=0.1, block=16, weight_format="bf16", activation_format="bf16"
    ),
}


# What operators of the profiler belong to, by what their names hold; the first that fits.
PARTS = {
    "sums over edges and atoms": ("Messages", "scatter", "gather", "index_select", "group_rows"),
    "products": ("Matmul", "aten::mm", "aten::addmm", "aten::bmm", "_linear_pointwise"),
    "normalisation": ("batch_norm", "_BatchNorm"),
    "optimizer": ("Optimizer", "adamw", "lerp", "addcdiv", "addcmul"),
}
REST = "the rest: activations, sums of gradients, calls"


def main(arguments: list[str]) -> int:
    """Print molecules per processor second, the ratios to the peers, and packing efficiency."""
    parser = argparse.ArgumentParser(prog="tessera bench chemistry", description=__doc__)
    parser.add_argument("--data", default="pocket", help="a set or a file, as in training")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--width", type=int, default=304, help="a multiple of 16")
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument(
        "--in-a-row", type=int, default=4,
        help="steps of a model in a row, as in training; the first of several is not counted, as "
        "it finds the caches full of another model",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--results", type=Path, help="JSON file")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    core.keep_freed_memory()  # as the commands do; it serves the peers as well
    table = load_table(given.data)
    rows = np.random.default_rng(0).permutation(len(table))[: given.batch]
    target = np.nan_to_num(table.target[rows][:, :1])
    graphs = [table.graphs[i] for i in rows]
    steps: dict[str, Step] = {
        name: _ours(variant, graphs, target, given.width) for name, variant in VARIANTS.items()
    }
    notes = []
    for name, make in zip(PEERS, (_gine, _chemprop, _same), strict=True):
        try:
            smiles = [table.smiles[i] for i in rows]
            steps[name] = make(graphs, smiles, target, given.width)
        except ImportError as error:
            notes.append(f"{name}: left out ({error})")
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(given.repeat + 1):
        for name, step in steps.items():
            for i in range(given.in_a_row):
                start = time.thread_time()
                step()
                if turn and (i or given.in_a_row == 1):
                    seconds[name].append(time.thread_time() - start)
    rate = {name: len(graphs) / statistics.median(each) for name, each in seconds.items()}
    n_atom = [graph.n_atom for graph in table.graphs]
    packing = {n: packing_efficiency(fill_blocks(n_atom, n), n_atom, n) for n in (128, 256, 512)}
    reading = _reading(table.smiles[:2000])
    found = {
        "schema": SCHEMA, "data": given.data, "batch": len(graphs), "width": given.width,
        "n_layer": N_LAYER, "thread": 1, "molecule_per_cpu_s": rate | reading, "packing": packing,
        "share_of_step": {name: _shares(step) for name, step in steps.items()}, "left_out": notes,
    }  # fmt: skip
    if given.results:
        write_atomic(given.results, json.dumps(found, indent=1) + "\n")
    if given.json:
        print(json.dumps(found))
        return 0
    peers = [name for name in PEERS if name in rate]
    print(f"{table.name}, batch {len(graphs)}, width {given.width}, {N_LAYER} rounds, one thread")
    for name, value in rate.items():
        ratios = ", ".join(f"{value / rate[peer]:.2f} x {peer}" for peer in peers)
        print(f"{name:24s} {value:8.0f} molecules per CPU second   {ratios}")
    for name, shares in found["share_of_step"].items():
        print(f"{name:24s} " + ", ".join(f"{100 * v:.0f} % {part}" for part, v in shares.items()))
    for name, value in reading.items():
        print(f"{name:24s} {value:8,.0f} molecules per CPU second")
    for n_slot, share in packing.items():
        print(f"blocks of {n_slot} atom slots: {100 * share:.1f} % hold atoms")
    for note in notes:
        print(note)
    return 0


def _shares(step: Step) -> dict[str, float]:
    """Return what share of a step each of `PARTS` takes."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        for _ in range(5):
            step()
    spent = dict.fromkeys([*PARTS, REST], 0.0)
    for event in profiled.key_averages():
        fits = (p for p, names in PARTS.items() if any(name in event.key for name in names))
        spent[next(fits, REST)] += event.self_cpu_time_total
    return {part: round(each / sum(spent.values()), 3) for part, each in spent.items()}


def _reading(smiles: list[str]) -> dict[str, float]:
    """Return molecules per CPU second of RDKit's parser and of the graphs made of its molecules."""
    rate = {"SMILES parsed": 0.0, "graphs featurised": 0.0}
    for _ in range(3):
        start = time.thread_time()
        mols = [mol_from_smiles(text) for text in smiles]
        parsed = time.thread_time()
        featurise_many(mols)
        times = (parsed - start, time.thread_time() - parsed)
        rate = {name: max(rate[name], len(mols) / t) for name, t in zip(rate, times, strict=True)}
    return rate


def _ours(variant: Variant, graphs: list, target: np.ndarray, width: int) -> Step:
    model = BindingNetwork(
        N_ATOM_FEATURE, N_EDGE_FEATURE, d_hidden=width, n_layer=N_LAYER,
        spec=variant.layer_spec(), generator=torch.Generator().manual_seed(0),
    ).train()  # fmt: skip
    model.set_scale(target)
    optimizer = make_optimizer(model, FitConfig())
    batch = pack(graphs, target)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        model.loss(batch).backward()
        optimizer.step()

    return step


def _gine(graphs: list, smiles: list[str], target: np.ndarray, width: int) -> Step:
    """Return a step of PyG's own GINE: sum readout, two-layer head, AdamW."""
    from torch import nn
    from torch_geometric.data import Batch
    from torch_geometric.nn import GINEConv, global_add_pool

    torch.manual_seed(0)

    def update() -> nn.Module:
        return nn.Sequential(
            nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, width)
        )

    embed = nn.Linear(N_ATOM_FEATURE, width)
    convs = nn.ModuleList(GINEConv(update(), edge_dim=N_EDGE_FEATURE) for _ in range(N_LAYER))
    norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(N_LAYER))
    head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))
    whole = nn.ModuleList([embed, convs, norms, head]).train()
    optimizer = torch.optim.AdamW(whole.parameters(), lr=1e-3)
    batch = Batch.from_data_list([pyg_data(g, t) for g, t in zip(graphs, target, strict=True)])
    goal = torch.from_numpy(target)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        h = embed(batch.x)
        for conv, norm in zip(convs, norms, strict=True):
            h = torch.relu(norm(conv(h, batch.edge_index, batch.edge_attr)))
        out = head(global_add_pool(h, batch.batch, batch.num_graphs))
        ((out - goal) ** 2).mean().backward()
        optimizer.step()

    return step


def _same(graphs: list, smiles: list[str], target: np.ndarray, width: int) -> Step:
    """Return a step of the layers of `BindingNetwork`, dense, as a user of PyG writes them."""
    from torch import nn
    from torch_geometric.data import Batch
    from torch_geometric.nn import GINEConv, global_add_pool, global_mean_pool

    torch.manual_seed(0)

    def update() -> nn.Module:
        return nn.Sequential(
            nn.Linear(width, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(),
            nn.Linear(width, width, bias=False),
        )  # fmt: skip

    embed = nn.Linear(N_ATOM_FEATURE, width)
    convs = nn.ModuleList(GINEConv(update(), edge_dim=N_EDGE_FEATURE) for _ in range(N_LAYER))
    norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(N_LAYER))
    detect = nn.ModuleList(nn.Linear(width, width) for _ in range(N_LAYER + 1))
    n_row, n_head = 2 * (N_LAYER + 1) * width, 2 * width
    row_norm, head, mix = nn.BatchNorm1d(n_row), nn.Linear(n_row, n_head), nn.Linear(n_head, n_head)
    out = nn.Linear(n_head, 1)
    parts = [embed, convs, norms, detect, row_norm, head, mix, out]
    whole = nn.ModuleList(parts).train()
    optimizer = torch.optim.AdamW(whole.parameters(), lr=1e-3)
    batch = Batch.from_data_list([pyg_data(g, t) for g, t in zip(graphs, target, strict=True)])
    goal = torch.from_numpy(target)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        states = [embed(batch.x)]
        for conv, norm in zip(convs, norms, strict=True):
            h = states[-1]
            states.append(h + norm(conv(h, batch.edge_index, batch.edge_attr)))
        shown = torch.cat(
            [torch.relu(one(h)) for one, h in zip(detect, states, strict=True)], dim=1
        )
        count = torch.log1p(global_add_pool(shown, batch.batch, batch.num_graphs))
        mean = global_mean_pool(shown, batch.batch, batch.num_graphs)
        row = torch.relu(head(row_norm(torch.cat([count, mean], dim=1))))
        ((out(row + torch.relu(mix(row))) - goal) ** 2).mean().backward()
        optimizer.step()

    return step


def _chemprop(graphs: list, smiles: list[str], target: np.ndarray, width: int) -> Step:
    """Return a step of chemprop's bond messages, mean readout and regression head, AdamW."""
    from chemprop import data, models, nn

    points = [data.MoleculeDatapoint.from_smi(s, y) for s, y in zip(smiles, target, strict=True)]
    loader = data.build_dataloader(
        data.MoleculeDataset(points), batch_size=len(points), shuffle=False
    )
    batch = next(iter(loader))
    torch.manual_seed(0)
    model = models.MPNN(
        nn.BondMessagePassing(d_h=width, depth=N_LAYER),
        nn.MeanAggregation(),
        nn.RegressionFFN(input_dim=width, hidden_dim=width),
        batch_norm=True,
    ).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    goal = torch.from_numpy(target)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        ((model(batch.bmg) - goal) ** 2).mean().backward()
        optimizer.step()

    return step


if __name__ == "__main__":
    import sys

    raise SystemExit(main(sys.argv[1:]))
