import pytest
import torch

import hw
from apps.lab.variant import VARIANTS
from apps.weather.atmosphere.constants import DAY_S
from apps.weather.deadline import ensemble_hours, traced_step
from apps.weather.forecast.simulate import first_state
from apps.weather.learned.fitting import NetworkConfig
from core.errors import TesseraError

SMALL, VARIANT = NetworkConfig(width=32), VARIANTS["dense-bf16"]


def test_hours_are_those_of_the_steps_and_calls_of_all_members():
    rows = ensemble_hours(
        ["T5L8", "T10L8"], VARIANT, network=SMALL, machines=["ipu_gc200", "a100"],
        n_member=3, n_day=2,
    )  # fmt: skip
    assert [(row["resolution"], row["machine"]) for row in rows] == [
        ("T5L8", "ipu_gc200"),
        ("T5L8", "a100"),
        ("T10L8", "ipu_gc200"),
        ("T10L8", "a100"),
    ]
    model, _ = traced_step("T10L8")
    row = rows[3]
    n_step = 3 * 2 * round(DAY_S / model.dt)
    whole = n_step * row["step_s"] + 3 * 2 * 8 * row["radiation_s"]
    assert row["hour"] == pytest.approx(whole / 3600.0)
    assert row["hour_exact"] - row["hour"] == pytest.approx(
        3 * 2 * 8 * (row["exact_s"] - row["radiation_s"]) / 3600.0
    )
    for row in rows:
        assert row["fits"]
        assert row["exact_s"] > row["radiation_s"] > 0
        assert row["joule"] > 0
    # a finer grid never costs less, and its steps are shorter
    assert rows[2]["hour"] > rows[0]["hour"]
    assert rows[3]["step_s"] >= rows[1]["step_s"]


def test_the_traced_step_holds_dynamics_and_physics_but_no_radiation_call():
    model, program = traced_step("T5L8")
    names = [op.name for op in program.ops]
    assert names.count("aten.bmm") + names.count("aten.mm") >= 4  # transforms there and back
    assert "aten.exp" in names  # saturation
    state = model.run(first_state(model, "rest", 0), 2.0 * model.dt)
    with torch.no_grad():
        calling = hw.trace(model.step, state._replace(levels=state.levels._replace(n_step=0)))
    assert len(calling.ops) > len(names) + 100


def test_an_unknown_machine_is_a_sentence():
    with pytest.raises(TesseraError, match="gc300"):
        ensemble_hours(["T5L8"], VARIANT, network=SMALL, machines=["gc300"])
