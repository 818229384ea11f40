import numpy as np
import pytest
import torch

from apps.weather.atmosphere.levels import SigmaLevels
from apps.weather.forecast.regrid import level_weights, regrid
from apps.weather.model import Model

# float64 sums of some products
ROUNDING = 1e-12


def test_a_line_in_ln_sigma_is_met_and_the_outermost_value_holds_beyond():
    ours, theirs = SigmaLevels.equidistant(8), SigmaLevels.equidistant(20)
    line = 250.0 + 30.0 * np.log(ours.full)
    expected = 250.0 + 30.0 * np.log(theirs.full)
    inside = (theirs.full >= ours.full[0]) & (theirs.full <= ours.full[-1])
    for extrapolate in (False, True):
        weight = level_weights(ours, theirs, extrapolate=extrapolate)
        np.testing.assert_allclose(weight.sum(0), 1.0, rtol=ROUNDING)
        found = line @ weight
        np.testing.assert_allclose(found[inside], expected[inside], rtol=ROUNDING)
        np.testing.assert_allclose(found[theirs.full < ours.full[0]], line[0], rtol=ROUNDING)
        low = theirs.full > ours.full[-1]
        below = expected[low] if extrapolate else line[-1]
        np.testing.assert_allclose(found[low], below, rtol=ROUNDING)


@pytest.mark.parametrize("resolution", ["T10L8", "T5L4", "T21L10"])
def test_winds_and_pressure_stay_what_both_grids_resolve(resolution):
    ours, theirs = (Model(name, dtype=torch.float64) for name in ("T10L8", resolution))
    state = ours.initial(seed=1)._replace(time_s=7200.0)
    state.levels.current.log_pressure[0, 1, 2] = 0.01
    new = regrid(state, ours, theirs)
    assert new.time_s == 7200.0
    assert new.levels.n_step == 0
    keep = 1 + min(ours.grid.truncation, theirs.grid.truncation)
    a, b = state.levels.current, new.levels.current
    assert torch.equal(a.log_pressure[:, :keep, :keep], b.log_pressure[:, :keep, :keep])
    # the wind of `initial` is the same at every level, so that interpolation must keep it
    one = a.vorticity[:, :keep, :keep, :1]
    torch.testing.assert_close(
        b.vorticity[:, :keep, :keep], one.expand(-1, -1, -1, theirs.levels.n_level),
        rtol=ROUNDING, atol=0.0,
    )  # fmt: skip
    assert float(b.vorticity[:, keep:].abs().sum()) == 0.0
