"""Optimizers against their formulas in float64, against torch, and with state in few bits."""

import copy

import pytest
import torch
from torch import nn

from core.errors import ConfigError, FormatError
from core.optim import STATE_FORMATS, Adam, Lamb, Sgd
from core.optim.stateful import _mix
from core.precision import FORMATS
from core.sparse import LayerSpec, PatternUpdater, TopologyRule, build_linear

MAKE = {
    "sgd": lambda p, **k: Sgd(p, 1e-2, weight_decay=1e-2, **k),
    "adam": lambda p, **k: Adam(p, 1e-2, weight_decay=1e-2, **k),
    "lamb": lambda p, **k: Lamb(p, 1e-2, weight_decay=1e-2, **k),
}


def gradients(n, shapes, dtype=torch.float64):
    g = torch.Generator().manual_seed(1)
    return [[torch.randn(s, generator=g).to(dtype) for s in shapes] for _ in range(n)]


def run(optimizer, parameters, grads):
    for step in grads:
        for p, g in zip(parameters, step, strict=True):
            p.grad = g.to(p.dtype).clone()
        optimizer.step()


def start(shapes, dtype):
    g = torch.Generator().manual_seed(2)
    return [nn.Parameter(torch.randn(s, generator=g).to(dtype)) for s in shapes]


def lamb_reference(w, grads, lr, beta1, beta2, eps, decay):
    """Algorithm 2 of You et al. 2020, entry by entry in Python floats."""
    m, v = [0.0] * len(w), [0.0] * len(w)
    for t, g in enumerate(grads, start=1):
        m = [beta1 * a + (1 - beta1) * b for a, b in zip(m, g, strict=True)]
        v = [beta2 * a + (1 - beta2) * b * b for a, b in zip(v, g, strict=True)]
        u = [
            a / (1 - beta1**t) / ((b / (1 - beta2**t)) ** 0.5 + eps) + decay * x
            for a, b, x in zip(m, v, w, strict=True)
        ]
        size, length = (sum(a * a for a in vector) ** 0.5 for vector in (w, u))
        ratio = size / length if size and length else 1.0
        w = [x - lr * ratio * a for x, a in zip(w, u, strict=True)]
    return w


@pytest.mark.parametrize("first", [[0.3, -2.0, 5.0, 1e-3], [0.0] * 4])
def test_lamb_is_algorithm_2(first):
    p = nn.Parameter(torch.tensor(first, dtype=torch.float64))
    grads = gradients(20, [(4,)])
    optimizer = Lamb([p], 3e-2, beta1=0.8, beta2=0.95, eps=1e-6, weight_decay=0.1)
    run(optimizer, [p], grads)
    want = lamb_reference(first, [g[0].tolist() for g in grads], 3e-2, 0.8, 0.95, 1e-6, 0.1)
    # Twenty steps of some ten operations each, well conditioned: 1000 units of 2^-53.
    assert torch.allclose(p.detach(), torch.tensor(want, dtype=torch.float64), rtol=1e-13, atol=0)


