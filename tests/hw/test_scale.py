"""Training on many chips: one chip alone, parts, monotone efficiency, published pods."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

import hw
from core.errors import ConfigError
from hw.links import Group, all_reduce
from hw.machine import load_machine, machine_names
from hw.model_text import trace_model
from hw.scale import (
    BUCKET_BYTE,
    Layout,
    StepWork,
    parse_steps,
    scale,
    step_work,
    time_to_train,
)

WORK = StepWork(
    n_item=10,
    forward_s=1.0,
    backward_s=2.0,
    optimizer_s=0.4,
    product_fraction=0.8,
    gradient_byte=4e9,
    tensor_byte=1e9,
    op_s=(0.25, 0.25, 0.25, 0.25),
    cut_byte=(1e6, 3e6, 2e6, 0.0),
)
SUM = 1e-12
COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


@pytest.mark.parametrize("name", machine_names())
def test_one_chip_has_no_communication(name):
    one = scale(WORK, load_machine(name), Layout())
    assert one.time_s == pytest.approx(WORK.time_s, rel=SUM)
    assert one.efficiency == pytest.approx(1.0, rel=SUM)
    assert one.sent_byte == 0
    assert {part for part, s in one.parts_s.items() if s} == {"compute", "optimizer"}


@pytest.mark.parametrize("name", machine_names())
@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize("kind", ["data", "pipeline", "tensor"])
def test_efficiency_falls_and_parts_add_up(name, overlap, kind):
    work = replace(WORK, op_s=(1 / 1024,) * 1024, cut_byte=(1e6,) * 1024)
    steps = [
        scale(work, load_machine(name), Layout(**{kind: n, "n_micro": 8}), overlap=overlap)
        for n in COUNTS
    ]
    for step in steps:
        assert sum(step.parts_s.values()) == pytest.approx(step.time_s, rel=SUM)
        assert step.efficiency <= 1 + SUM
        rate = step.layout.n_chip * steps[0].item_per_s
        assert step.efficiency == pytest.approx(step.item_per_s / rate, rel=SUM)
    for fewer, more in pairwise(steps):
        assert more.efficiency <= fewer.efficiency * (1 + SUM)


def test_gradients_hide_behind_the_backward_pass_but_for_the_last_bucket():
    machine, layout = load_machine("a100"), Layout(data=8)
    whole = all_reduce(4e9, Group(8), machine).time_s
    last = all_reduce(BUCKET_BYTE, Group(8), machine).time_s
    assert scale(WORK, machine, layout, overlap=False).parts_s["gradient"] == whole
    assert scale(WORK, machine, layout).parts_s["gradient"] == last
    quick = replace(WORK, backward_s=whole / 2)
    assert scale(quick, machine, layout).parts_s["gradient"] == pytest.approx(whole / 2)


def test_pipeline_by_hand():
    """Four even stages, eight micro-batches: three of eleven slots are idle."""
    free = replace(load_machine("a100"), chip_link_byte_per_s=1e30, chip_link_latency_s=0.0)
    step = scale(WORK, free, Layout(pipeline=4, n_micro=8))
    assert step.parts_s["compute"] == pytest.approx(3.0 / 4)
    assert step.parts_s["bubble"] == pytest.approx(3 * 3.0 / 4 / 8)
    assert step.parts_s["optimizer"] == pytest.approx(0.1)
    linked = replace(load_machine("a100"), chip_link_byte_per_s=1e9, chip_link_latency_s=1e-6)
    handed_s = 2 * (3e6 / 8 / 1e9 + 1e-6)
    exposed = scale(WORK, linked, Layout(pipeline=4, n_micro=8))
    assert exposed.parts_s["pipeline"] == pytest.approx(8 * handed_s)
    assert exposed.parts_s["bubble"] == pytest.approx(3 * (3.0 / 4 / 8 + handed_s))
    # two crossings of each of three cuts, the largest cut's bytes
    assert step.sent_byte == pytest.approx(2 * 3 * 3e6)


def test_uneven_stages_wait_for_the_slowest():
    work = replace(WORK, op_s=(0.7, 0.1, 0.1, 0.1))
    assert work.stages(2) == (pytest.approx(0.7), 1e6)
    assert work.stages(1) == (1.0, 0.0)
    with pytest.raises(ConfigError, match="5 pipeline stages for 4 forward ops; use fewer"):
        work.stages(5)


def test_tensor_parallel_divides_the_products_alone():
    step = scale(WORK, load_machine("a100"), Layout(tensor=4))
    assert step.parts_s["compute"] == pytest.approx(3.0 * (0.8 / 4 + 0.2))
    assert step.parts_s["tensor"] == all_reduce(1e9, Group(4), load_machine("a100")).time_s


def test_bad_layout():
    with pytest.raises(ConfigError, match="scale: tensor must be at least 1, got 0"):
        Layout(tensor=0)


def test_what_crosses_is_read_from_the_program():
    """Layers 64 x 64 and 64 x 48 on 32 rows: weights, one activation in between."""
    net = torch.nn.Sequential(
        torch.nn.Linear(64, 64, bias=False), torch.nn.Linear(64, 48, bias=False)
    )
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    x = torch.ones(32, 64)

    def step():
        optimizer.zero_grad()
        net(x).sum().backward()
        optimizer.step()

    program = hw.trace(step)
    report = hw.cost_program(program, "ipu_bow", phase="train_step")
    work = step_work(report, program, 32)
    assert work.gradient_byte == 64 * (64 + 48) * 4
    # the second layer's result, and as much on the way back
    assert work.tensor_byte == 2 * 32 * 48 * 4
    # after a product its result, after the sum one number, from which the gradient starts
    assert work.cut_byte == (32 * 64 * 4, 32 * 48 * 4, 4, 0)
    assert len(work.op_s) == 4
    assert work.time_s == pytest.approx(report.time_s, rel=SUM)


@pytest.mark.parametrize(
    ("text", "n_parameter"),
    [
        ("mlp width=64 depth=3 batch=16", 3 * (64 * 64 + 64)),
        # attention 4 w (w + 1), feed-forward 8 w w + 5 w, two norms 4 w
        ("transformer width=64 depth=2 head=4 length=16 batch=8", 2 * (12 * 64**2 + 13 * 64)),
    ],
)
def test_models_in_words(text, n_parameter):
    program, n_item = trace_model(text)
    work = step_work(hw.cost_program(program, "a100"), program, n_item)
    assert n_item == int(text.split("batch=")[1])
    assert work.gradient_byte == 4 * n_parameter
    assert min(work.forward_s, work.backward_s, work.optimizer_s) > 0


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("mpl width=4", r"model 'mpl' is unknown; did you mean 'mlp'\?"),
        ("mlp width=4 dtype=int8", "mlp: dtype 'int8' is not one of fp32"),
        ("transformer width=30", "width 30 is not a multiple of head 8"),
    ],
)
def test_slips_in_words(text, sentence):
    with pytest.raises(ConfigError, match=sentence):
        trace_model(text)


def test_time_to_train_takes_measured_steps():
    steps = {256: 1000.0, 1024: 300.0}
    assert time_to_train(0.5, 256, steps) == pytest.approx(500)
    # half way between the logarithms: the geometric mean
    assert time_to_train(0.5, 512, steps) == pytest.approx(0.5 * (1000 * 300) ** 0.5)
    with pytest.raises(ConfigError, match="batch 2048 lies outside the measured batch sizes 256"):
        time_to_train(0.5, 2048, steps)


#: Items per second on 16 and on 64 chips of the same kind, and items per step there; the vendor's
#: performance page (graphcore.ai/performance-results, training, Bow). Parameters: 25.6 million in
#: ResNet-50 v1.5, 336 million in BERT-Large, 16-bit gradients.
PODS = [
    ("ResNet-50", 42029, 1920, 145287, 2560, 1, 25.6e6),
    ("BERT-Large, 128 tokens", 5179, 65536, 19353, 65536, 4, 336e6),
]
#: Scaling efficiency within ten points: the aim for published pods.
POINTS = 0.10


@pytest.mark.parametrize(("name", "rate", "batch", "rate4", "batch4", "stages", "weights"), PODS)
def test_published_scaling_from_16_to_64_chips(name, rate, batch, rate4, batch4, stages, weights):
    """Time per item on a replica from 16 chips, less its exchange, predicts 64 chips."""
    machine = load_machine("ipu_bow")

    def exchange_s(n_chip):
        group = Group(n_chip // stages, stride=stages)
        return all_reduce(2 * weights / stages, group, machine).time_s

    item_s = (batch / rate - exchange_s(16)) / (batch / 16)
    predicted = batch4 / (item_s * batch4 / 64 + exchange_s(64))
    assert abs(predicted - rate4) / (4 * rate) < POINTS


def test_steps_in_words():
    assert parse_steps("64:9000,512:1600.5") == {64: 9000, 512: 1600.5}
    for bad in ("", "64", "64:many", "0:9", "64:-1", "64:inf", "64:nan"):
        with pytest.raises(ConfigError, match="steps must be pairs of batch and steps"):
            parse_steps(bad)
