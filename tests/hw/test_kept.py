"""What the model says of fixed programs is kept: no prediction changes unnoticed.

    python -m tests.hw.test_kept     writes kept.json anew, after a change that is meant

The figures are the model's own, not measurements: those are in `tessera hw validate`.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import hw
from hw.item import PARTS
from hw.machine import KINDS, load_machine, machine_names
from hw.model_text import trace_model
from hw.pods import predict_training
from hw.rules import tasks_of
from hw.single import parse_op
from hw.targets import cost_item, expanded
from hw.validate import predict_row

KEPT = Path(__file__).with_name("kept.json")
#: Sums in another order on another machine.
ROUNDING = 1e-9

OPS = (
    "matmul m=96 k=96 n=96 dtype=fp16", "matmul m=1000 k=2000 n=300 dtype=fp32",
    "matmul m=64 k=512 n=33 batch=12 dtype=bf16", "matmul m=4096 k=4096 n=4096 dtype=fp16",
    "spmm m=512 k=512 n=64 block=4 density=0.1 dtype=fp16 mode=static",
    "spmm m=2048 k=2048 n=256 block=16 density=0.05 dtype=fp16 mode=static",
    "spmm m=1024 k=1024 n=512 block=8 density=0.2 dtype=fp32 mode=dynamic",
    "spmm m=4096 k=4096 n=30000 block=16 density=0.25 dtype=fp16 mode=dynamic",
    "spmm_t m=512 k=1024 n=64 block=16 density=0.1 dtype=fp16 mode=static",
    "sddmm m=512 k=1024 n=64 block=16 density=0.1 dtype=fp16 mode=static",
    "convolution batch=8 in=64 out=128 size=28 kernel=3 dtype=fp16",
    "convolution batch=8 in=64 out=64 size=28 kernel=3 group=16 dtype=fp16",
    "attention batch=2 head=4 length=96 width=64 dtype=fp16",
    "attention batch=1 head=8 length=2048 width=128 dtype=fp16",
    "softmax m=300 n=700 dtype=fp16", "softmax m=8 n=100000 dtype=fp32",
    "layer_norm m=1024 n=1000 dtype=fp16", "layer_norm m=8 n=200000 dtype=fp32",
    "gelu m=100 n=2000 dtype=fp16", "add m=4000 n=5000 dtype=fp32", "divide m=30 n=50 dtype=fp32",
    "exp m=300 n=500 dtype=fp32", "sum m=70 n=900 dtype=fp32", "transpose m=300 n=700 dtype=fp16",
    "fourier m=96 n=64 dtype=fp32", "fourier m=33 n=45 dtype=fp32", "fourier m=7 n=97 dtype=fp32",
    "legendre m=22 degree=21 latitude=32 n=80 dtype=fp32", "gather m=500 n=64 of=3000 dtype=fp32",
    "segment_sum m=5000 n=64 into=700 dtype=fp32",
)  # fmt: skip
MODELS = (
    "mlp width=96 depth=3 batch=40 dtype=fp32", "transformer width=128 depth=2 batch=4 dtype=fp16",
    "bert width=128 depth=2 head=4 batch=2", "resnet depth=50 batch=2", "gps depth=2 batch=1",
    "conformer width=64 depth=2 head=4 length=200 batch=2",
)  # fmt: skip
TRAINING = (
    ("train:ResNet-50 v1.5", "Bow Pod16"), ("train:BERT-Large SL384 packed", "Bow Pod16"),
    ("train:BERT-Large SL128", "Bow Pod64"), ("train:BERT-Large SL512 packed", "Bow Pod64"),
)  # fmt: skip

BOW, DGX = "Bow IPU (1 chip, 1472 tiles, 1.85 GHz)", "A100 (DGX A100, CUDA 11.6.2)"
LLM, STK = "A100 80GB (LLMCompass testbed)", "A100-SXM4-80GB"
#: Rows of a table to validate against: machine, op, dtype, m, k, n, block, density, mode, metric.
ROWS = (
    (BOW, "matmul", "FP16", "1100", "1100", "48", "", "1", "dense", "throughput"),
    (BOW, "matmul", "FP32", "2000", "1000", "best", "", "0.2", "dense", "nonzero_throughput"),
    (BOW, "spmm", "FP16", "1024", "1024", "64", "8", "0.1", "static", "speedup_vs_dense"),
    (BOW, "spmm", "FP16", "2048", "2048", "128", "4", "0.1", "dynamic", "nonzero_throughput"),
    (DGX, "cusparse_csr_spmm", "FP32", "1024", "1024", "512", "1", "0.1", "dynamic",
     "nonzero_throughput"),
    (DGX, "cusparse_bsr_spmm", "FP32", "1024", "1024", "512", "16", "0.1", "dynamic",
     "nonzero_throughput"),
    (LLM, "matmul", "FP16", "96", "3000", "5000", "", "1", "dense", "latency"),
    (LLM, "softmax", "FP16", "300", "", "900", "", "1", "dense", "throughput"),
    (LLM, "gelu", "FP16", "3000", "", "", "", "1", "dense", "throughput"),
    (LLM, "layernorm", "FP16", "300", "", "900", "", "1", "dense", "latency"),
    (LLM, "transformer layer", "FP16", "512", "2048", "256", "", "", "tp4", "latency"),
    *((STK, f"block_sparse_layer{words} MoE-XS", "FP16", "", "", "", "128", "", "dynamic",
       "throughput_vs_cublas") for words in ("0:fwd:sdd:nt", "0:gradw:dsd:tn", "1:fwd:dsd:nn")),
    ("GC2", "peak", "FP32", "", "", "", "", "", "", "throughput"),
    ("GC2", "matmul best", "FP32", "", "", "", "", "", "dense", "throughput"),
    ("GC2", "local SRAM", "", "", "", "", "", "", "", "bandwidth"),
    ("GC2", "exchange aggregate, all tiles", "", "", "", "", "", "", "", "bandwidth"),
)  # fmt: skip
COLUMNS = ("machine", "op", "dtype", "m", "k", "n", "block", "density", "mode", "metric")


def works() -> dict[str, list[str]]:
    """Give the work of every operation of two steps that use many of them."""
    torch.manual_seed(0)
    net = nn.ModuleList(
        [nn.Linear(24, 24), nn.LayerNorm(24), nn.BatchNorm1d(24), nn.GroupNorm(4, 24),
         nn.Conv1d(24, 24, 3, padding=1, groups=4), nn.Embedding(11, 24), nn.PReLU(),
         nn.ConvTranspose1d(24, 24, 2, stride=2)]
    )  # fmt: skip
    rule = [p for p in net.parameters()]
    by_rule = [
        torch.optim.Adam(rule, foreach=True), torch.optim.SGD(rule, momentum=0.9, foreach=True),
        torch.optim.RMSprop(rule, centered=True, foreach=True), torch.optim.AdamW(rule),
        torch.optim.Adagrad(rule, foreach=True),
    ]  # fmt: skip
    index = torch.arange(40) % 11

    def step(x: torch.Tensor) -> None:
        linear, norm, batch_norm, group_norm, conv, table, slope, up = net
        h = functional.gelu(linear(x)) + table(index)
        h = slope(batch_norm(norm(h)))
        y = up(conv(group_norm(h.t().unsqueeze(0)))).squeeze(0).t()[:40]
        z = torch.cat([h.softmax(-1), y.log_softmax(0)], 1).sigmoid().cumsum(0)
        z = z.new_zeros(11, 48).index_add(0, index, z).index_select(0, index)
        z = z.sort(1).values.clamp(-1, 1).pow(3).var(0) + z.amax(0) + z.std(0).sqrt() + z.prod(0)
        v = torch.mv(h, h.mean(0)).dot(torch.arange(40.0)) + torch.outer(x[0], x[1]).norm()
        w = functional.max_pool1d(y.t().unsqueeze(0), 2).sum() + functional.silu(h).tanh().mean()
        s = torch.where(h > 0, h, h.exp()).flip(0).roll(1, 0).tril().gather(1, index[:, None] % 24)
        for optimizer in by_rule:
            optimizer.zero_grad()
        (z.sum() + v + w + s.log().abs().sum() + torch.einsum("ij,kj->ik", h, h).sum()).backward()
        for optimizer in by_rule:
            optimizer.step()

    program = hw.trace(step, torch.rand(40, 24) + 1)
    found: dict[str, list[str]] = {}
    for task in tasks_of(program):
        found.setdefault(task.op.name, []).extend(map(repr, task.items))
    return {name: sorted(set(said)) for name, said in sorted(found.items())}


def of_operation(text: str) -> dict[str, list[Any]]:
    """Give what the model says of one operation, by machine: figures, then words."""
    op, out = parse_op(text), {}
    for name in machine_names():
        machine = load_machine(name)
        costs = [cost_item(item, machine) for item in expanded((op,), machine)]
        out[name] = [
            sum(c.time_s for c in costs), sum(sum(c.energy_j.values()) for c in costs),
            sum(c.exchange_byte for c in costs), max(c.temporary_byte for c in costs),
            sum(c.off_chip_byte for c in costs), max(c.n_tile_used for c in costs),
            *(sum(c.energy_j[part] for c in costs) for part in sorted(costs[0].energy_j)),
            *(sum(c.parts_s.get(part, 0.0) for c in costs) for part in PARTS),
            sum(c.runner_up[1] for c in costs if c.runner_up),
            "; ".join(f"{c.plan}, binds: {c.binds}" for c in costs),
        ]  # fmt: skip
    return out


def of_model(text: str) -> dict[str, list[float]]:
    """Give what the model says of a training step, by machine."""
    (program, _), out = trace_model(text), {}
    for name in ("ipu_bow", "a100", "tpu_v3"):
        report = hw.cost_program(program, name, phase="train_step")
        out[name] = [
            report.time_s, report.energy_j, report.peak_tile_memory_byte, report.utilisation,
            sum(report.rearranged_s), sum(report.layers_s), report.n_fused,
        ]  # fmt: skip
    return out


def of_training(op: str, system: str) -> float:
    """Give what the model says of a published training, items per second."""
    cells = {"op": op, "machine": system, "metric": "throughput", "notes": ""}
    return predict_training(cells)[0]


def of_row(row: tuple[str, ...]) -> list[float | str | None]:
    """Give prediction and interval of a row, or why there is none."""
    cells = dict(zip(COLUMNS, row, strict=True))
    said = predict_row({"id": "a", "value": "1", "notes": "", **cells})
    return [said.predicted, said.low, said.high, said.reason]


def intervals() -> dict[str, list[float]]:
    """Give outside which values a number of a machine file is refused, by kind and field."""
    return {
        f"{kind}.{f.name}": list(f.metadata["interval"])
        for kind, machine in KINDS.items()
        for f in dataclasses.fields(machine)
        if f.metadata
    }


def kept(part: str) -> dict[str, Any]:
    return dict(json.loads(KEPT.read_text(encoding="utf-8"))[part])


HINT = "if this was meant, python -m tests.hw.test_kept"


@pytest.mark.parametrize("text", OPS)
def test_operations_cost_what_is_kept(text):
    for machine, figures in of_operation(text).items():
        *numbers, words = figures
        *before, said = kept("operations")[text][machine]
        assert words == said, HINT
        assert numbers == pytest.approx(before, rel=ROUNDING), HINT


@pytest.mark.parametrize("text", MODELS)
def test_training_steps_cost_what_is_kept(text):
    for machine, figures in of_model(text).items():
        assert figures == pytest.approx(kept("models")[text][machine], rel=ROUNDING), HINT


@pytest.mark.parametrize(("op", "system"), TRAINING)
def test_published_trainings_take_what_is_kept(op, system):
    wanted = kept("training")[f"{op}, {system}"]
    assert of_training(op, system) == pytest.approx(wanted, rel=ROUNDING), HINT


@pytest.mark.parametrize("row", ROWS, ids=" ".join)
def test_rows_are_predicted_as_is_kept(row):
    *figures, reason = of_row(row)
    *wanted, why = kept("rows")[" ".join(row)]
    assert reason == why, HINT
    for figure, before in zip(figures, wanted, strict=True):
        assert (figure is None) == (before is None), HINT
        assert figure is None or figure == pytest.approx(before, rel=ROUNDING), HINT


def test_work_of_operations_is_that_which_is_kept():
    before, now = kept("works"), works()
    shared = now.keys() & before.keys()  # versions of torch differ in what they call
    assert len(shared) > 0.8 * len(before)
    for name in shared:
        assert now[name] == before[name], f"{name}: {HINT}"


def test_machine_files_are_held_to_the_intervals_that_are_kept():
    assert intervals() == kept("intervals"), HINT


if __name__ == "__main__":
    parts = {
        "intervals": intervals(),
        "operations": {text: of_operation(text) for text in OPS},
        "models": {text: of_model(text) for text in MODELS},
        "training": {f"{op}, {system}": of_training(op, system) for op, system in TRAINING},
        "rows": {" ".join(row): of_row(row) for row in ROWS},
        "works": works(),
    }
    KEPT.write_text(json.dumps(parts, indent=1) + "\n", encoding="utf-8")
