"""The layout heuristic beside an exact search, on small programs."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import hw
from hw.machine import load_machine
from hw.rules import tasks_of

#: The heuristic tries a quarter of the spreads that the exact search does.
WITHIN = 0.05


def small_programs():
    two = nn.Sequential(nn.Linear(128, 256), nn.ReLU(), nn.Linear(256, 64))
    encoder = nn.TransformerEncoderLayer(64, 4, 128, 0.0, batch_first=True)
    x, tokens = torch.randn(96, 128, requires_grad=True), torch.randn(4, 16, 64, requires_grad=True)
    return {
        "two layers": lambda: F.relu(two(x * 2)).sum().backward(),
        "encoder": lambda: encoder(tokens * 2).sum().backward(),
    }


@pytest.mark.parametrize("name", list(small_programs()))
def test_the_heuristic_is_near_the_best(name):
    pytest.importorskip("ortools", reason="needs the extra oracle")
    from hw.oracle import judge

    program = hw.trace(small_programs()[name])
    verdict = judge(program, tasks_of(program), load_machine("ipu_bow"))
    assert verdict.is_proved
    assert verdict.exact_s > 0
    # the solver counts whole nanoseconds
    assert -1e-3 <= verdict.excess <= WITHIN


def test_without_the_extra_its_name_is_given():
    try:
        import ortools  # noqa: F401
    except ImportError:
        from core.errors import ConfigError
        from hw.oracle import judge

        program = hw.trace(torch.add, torch.ones(2), 1)
        with pytest.raises(
            ConfigError, match=r"install the extra: pip install 'tessera\[oracle\]'"
        ):
            judge(program, tasks_of(program), load_machine("ipu_bow"))
    else:
        pytest.skip("OR-tools is installed")
