"""A forecast error's gradient is that of finite differences, and fine-tuning lowers the error."""

import pytest
import torch

from apps.weather.forecast.simulate import ModelConfig
from apps.weather.learned.emulator import Emulator, features, targets
from apps.weather.learned.fitting import training_loss
from apps.weather.learned.online import (
    LearningRadiation,
    OnlineLoss,
    forecast_error,
    learner,
    rollout,
    windows,
)
from apps.weather.physics import Clouds, Physics
from core import LayerSpec

# central differences of step 1e-4 of the weights, curvature in float64
DIFFERENCE = 1e-5
# what goes round through the network's inputs is left out: over three hours of six, of the slope
LEFT_OUT = 0.02
# products may be summed in another order where gradients are asked for; float64
ROUNDING = 1e-12


@pytest.fixture(scope="module")
def world():
    """Give a float64 model, the state from which windows begin, and a network in its range."""
    config = ModelConfig(resolution="T5L4", n_longwave=16, n_shortwave=8, precision="fp64")
    model = config.build()
    state = model.run(model.initial(seed=0), 5 * 86400.0)
    columns = model.columns(model.equations.to_grid(state.levels.previous), state.time_s)
    columns = columns._replace(humidity=columns.humidity.clamp(min=0.0))
    emulator = Emulator(4, width=16, generator=torch.Generator().manual_seed(0)).double()
    x, label = features(columns, Clouds()), model.physics.radiate(columns)
    y = targets(label, columns.cos_zenith)
    emulator.normalise(x, y, columns.cos_zenith.clamp(min=0).square())
    batch = emulator.scaled(x), (y - emulator.output_mean) / emulator.output_scale
    return config, state, emulator, (*batch, torch.ones_like(y))


def some_windows(config, state, n_hour, n_window=1):
    model = config.build()
    n_step = model.n_step(3600.0 * n_hour)
    return n_step, windows(
        model, state, n_window=n_window, spacing_step=model.n_step(10800.0), n_step=n_step
    )


def slopes(world, n_hour):
    """Give the slope of the error along a direction, by autograd and by differences."""
    config, state, emulator, _ = world
    n_step, (window,) = some_windows(config, state, n_hour)
    net = learner(emulator)
    model = config.build()
    model.physics = Physics(LearningRadiation(net))
    forecast_error(model, window, n_step).backward()
    draw = torch.Generator().manual_seed(1)
    weights = list(net.parameters())
    along = [torch.randn(w.shape, generator=draw, dtype=w.dtype) for w in weights]
    by_gradient = sum(float((w.grad * a).sum()) for w, a in zip(weights, along, strict=True))
    found = []
    with torch.no_grad():
        for sign in (1.0, -2.0):
            for w, a in zip(weights, along, strict=True):
                w += sign * 1e-4 * a
            found.append(float(forecast_error(model, window, n_step)))
    return by_gradient, (found[0] - found[1]) / 2e-4


def test_the_gradient_over_one_radiation_call_is_that_of_finite_differences(world):
    by_gradient, by_difference = slopes(world, 3)
    assert abs(by_difference) > 1e-3
    assert by_gradient == pytest.approx(by_difference, rel=DIFFERENCE)


def test_over_two_calls_the_gradient_lacks_little(world):
    by_gradient, by_difference = slopes(world, 6)
    assert by_gradient == pytest.approx(by_difference, rel=LEFT_OUT)


def test_the_exact_schemes_own_run_is_the_truth_of_every_window(world):
    config, state, _, _ = world
    n_step, found = some_windows(config, state, 6, n_window=3)
    assert [w.start.time_s - state.time_s for w in found] == [0.0, 10800.0, 21600.0]
    model = config.build()
    with torch.no_grad():
        for window in found:
            assert float(forecast_error(model, window, n_step)) == 0.0


def test_steps_done_again_on_the_way_back_give_the_same_forecast(world):
    config, state, emulator, _ = world
    model = config.build()
    model.physics = Physics(LearningRadiation(emulator))
    kept = rollout(model, state._replace(radiation=None), 7)
    with torch.no_grad():
        free = model.run(state._replace(radiation=None), 7 * model.dt)
    assert kept.time_s == free.time_s
    for mine, true in zip(kept.levels.current, free.levels.current, strict=True):
        assert float((mine.detach() - true).abs().max()) <= ROUNDING * float(true.abs().max())


def test_the_loss_is_one_and_the_anchor_before_and_falls(world):
    config, state, emulator, batch = world
    n_step, found = some_windows(config, state, 6, n_window=3)
    net = learner(emulator)
    loss = OnlineLoss(config.build(), net, n_step=n_step, held=found[2:], columns=batch, anchor=0.5)
    before = loss.validate(net)
    assert before == pytest.approx(
        {"valid_loss": 1.5, "valid_forecast": 1.0, "valid_columns": 1.0}, rel=1e-12
    )
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(12):
        optimizer.zero_grad()
        loss(net, (found[:2], batch)).backward()
        optimizer.step()
    after = loss.validate(net)
    assert after["valid_forecast"] < 0.5
    assert after["valid_columns"] < 1.0
    # the parts are what they say
    assert after["valid_columns"] == pytest.approx(
        float(training_loss(net, batch).detach()) / loss.unit_columns
    )


def test_narrow_layers_stay_as_they_were_rounded():
    spec = LayerSpec(density=0.5, weight_format="int8", block=16)
    emulator = Emulator(4, width=32, spec=spec, generator=torch.Generator().manual_seed(0))
    net = learner(emulator)
    assert net.training
    assert not any(w.requires_grad for w in net.net[2].parameters())
    assert all(w.requires_grad for i in (0, 4) for w in net.net[i].parameters())
    assert all(w.requires_grad for w in emulator.parameters())
