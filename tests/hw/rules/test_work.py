"""Programs into work: the unknown is named, the free accepted, products agree with flop_counter."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from core.errors import UnknownOpError
from hw.program import Op
from hw.rules import join_optimizer, known_ops, registry, rule, tasks_of
from hw.trace import trace
from hw.work import Contraction, Pointwise


def n_mac(step) -> int:
    tasks = tasks_of(trace(step))
    return sum(i.n_mac for t in tasks for i in t.items if isinstance(i, Contraction))


def unknown_step():
    x = torch.ones(3, 3)
    return torch.linalg.det(x) + torch.trace(x) + torch.trace(x + 1)


def test_unknown_ops_are_all_named_with_counts():
    program = trace(unknown_step)
    with pytest.raises(
        UnknownOpError,
        match=r"no rule for 3 of \d+ ops: aten\.trace \(2 calls\), aten\._linalg_det \(1 call\); "
        r"add one in hw/rules/ or pass free=\{'aten\.trace', 'aten\._linalg_det'\}",
    ):
        tasks_of(program)


def test_free_ops_are_accepted_and_cost_nothing():
    tasks = tasks_of(trace(unknown_step), free={"aten.trace", "aten._linalg_det"})
    assert {t.op.name for t in tasks} == {"aten.ones", "aten.add"}


def test_a_rule_serves_the_in_place_spelling_and_may_exist_once():
    assert registry.find_rule("aten.add_") is registry.find_rule("aten.add")
    assert registry.find_rule("aten.no_such_op") is None
    with pytest.raises(AssertionError, match=r"two rules for aten\.add"):
        rule("aten.add")(lambda op: [])


def test_every_rule_names_an_op_of_this_torch():
    """A misspelt rule would never be used, and its op would be unknown."""
    missing = []
    for name in known_ops():
        namespace, _, op = name.partition(".")
        packet = getattr(torch.ops, namespace)
        if not (hasattr(packet, op) or hasattr(packet, f"{op}_")):
            missing.append(name)
    assert missing == []


@pytest.mark.parametrize("foreach", [False, True])
def test_optimizer_ops_are_joined_over_parameters(foreach):
    net = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Linear(5, 3))
    optimizer = torch.optim.AdamW(net.parameters(), foreach=foreach)

    def step():
        net(torch.ones(2, 4)).sum().backward()
        optimizer.step()

    tasks = [t for t in join_optimizer(tasks_of(trace(step))) if t.op.phase == "optimizer"]
    slow = [t for t in tasks if "addcdiv" in t.op.name]
    assert len(slow) == 1
    assert slow[0].items[0].n_element == 4 * 5 + 5 + 5 * 3 + 3
    assert slow[0].items[0].kind == "divide"


class Attention(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)

    def forward(self, x):
        return self.layer(x)


MODELS = {
    "perceptron": lambda: (
        torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.Linear(16, 4)),
        torch.ones(3, 8),
    ),
    "convolutions": lambda: (
        torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3, stride=2, padding=1),
            torch.nn.BatchNorm2d(8),
            torch.nn.ReLU(),
            torch.nn.MaxPool2d(2),
            torch.nn.ConvTranspose2d(8, 4, 2, stride=2),
            torch.nn.GroupNorm(2, 4),
        ),
        torch.ones(2, 3, 16, 16),
    ),
    "recurrent": lambda: (torch.nn.GRUCell(6, 7), torch.ones(5, 6)),
    "attention": lambda: (Attention(), torch.ones(2, 5, 32)),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("train", [False, True])
def test_multiply_adds_agree_with_flop_counter(name, train):
    model, x = MODELS[name]()

    def step():
        y = model(x)
        if train:
            y.square().sum().backward()

    with FlopCounterMode(display=False) as counter:
        step()
    model.zero_grad()
    assert 2 * n_mac(step) == counter.get_total_flops()
    assert n_mac(step) > 0


def test_message_passing_agrees_with_flop_counter():
    torch.manual_seed(0)
    n, e, d = 20, 46, 16
    edge_index = torch.randint(0, n, (2, e))
    graph = torch.arange(n) // 5
    embed, message, out = torch.nn.Embedding(9, d), torch.nn.Linear(2 * d, d), torch.nn.Linear(d, 1)
    norm, update = torch.nn.LayerNorm(d), torch.nn.GRUCell(d, d)
    modules = torch.nn.ModuleList([embed, message, out, norm, update])
    optimizer = torch.optim.AdamW(modules.parameters())

    def step():
        h = embed(torch.arange(n) % 9)
        m = F.silu(message(torch.cat([h[edge_index[0]], h[edge_index[1]]], 1)))
        h = norm(update(torch.zeros(n, d).index_add(0, edge_index[1], m), h))
        weight = torch.zeros(4).scatter_reduce(0, graph, out(h)[:, 0], "amax")
        score = (out(h)[:, 0] - weight[graph]).exp()
        score = score / torch.zeros(4).scatter_add(0, graph, score)[graph]
        pooled = torch.zeros(4, d).index_add(0, graph, h * score[:, None])
        loss = F.mse_loss(out(pooled)[:, 0], torch.ones(4))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(modules.parameters(), 1.0)
        optimizer.step()

    assert 2 * n_mac(step) == counted(step)


def counted(step) -> int:
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def test_complex_products_count_four_real_ones():
    a, b = torch.ones(2, 3, 4, dtype=torch.complex64), torch.ones(2, 4, 5, dtype=torch.complex64)
    assert n_mac(lambda: a @ b) == 4 * 2 * 3 * 4 * 5
    assert n_mac(lambda: a @ b.real.to(torch.complex64)) == 4 * 2 * 3 * 4 * 5


def test_radiation_like_and_spectral_steps_have_rules_for_all_ops():
    tau = torch.rand(6, 5, 3, generator=torch.Generator().manual_seed(1), requires_grad=True)
    field = torch.ones(2, 8, 16, requires_grad=True)

    def radiation():
        transmission = torch.exp(-1.66 * tau.cumsum(1))
        root = torch.sqrt(torch.clamp(1 - tau**2, min=1e-6))
        table = torch.linspace(0, 1, 10)
        k = table[torch.bucketize(tau[..., 0].contiguous(), table).clamp(max=9)]
        flux, up = torch.zeros(6, 3), []
        for i in range(5):
            flux = flux * transmission[:, i] + torch.where(root[:, i] > 0.5, root[:, i], tau[:, i])
            up.append(flux)
        total = (torch.stack(up, 1).sum(-1) * k).pow(4).mean() + torch.log1p(tau).amax()
        total.backward()

    def spectral():
        legendre = torch.ones(5, 8, 4)
        wave = torch.fft.rfft(field, dim=-1)[..., :5]
        coefficient = torch.einsum("bgm,mgn->bmn", wave, legendre.to(wave.dtype))
        back = torch.einsum("bmn,mgn->bgm", coefficient, legendre.to(wave.dtype))
        torch.fft.irfft(F.pad(back, (0, 4)), n=16).square().sum().backward()

    for step in (radiation, spectral):
        tasks = tasks_of(trace(step))
        assert sum(isinstance(i, Pointwise) for t in tasks for i in t.items) > 3


def test_op_out_is_the_first_result():
    program = trace(lambda: torch.ones(3, 2).max(dim=0))
    op = program.ops[-1]
    assert isinstance(op, Op)
    assert [t.format for t in op.outputs] == ["fp32", "int64"]
