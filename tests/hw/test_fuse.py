"""Chains run as one: by hand, and every hazard that must keep two ops apart."""

import pytest
import torch

import hw
from hw.fuse import fuse
from hw.machine import GpuMachine, load_machine
from hw.plan.dense import vertex_cycles
from hw.rules import tasks_of
from hw.targets import cost_item
from hw.work import Fused, Pointwise, Reduction


def fused(step, *args):
    program = hw.trace(step, *args)
    return fuse(program, tasks_of(program))


def names(step, *args):
    return [task.op.name for task in fused(step, *args)[1]]


X = torch.ones(1000)


def test_a_chain_is_one_item_that_reads_its_operands_once():
    """exp(x) * x + y: x and y once from memory, neither product nor exponential written."""
    program, (task,), n_fused = fused(lambda x, y: x.exp() * x + y, X, torch.ones(1000))
    assert n_fused == 2
    assert task.op.name == "fused exp+mul+add"
    assert task.items == (
        Fused(
            (
                Pointwise(1000, "transcendental", "fp32", "fp32", 1, 1),
                Pointwise(1000, "arithmetic", "fp32", "fp32", 0, 1),
                Pointwise(1000, "arithmetic", "fp32", "fp32", 1, 1),
            )
        ),
    )
    # two inputs and one result: 12,000 byte, and nothing in between
    assert program.live_byte()[-1] == 12_000


def test_two_parts_of_one_tensor_are_both_read():
    _, (task,), _ = fused(lambda x: x[:, :25] * x[:, 25:] + 1, torch.ones(20, 50))
    assert [step.n_input for step in task.items[0].steps] == [2, 0]


def test_a_reduction_ends_a_chain():
    _, (task,), n_fused = fused(lambda x: (x * x).sum(), X)
    assert n_fused == 1
    (item,) = task.items
    assert item.reduction == Reduction(1, 1000, "fp32", "fp32")
    assert names(lambda x: (x * x).sum(0, keepdim=True) * 2, X) == ["fused mul+sum", "aten.mul"]


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        # two readers: the first joins, the second reads what was kept
        (lambda x: ((y := x.exp()) * 2, y + 1), ["fused exp+mul", "aten.add"]),
        # a second reader in between
        (
            lambda x: (y := x.exp(), z := y * 2, y.cumsum(0), z + 1),
            ["fused exp+mul", "aten.cumsum", "aten.add"],
        ),
        # a slice and a transpose stand between
        (lambda x: x.exp()[:500] * 2, ["aten.exp", "aten.mul"]),
        (lambda x: x.reshape(20, 50).exp().t() + 1, ["aten.exp", "aten.add"]),
        # another number of entries
        (lambda x: x.exp().reshape(1, 1000) + torch.ones(3, 1), None),
        # a scan depends on its neighbours
        (lambda x: x.exp().cumsum(0), ["aten.exp", "aten.cumsum"]),
        # what the first reads is written before the second runs
        (lambda x: (y := x + 1, x.mul_(2), y.exp())[2], ["aten.add", "aten.mul_", "aten.exp"]),
        # a view of all entries in their order is none
        (lambda x: x.exp().reshape(20, 50) * 2, ["fused exp+mul"]),
        # in place: the value before is gone
        (lambda x: x.exp().mul_(2).add_(1), ["fused exp+mul+add"]),
        # two branches meet
        (lambda x: x.exp() + x.sin(), ["fused exp+sin+add"]),
    ],
)
def test_hazards(step, expected):
    seen = [name for name in names(step, X.clone()) if name != "aten.ones"]
    assert seen == (expected or ["aten.exp", "aten.add"])


def test_a_value_written_in_place_before_keeps_its_memory():
    program, tasks, n_fused = fused(lambda x: (x @ x).mul_(2) + 1, torch.ones(30, 30))
    assert [task.op.name for task in tasks] == ["aten.mm", "fused mul+add"]
    assert n_fused == 1
    # operand, product, result
    assert program.live_byte()[-1] == 3 * 3600