def test_lamb_without_adaptation_is_adam_with_decay_inside_the_step():
    a, b = start([(5, 3)], torch.float64), start([(5, 3)], torch.float64)
    grads = gradients(10, [(5, 3)])
    run(Lamb([{"params": a, "adapt": False}], 1e-2, weight_decay=0.1), a, grads)
    run(Adam(b, 1e-2, eps=1e-6, weight_decay=0.1), b, grads)
    # Adam decays before its step, LAMB beside it: w(1 - lr wd) - lr r either way.
    assert torch.allclose(a[0], b[0], rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_the_rules_of_torch(name, decay, dtype):
    shapes = [(7, 5), (3,), (2, 4, 4)]
    ours, theirs = start(shapes, dtype), start(shapes, dtype)
    if name == "sgd":
        a = Sgd(ours, 0.1, weight_decay=decay)
        b = torch.optim.SGD(theirs, 0.1, momentum=0.9, weight_decay=decay)
    else:
        a = Adam(ours, 0.1, weight_decay=decay)
        b = torch.optim.AdamW(theirs, 0.1, weight_decay=decay)
    grads = gradients(30, shapes)
    run(a, ours, grads)
    run(b, theirs, grads)
    # Thirty steps of ten roundings each, relative to weights and steps of order one.
    tolerance = 300 * torch.finfo(dtype).eps
    for p, q in zip(ours, theirs, strict=True):
        assert torch.allclose(p, q, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("state_format", STATE_FORMATS)
@pytest.mark.parametrize("name", MAKE)
def test_state_rests_in_its_format(name, state_format):
    p = start([(6, 4)], torch.float32)
    optimizer = MAKE[name](p, state_format=state_format)
    run(optimizer, p, gradients(2, [(6, 4)]))
    format = FORMATS[state_format]
    state = optimizer.state[p[0]]
    for moment in optimizer.moments:
        assert state[moment].dtype == format.dtype
        assert ((moment + "_scale") in state) == format.needs_scale
    assert p[0].dtype == torch.float32


@pytest.mark.parametrize("state_format", ["bf16", "fp8_e4m3"])
def test_tiny_changes_of_a_second_moment_arrive_in_the_mean(state_format):
    """Under a constant gradient v = 1 - beta2^t; rounding to nearest would stop far below."""
    p = [nn.Parameter(torch.zeros(1 << 14))]
    optimizer = Adam(p, 0.0, beta2=0.99, state_format=state_format)
    # One entry of twice the gradient, so that the scale is not what carries the change.
    grad = torch.ones(1 << 14)
    grad[0] = 2
    n_step = 200
    run(optimizer, p, [[grad]] * n_step)
    held = optimizer.state[p[0]]["square"].float()
    if state_format == "fp8_e4m3":
        held = held * optimizer.state[p[0]]["square_scale"]
        held = held.square()
    want = 1 - 0.99**n_step
    # Each rounding errs by at most a spacing (of v, or twice that of its root): 2^-8 or 2^-3 in
    # [0.5, 1). A root r with spacing s <= r/8 that is due to move by d jumps with probability d/s,
    # so its square gains d s a step; d = (1 - beta2) r/2 |1/v - 1| and damping make that
    # r^2/16 |1/v - 1|: below 0.01 here, where 1 - v = 0.13.
    spacing = 2.0**-8 if state_format == "bf16" else 2.0**-3
    spread = spacing / 2 / (1 - 0.99**2) ** 0.5
    bias = 0.0 if state_format == "bf16" else 0.01
    assert -5 * spread / 128 <= held[1:].mean() - want <= 5 * spread / 128 + bias


def test_a_second_moment_below_the_range_of_its_format_does_not_vanish():
    p = [nn.Parameter(torch.zeros(1000))]
    grad = torch.full((1000,), 1e-6)
    grad[0] = 1
    run(Adam(p, 1e-2, state_format="fp8_e4m3"), p, [[grad]] * 20)
    # A step is at most lr (1 - beta1) / sqrt(1 - beta2) = 3.2 lr (Kingma & Ba 2015, section 2.1).
    assert p[0].abs().max() <= 20 * 3.2 * 1e-2


def test_weights_in_bf16_move_by_less_than_their_spacing():
    """1000 steps of 2^-12 from 1: bf16 has a spacing of 2^-7, so to nearest none would move."""
    p = [nn.Parameter(torch.ones(4096, dtype=torch.bfloat16))]
    run(Sgd(p, 2.0**-12, momentum=0.0), p, [[-torch.ones(4096)]] * 1000)
    assert p[0].dtype == torch.bfloat16
    # Standard error of the mean: half a spacing for each of 1000 draws, over 4096 entries.
    allowed = 5 * 2.0**-8 * 1000**0.5 / 64
    assert abs(p[0].float().mean() - (1 + 1000 * 2.0**-12)) <= allowed


def loss_after(optimizer_of, steps=200):
    g = torch.Generator().manual_seed(3)
    truth = torch.randn(24, 16, generator=g) / 4
    layer = build_linear(16, 24, LayerSpec(1, 4), generator=g)
    optimizer = optimizer_of(layer.parameters())
    for _ in range(steps):
        x = torch.randn(64, 16, generator=g)
        optimizer.zero_grad()
        loss = (layer(x) - x @ truth.t() - torch.randn(64, 24, generator=g)).square().mean()
        loss.backward()
        optimizer.step()
    return (layer.weight.detach() - truth).square().mean().item()


@pytest.mark.parametrize("state_format", ["bf16", "fp8_e4m3", "fp8_e5m2"])
@pytest.mark.parametrize("make", [lambda p, **k: Sgd(p, 0.2, **k), Adam], ids=["sgd", "adam"])
def test_training_with_lean_state_ends_where_training_with_full_state_does(make, state_format):
    # lr of Adam: the default is too small for 200 steps
    extra = {"lr": 2e-2} if make is Adam else {}
    full = loss_after(lambda p: make(p, **extra))
    lean = loss_after(lambda p: make(p, state_format=state_format, **extra))
    none = loss_after(lambda p: Sgd(p, 0.0))
    assert full < none / 4
    assert lean < 1.5 * full


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("state_format", STATE_FORMATS)
@pytest.mark.parametrize("name", MAKE)
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(name, state_format, dtype):
    shapes = [(6, 4), (5,)]
    grads = gradients(7, shapes)
    whole = start(shapes, dtype)
    run(MAKE[name](whole, state_format=state_format, seed=5), whole, grads)
    part = start(shapes, dtype)
    first = MAKE[name](part, state_format=state_format, seed=5)
    run(first, part, grads[:3])
    saved = copy.deepcopy(first.state_dict())
    second = MAKE[name](part, state_format=state_format, seed=5)
    second.load_state_dict(saved)
    run(second, part, grads[3:])
    for a, b in zip(whole, part, strict=True):
        assert torch.equal(a, b)
    if dtype == torch.bfloat16 or state_format in ("bf16", "fp8_e4m3", "fp8_e5m2"):
        other = start(shapes, dtype)
        run(MAKE[name](other, state_format=state_format, seed=6), other, grads)
        assert not torch.equal(other[0], whole[0])


@pytest.mark.parametrize("state_format", ["bf16", "fp8_e4m3"])
def test_lean_state_follows_blocks_when_a_pattern_changes(state_format):
    layer = build_linear(32, 32, LayerSpec(0.25, 4), generator=torch.Generator().manual_seed(1))
    optimizer = Adam(layer.parameters(), state_format=state_format)
    rule = TopologyRule("set", first=1, last=1, every=1)
    g = torch.Generator().manual_seed(2)
    updater = PatternUpdater(layer, optimizer, rule, generator=g)
    layer(torch.randn(3, 32, generator=g)).square().sum().backward()
    optimizer.step()

    def held():
        square = optimizer.state[layer.values]["square"].float()
        places = zip(layer.row_index.tolist(), layer.col_index.tolist(), strict=True)
        return {at: square[k] for k, at in enumerate(places)}

    before = held()
    assert updater.step()
    after = held()
    assert after.keys() != before.keys()
    for at, square in after.items():
        assert torch.equal(square, before[at]) if at in before else not square.any()
    layer(torch.randn(3, 32, generator=g)).square().sum().backward()
    optimizer.step()
    assert layer.values.isfinite().all()


def test_parameters_without_gradient_and_closures():
    p, q = start([(2,), (2,)], torch.float32)
    before = q.detach().clone()
    optimizer = Adam([p, q])

    def closure():
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) > 0
    assert torch.equal(q, before)
    assert q not in optimizer.state


def test_clear_errors():
    p = start([(2,)], torch.float32)
    with pytest.raises(ConfigError, match=r"Adam: lr must be 0 or more, got -1"):
        Adam(p, -1)
    with pytest.raises(ConfigError, match=r"Lamb: beta2 must lie in \[0, 1\), got 1"):
        Lamb(p, beta2=1)
    with pytest.raises(ConfigError, match=r"Sgd: momentum must lie in \[0, 1\), got 1.5"):
        Sgd(p, 0.1, momentum=1.5)
    with pytest.raises(FormatError, match=r"Sgd: state_format must be one of fp32, .* got 'int8'"):
        Sgd(p, 0.1, state_format="int8")


@pytest.mark.parametrize(
    ("part", "published"), [(0, 0xE220A8397B1DCDAF), (1234567, 6457827717110365317)]
)
def test_the_hash_is_splitmix64(part, published):
    # first outputs of the reference implementation (prng.di.unimi.it/splitmix64.c) for two seeds
    assert _mix(part) == published >> 1
    assert _mix(part, 1) != _mix(1, part)


def test_a_loaded_state_is_a_copy():
    weight = torch.nn.Parameter(torch.ones(4))
    optimizer = Adam([weight], lr=0.1)
    weight.grad = torch.ones(4)
    optimizer.step()
    saved = optimizer.state_dict()
    before = {k: v.clone() for k, v in saved["state"][0].items() if isinstance(v, torch.Tensor)}
    other = Adam([weight], lr=0.1)
    other.load_state_dict(saved)
    other.step()
    assert before
    for name, value in before.items():
        assert torch.equal(saved["state"][0][name], value), name
