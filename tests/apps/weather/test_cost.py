import pytest
import torch

from apps.lab.variant import VARIANTS
from apps.weather.cost import cost_table, exact_step, untrained_cost
from apps.weather.learned.fitting import NetworkConfig
from apps.weather.physics import ExactRadiation, soundings
from core.errors import TesseraError

MACHINE = "ipu_gc200"


def test_exact_step_is_the_exact_scheme_with_half_the_planet_lit():
    columns = soundings(32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sun = torch.cat([torch.full((16,), 0.4), torch.zeros(16)]).double()
    columns = columns._replace(cos_zenith=sun)
    whole = ExactRadiation(16, 8, entries_per_chunk=1 << 40)
    expected, got = ExactRadiation(16, 8)(columns), exact_step(whole, columns)
    for a, b in zip(expected, got, strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-15)


def test_cost_covers_training_inference_and_exact_schemes():
    network = NetworkConfig(width=64)
    entries = untrained_cost(network, VARIANTS["dense-bf16"], machines=[MACHINE])
    kinds = [(e["variant"], e["phase"]) for e in entries]
    assert kinds == [
        ("dense-bf16", "train_step"),
        ("dense-bf16", "inference"),
        ("exact-128+32", "inference"),
        ("exact-41+16", "inference"),
    ]
    time = {kind: e["time_s"] for kind, e in zip(kinds, entries, strict=True)}
    # more points never cost less, and the network never costs more than either
    assert time[kinds[2]] > time[kinds[3]] > time[kinds[1]] > 0
    for entry in entries:
        assert sum(entry["energy_by"].values()) == pytest.approx(entry["energy_j"], rel=1e-9)
        assert entry["fits"]
    assert len(cost_table(entries).splitlines()) == 5


def test_unknown_machine_is_a_sentence():
    with pytest.raises(TesseraError, match="gc300"):
        untrained_cost(NetworkConfig(), VARIANTS["dense-fp32"], machines=["gc300"])
