"""What the tracer sees: ops, phases, modules, layouts, storages; and that it leaves no trace."""

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from core.errors import DataError
from hw.trace import trace


@pytest.fixture
def net():
    torch.manual_seed(3)
    return torch.nn.Sequential(
        torch.nn.Linear(4, 5), torch.nn.BatchNorm1d(5), torch.nn.Dropout(0.5), torch.nn.Linear(5, 3)
    )


def training_step(net, x, optimizer):
    def step():
        optimizer.zero_grad()
        loss = net(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    return step


def names(program, phase=None):
    return [op.name for op in program.ops if phase in (None, op.phase)]


def test_phases_and_modules(net):
    x = torch.ones(2, 4)
    program = trace(training_step(net, x, torch.optim.AdamW(net.parameters())))
    assert names(program, "forward").count("aten.addmm") == 2
    # two weight gradients, one input gradient: the first layer's input needs none
    backward = [op for op in program.ops if op.phase == "backward" and op.name == "aten.mm"]
    assert [op.module for op in backward] == ["Sequential.3", "Sequential.3", "Sequential.0"]
    assert names(program, "optimizer").count("aten.addcdiv_") == 6  # once per parameter
    modules = {op.module for op in program.ops if op.name == "aten.addmm"}
    assert modules == {"Sequential.0", "Sequential.3"}


def test_step_counters_and_first_step_set_up_are_no_work(net):
    x = torch.ones(2, 4)
    optimizer = torch.optim.AdamW(net.parameters())
    first = trace(training_step(net, x, optimizer))
    training_step(net, x, optimizer)()
    later = trace(training_step(net, x, optimizer))
    assert names(first) == names(later)
    assert "aten._local_scalar_dense" not in names(first)
    assert "aten.zeros_like" not in names(first)


def test_everything_is_put_back(net):
    x = torch.ones(2, 4)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    random_before = torch.get_rng_state()
    generator = torch.Generator().manual_seed(1)
    generator_before = generator.get_state()

    def step():
        training_step(net, x, optimizer)()
        return torch.rand(3, generator=generator)

    for fake in (False, True):
        trace(step, fake=fake)
        for key, value in net.state_dict().items():
            assert torch.equal(value, before[key]), key
        assert all(p.grad is None for p in net.parameters())
        assert not optimizer.state
        assert torch.equal(torch.get_rng_state(), random_before)
        assert torch.equal(generator.get_state(), generator_before)


def test_state_of_a_running_optimizer_is_put_back(net):
    x = torch.ones(2, 4)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
    step = training_step(net, x, optimizer)
    step()
    weight = net[0].weight
    moment = optimizer.state[weight]["exp_avg"].clone()
    grad = weight.grad
    grad_before = grad.clone()

    def accumulate():
        net(x).square().mean().backward()
        optimizer.step()

    trace(accumulate)
    assert torch.equal(optimizer.state[weight]["exp_avg"], moment)
    assert optimizer.state[weight]["step"].item() == 1
    assert weight.grad is grad
    assert torch.equal(grad, grad_before)


def test_put_back_after_an_error(net):
    before = net[0].weight.clone()

    def step():
        with torch.no_grad():
            net[0].weight.add_(1)
        raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        trace(step)
    assert torch.equal(net[0].weight, before)


def test_real_and_fake_runs_see_the_same_program(net):
    net.eval()
    x = torch.ones(2, 4)
    with torch.no_grad():
        real, fake = trace(net, x), trace(net, x, fake=True)
    assert names(real) == names(fake)
    assert [op.out.shape for op in real.ops] == [op.out.shape for op in fake.ops]
    assert real.resident_byte == fake.resident_byte
    assert np.array_equal(real.live_byte(), fake.live_byte())


def test_inference_mode_is_dissolved_into_plain_ops(net):
    net.eval()
    with torch.inference_mode():
        program = trace(net, torch.ones(2, 4))
    assert names(program).count("aten.addmm") == 2
    assert "aten.linear" not in names(program)


def test_memory_is_keyed_by_storage():
    x = torch.zeros(100, 10)  # 4,000 byte, an input

    def step():
        y = x + 1  # 4,000
        z = y.t()[2:5]  # a view of y
        w = z * 2  # 3 x 100 x 4 = 1,200
        return w.sum()  # 4

    program = trace(step)
    assert program.resident_byte == 4_000
    live = dict(zip(names(program), program.live_byte(), strict=True))
    assert live["aten.add"] == 8_000
    assert live["aten.t"] == 8_000
    assert live["aten.mul"] == 9_200
    assert live["aten.sum"] == 4_000 + 1_200 + 4  # y is dead, its last reader was mul


def test_freed_memory_may_be_reused_without_confusion():
    def step():
        total = torch.zeros(())
        for i in range(20):
            total = total + torch.full((1000,), float(i)).sum()
        return total

    program = trace(step)
    fills = {op.out.storage for op in program.ops if op.name == "aten.full"}
    assert len(fills) == 20  # one storage each, though the allocator hands out one address
    assert program.live_byte().max() < 2 * 4_000


def test_host_read():
    program = trace(lambda: (torch.ones(3) * 2).sum().item())
    assert names(program)[-1] == "aten._local_scalar_dense"


def test_fake_host_read_says_what_to_do():
    x = torch.ones(3)
    with pytest.raises(DataError, match=r"needs the value of a fake tensor after .* ops"):
        trace(lambda: (x * 2).sum().item(), fake=True)
    with pytest.raises(DataError, match="depends on data"):
        trace(lambda: torch.nonzero(x), fake=True)


@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")
def test_sparse_layouts_keep_their_pattern():
    dense = torch.zeros(8, 8)
    dense[0:4, 4:8] = 1
    dense[4:8, 0:4] = 2
    x = torch.ones(8, 3)
    csr, bsr = dense.to_sparse_csr(), dense.to_sparse_bsr((4, 4))
    for matrix, layout, block, row, col in (
        (bsr, "bsr", (4, 4), [0, 1], [1, 0]),
        (csr, "csr", (1, 1), sorted(4 * list(range(8))), 4 * [4, 5, 6, 7] + 4 * [0, 1, 2, 3]),
    ):
        operand = trace(lambda matrix=matrix: matrix @ x).ops[-1].inputs[0]
        assert operand.layout == layout
        assert operand.block == block
        assert operand.n_stored == 32
        assert operand.byte == 128
        assert operand.index[0].tolist() == row
        assert operand.index[1].tolist() == col


def test_gpt_size_block_without_memory():
    with FakeTensorMode():
        block = torch.nn.TransformerEncoderLayer(
            12288, 96, 49152, batch_first=True, norm_first=True, dropout=0.0
        )
        x = torch.empty(1, 2048, 12288)
        optimizer = torch.optim.AdamW(block.parameters())
    program = trace(training_step(block, x, optimizer))
    # weights 12 d^2, biases and norms 13 d, two moments of each, and the input
    d = 12288
    assert program.resident_byte == 3 * 4 * (12 * d * d + 13 * d) + 4 * 2048 * d
