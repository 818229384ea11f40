"""Successive halving gives the better points the larger budget, and picks up where it stopped."""

import pytest

from apps.suite.study import run_study
from apps.suite.study.search import best_valid
from apps.suite.study.state import read_state
from core.errors import ConfigError

# The toy's validation error is 0.2 (1 - density) above its base, whatever the batch.
STUDY = """
break_even = "none"
[[sweep]]
application = "toy"
grid.variant.density = [0.25, 0.5, 0.75, 1.0]
halving = { budget = "train.batch", steps = [10, 20, 40], keep = 0.5 }
"""


def test_the_better_half_goes_on(toy, serial):
    folder, applications = toy
    (folder / "h.toml").write_text(STUDY)
    assert run_study(folder / "h.toml", folder / "h", applications=applications) == 0
    state = read_state(folder / "h")
    assert [(p.levers["variant.density"], p.levers["train.batch"]) for p in state.points] == [
        (0.25, 10), (0.5, 10), (0.75, 10), (1.0, 10),
        (1.0, 20), (0.75, 20),
        (1.0, 40),
    ]  # fmt: skip
    assert state.count("done") == 7
    runs = len((folder / "log").read_text().split())
    assert run_study(folder / "h.toml", folder / "h", applications=applications, resume=True) == 0
    assert len((folder / "log").read_text().split()) == runs
    assert read_state(folder / "h").points == state.points


def test_points_that_fail_do_not_go_on(toy, serial):
    folder, applications = toy
    text = STUDY.replace(
        "grid.variant.density = [0.25, 0.5, 0.75, 1.0]", "grid.train.rate = [13.0]"
    )
    (folder / "h.toml").write_text(text)
    assert run_study(folder / "h.toml", folder / "h", applications=applications) == 1
    assert len(read_state(folder / "h").points) == 1
    assert best_valid(folder / "nothing") == float("inf")


def test_a_budget_that_is_no_setting_is_refused(toy, serial):
    folder, applications = toy
    (folder / "h.toml").write_text(STUDY.replace("train.batch", "train.bach"))
    with pytest.raises(ConfigError, match=r"unknown key 'bach'.*did you mean 'batch'"):
        run_study(folder / "h.toml", folder / "h", applications=applications)
