"""Time and memory of the simulator itself; time as a ratio, see tests/pace.py."""

import resource

import pytest
import torch

from hw import cost_program, load_machine
from hw.model_text import trace_model
from hw.targets.dispatch import _cost
from hw.trace import trace
from hw.work import SparseContraction
from tests.pace import least_s

#: Goals of the project: seconds for a training step traced, planned and simulated, for 1,000
#: plans, and for a block of GPT-3's size; bytes for that block.
STEP_S, PLANS_S, BLOCK_S, BLOCK_BYTE = 5.0, 10.0, 10.0, 2e9


def test_a_training_step_is_traced_and_costed_in_the_stated_time():
    model = torch.nn.Sequential(
        *(torch.nn.TransformerEncoderLayer(256, 4, batch_first=True, dropout=0) for _ in range(6))
    )
    optimizer = torch.optim.AdamW(model.parameters())
    x = torch.randn(8, 64, 256)

    def step():
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()

    def costed():
        program = trace(step)
        reports.append(cost_program(program, "ipu_bow", phase="train_step"))

    reports = []
    assert least_s(costed, STEP_S) < STEP_S
    assert reports[-1].n_mac > 3 * 6 * 12 * 256**2 * 512 - 256**2 * 3 * 512


def test_a_hundred_sparse_plans_take_a_tenth_of_the_time_for_a_thousand():
    machine = load_machine("ipu_bow")
    items = [
        SparseContraction(
            "spmm", 4096, 4096, 64 + i, (16, 16), 1000 + 37 * i, "fp16", "fp16", "fp16",
            "static" if i % 2 else "dynamic",
        )
        for i in range(100)
    ]  # fmt: skip
    bound_s = PLANS_S / 10
    # the door would remember what it answered: past it
    assert least_s(lambda: [_cost(item, machine) for item in items], bound_s) < bound_s


def test_a_block_of_gpt_3_is_traced_and_planned_without_computing():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    reports = []

    def planned():
        program, _ = trace_model(
            "transformer width=12288 depth=1 head=96 length=2048 batch=1 dtype=fp16"
        )
        reports.append(cost_program(program, "ipu_bow", phase="train_step"))

    assert least_s(planned, BLOCK_S) < BLOCK_S
    report = reports[-1]
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    assert grown < BLOCK_BYTE
    # 12 width^2 parameters, three products of each with 2048 tokens (but no gradient of the
    # block's input through 3 width^2 of them), and the attention
    assert report.n_mac > (3 * 12 - 3) * 12288**2 * 2048
    assert not report.fits


def test_what_does_not_fit_names_op_owners_and_chips():
    program, _ = trace_model("transformer width=4096 depth=1 head=32 length=256 batch=1 dtype=fp32")
    from core.errors import MemoryExceededError

    report = cost_program(program, "ipu_bow", phase="train_step")
    with pytest.raises(MemoryExceededError) as caught:
        report.require_fit()
    sentence = str(caught.value)
    assert "per tile, the machine has 638,976; largest owners: " in sentence
    needed = report.peak_tile_memory_byte / report.memory_byte
    chips = int(sentence.rsplit("at least ", 1)[1].split()[0])
    assert chips == -(-needed // 1)
    assert chips > 1