def test_results_needed_later_are_written_beside():
    """The sigmoid is read again in the backward pass; an input changed in place outlives all."""
    weight = torch.nn.Parameter(torch.ones(80))
    _, tasks, _ = fused(lambda: (weight.sigmoid() * 2).sum().backward())
    (chain,) = (task for task in tasks if task.op.name == "fused sigmoid+mul+sum")
    assert chain.items[0].kept == ("fp32",)
    _, (task,), _ = fused(lambda x: x.mul_(2) + 1, torch.ones(80))
    assert task.items[0].kept == ("fp32",)
    machine = load_machine("a100")
    # read once; both results written
    assert cost_item(task.items[0], machine).off_chip_byte == 3 * 80 * 4


def test_an_optimizer_is_one_pass_over_all_parameters():
    """Adam reads parameter, gradient and two moments, and writes all but the gradient."""
    net = torch.nn.Sequential(torch.nn.Linear(30, 40), torch.nn.Linear(40, 20))
    optimizer = torch.optim.Adam(net.parameters(), foreach=False)
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    report = hw.cost(optimizer.step, machine="a100")
    n_parameter = 30 * 40 + 40 + 40 * 20 + 20
    passes = [op for op in report.ops if op.name == "fused lerp+mul+addcmul+sqrt+div+add+addcdiv"]
    assert len(passes) == len(report.ops) == 1
    assert passes[0].off_chip_byte == 7 * 4 * n_parameter
    assert report.parts_s["launch"] == load_machine("a100").launch_s


STEPS = (
    Pointwise(120_000, "arithmetic", "fp32", "fp32", 2, 1),
    Pointwise(120_000, "transcendental", "fp32", "fp16", 0, 1),
)


def test_one_launch_and_no_traffic_between_on_a_gpu():
    machine = load_machine("a100")
    assert isinstance(machine, GpuMachine)
    cost = cost_item(Fused(STEPS), machine)
    byte = 120_000 * (2 * 4 + 2)
    assert cost.off_chip_byte == byte
    assert cost.parts_s["launch"] == machine.launch_s
    memory_s = byte / (machine.hbm_byte_per_s * machine.hbm_fraction)
    assert cost.time_s == pytest.approx(machine.launch_s + memory_s)


def test_one_vertex_on_tiles_by_hand():
    machine = load_machine("ipu_bow")
    cost = cost_item(Fused(STEPS), machine)
    # 120,000 / 1,472 entries, each half a cycle of arithmetic and five of the exponential
    n_l = -(-120_000 // 1472)
    assert [s.label for s in cost.supersteps] == ["pointwise"]
    assert cost.supersteps[0].cycles == vertex_cycles(machine) + n_l * 5.5
    single = [cost_item(step, machine).time_s for step in STEPS]
    assert cost.time_s < sum(single)


def test_reduction_takes_entries_from_registers():
    machine = load_machine("ipu_bow")
    reduction = Reduction(1472, 100, "fp32", "fp32")
    step = Pointwise(147_200, "arithmetic", "fp32", "fp32", 1, 1)
    (one,) = cost_item(Fused((step,), reduction), machine).supersteps
    # a product and a sum, each half a cycle; one operand of four byte at eight a cycle
    assert one.cycles == vertex_cycles(machine) + 100 * max(0.5 + 0.5, 4 / 8)


@pytest.mark.parametrize("machine", hw.machine_names())
def test_fusing_never_costs_more_and_says_how_many(machine):
    def step(x):
        return ((x - x.mean(0)) * 2).exp().sum()

    program = hw.trace(step, torch.ones(200, 30))
    apart = hw.cost_program(program, machine, fuse=False)
    joined = hw.cost_program(program, machine)
    assert apart.n_fused == 0
    assert "fused" not in str(apart)
    assert joined.n_fused == len(apart.ops) - len(joined.ops) == 3
    assert "3 more fused into them" in str(joined)
    assert joined.time_s < apart.time_s
    assert joined.energy_j < apart.energy_j
