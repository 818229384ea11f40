import pytest
import torch

from apps.lab.checkpoint import save_checkpoint
from apps.weather.forecast.restart import load_state, save_state
from apps.weather.model import Model
from apps.weather.physics import ExactRadiation, Physics
from core.errors import DataError


def small(resolution="T5L4", **kwargs):
    return Model(resolution, physics=Physics(ExactRadiation(8, 8)), **kwargs)


@pytest.mark.parametrize("n_before", [3, 4])
def test_restart_goes_on_bit_for_bit(tmp_path, n_before):
    """At a radiation call (3 steps of an hour) and between two."""
    model = small()
    middle = model.run(model.initial(), n_before * model.dt)
    straight = model.run(middle, 5 * model.dt)
    file = save_state(tmp_path / "state.safetensors", model, middle)
    again = small()
    resumed = again.run(load_state(file, again), 5 * again.dt)
    assert resumed.time_s == straight.time_s
    for one, other in zip(resumed.levels[:2], straight.levels[:2], strict=True):
        for a, b in zip(one, other, strict=True):
            assert torch.equal(a, b)
    assert float(straight.levels.current.humidity.abs().max()) > 0


def test_state_of_another_grid_or_step_is_refused_naming_both(tmp_path):
    model = small()
    file = save_state(tmp_path / "state.safetensors", model, model.initial())
    with pytest.raises(DataError, match="has resolution 'T5L4', the model has 'T10L4'"):
        load_state(file, small("T10L4"))
    with pytest.raises(DataError, match=r"has dt 3600\.0, the model has 1800\.0"):
        load_state(file, small(dt=1800.0))


def test_other_checkpoints_and_damaged_files_are_refused(tmp_path):
    other = save_checkpoint(tmp_path / "x.safetensors", {"w": torch.ones(2)}, {"schema": "net"})
    with pytest.raises(DataError, match=r"is no weather state \(schema 'net'"):
        load_state(other, small())
    model = small()
    file = save_state(tmp_path / "state.safetensors", model, model.initial())
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"state\.safetensors is cut short"):
        load_state(file, model)
