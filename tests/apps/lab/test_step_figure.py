"""The drawing of a step shows the time and memory that the report states."""

import numpy as np
import pytest
import torch

import hw
from apps.lab.step_figure import N_SLICE, draw_step, slices

# Sums of a few hundred doubles of order one.
ROUNDING = 1e-9


@pytest.fixture(scope="module")
def reports():
    model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.GELU(), torch.nn.Linear(128, 8))
    program = hw.trace(model, torch.randn(32, 64))
    return [hw.cost_program(program, name, phase="inference") for name in ("ipu_bow", "a100")]


def test_slices_hold_all_of_the_time_part_by_part(reports):
    report = reports[0]
    edges, shares = slices(report)
    assert edges[-1] == pytest.approx(report.time_s, rel=ROUNDING)
    assert np.allclose(sum(shares.values()), 1.0, atol=ROUNDING)
    for part, share in shares.items():
        spent = share.sum() * report.time_s / N_SLICE
        assert spent == pytest.approx(report.parts_s[part], rel=1e-6)


def test_the_machine_with_tiles_is_drawn_and_no_other(reports, tmp_path):
    (figure,) = draw_step(reports, tmp_path)
    assert figure.title == "One inference step on Graphcore Bow"
    text = (tmp_path / "step.svg").read_text()
    assert "who holds it at the fullest moment" in text
    assert len(text) < 100_000
    assert draw_step(reports[1:], tmp_path) == []
