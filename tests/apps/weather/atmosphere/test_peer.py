"""Against dinosaur 1.5.1, an independent spectral core, without having it.

The fixture holds its answers alone: the state is made anew by the benchmark that wrote it,
``tessera bench weather --part dynamics --truncation 10 --n-level 4 --fixture FILE``.
"""

from pathlib import Path

import pytest
import torch

from apps.lab.checkpoint import load_checkpoint
from benchmarks.weather_dynamics import (
    FIELDS,
    our_tendencies,
    random_state,
    relative,
    trapezoidal_equations,
)

FIXTURE = Path(__file__).parent / "dinosaur_t10l4.safetensors"
# Dinosaur has ln(sigma) of the levels in float32 where heat and heights come in: 2^-24 of terms
# that are some times their sum. Vorticity and mass do not see them.
BOUND = {
    "vorticity": 1e-10,
    "divergence": 1e-6,
    "temperature": 1e-6,
    "humidity": 1e-9,
    "log_pressure": 1e-9,
}


@pytest.mark.parametrize("case", ["dry", "moist"])
def test_rates_are_those_of_an_independent_code(case):
    kept, meta = load_checkpoint(FIXTURE)
    equations = trapezoidal_equations(meta["truncation"], meta["n_level"])
    m, n = torch.triu_indices(meta["truncation"] + 1, meta["truncation"] + 1)
    ours = our_tendencies(
        equations, random_state(equations, moist=case == "moist", seed=meta["seed"])
    )
    seen = [name for name in FIELDS if f"{case}.{name}" in kept]
    assert len(seen) == (5 if case == "moist" else 4)
    for name in seen:
        rate = equations.transform.analyse(torch.from_numpy(ours[name]))[:, m, n]
        error = relative(rate.numpy(), kept[f"{case}.{name}"].numpy())
        assert error < BOUND[name], name


def test_the_comparison_sees_a_small_slip():
    """A planet turning faster by one part in 10^8 misses the bound on vorticity."""
    kept, meta = load_checkpoint(FIXTURE)
    equations = trapezoidal_equations(meta["truncation"], meta["n_level"])
    equations.coriolis = equations.coriolis * (1.0 + 1e-8)
    m, n = torch.triu_indices(meta["truncation"] + 1, meta["truncation"] + 1)
    ours = our_tendencies(equations, random_state(equations, moist=False, seed=meta["seed"]))
    rate = equations.transform.analyse(torch.from_numpy(ours["vorticity"]))[:, m, n]
    assert relative(rate.numpy(), kept["dry.vorticity"].numpy()) > BOUND["vorticity"]
