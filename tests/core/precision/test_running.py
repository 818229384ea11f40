"""The running range of activations: by hand, clipping, bad entries, state."""

import copy

import pytest
import torch

from core.precision import FORMATS, RunningRange, fake_quantize


def test_range_follows_training_and_stays_in_evaluation():
    running = RunningRange(FORMATS["int8"])
    first = running(torch.tensor([1.0, -127.0]))
    assert first.tolist() == [1.0, -127.0]
    assert running.top == 127
    running(torch.tensor([227.0]))
    assert running.top == pytest.approx(127 + 0.01 * 100, rel=1e-6)
    assert running.scale == running.top / 127
    running.eval()
    top = running.top.clone()
    y = running(torch.tensor([1000.0, 3.2]))
    assert y.tolist() == pytest.approx([128.0, 3 * 128 / 127], rel=1e-6)
    assert running.top == top


def test_an_unknown_range_is_that_of_the_input():
    x = torch.randn(40)
    for name in ("int8", "fp8_e4m3", "int4", "binary"):
        running = RunningRange(FORMATS[name])
        assert running.scale is None
        assert torch.equal(running.eval()(x), fake_quantize(x, name))
        assert running.top == 0
        assert running(x[:0]).shape == (0,)


def test_clipped_entries_pass_no_gradient():
    running = RunningRange(FORMATS["int8"])
    running(torch.tensor([2.0]))
    running.eval()
    x = torch.tensor([-3.0, -1.0, 0.0, 1.9, 5.0], requires_grad=True)
    running(x).sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 1, 0]


@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize("name", ["int8", "fp8_e4m3"])
def test_bad_entries_stay_visible_and_spoil_nothing_else(name, is_training):
    running = RunningRange(FORMATS[name])
    running(torch.tensor([4.0]))
    running.train(is_training)
    y = running(torch.tensor([1.0, torch.nan, torch.inf, -2.0]))
    assert y.isnan().tolist() == [False, True, True, False]
    assert y[[0, 3]].tolist() == fake_quantize(torch.tensor([4.0, 1.0, -2.0]), name)[1:].tolist()
    assert running.top == 4


def test_state_and_copies_carry_the_range():
    running = RunningRange(FORMATS["int8"])
    running(torch.tensor([2.0]))
    other = RunningRange(FORMATS["int8"]).eval()
    other.load_state_dict(running.state_dict())
    x = torch.tensor([9.0, 0.7])
    assert torch.equal(other(x), running.eval()(x))
    assert torch.equal(copy.deepcopy(running)(x), running(x))
    assert other(x)[0] == 2
