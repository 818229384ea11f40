import pytest
import torch

from apps.lab.variant import VARIANTS
from apps.weather.cost import cost_table, exact_step, measured_steps, step_table, untrained_cost
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


def test_a_measured_step_adds_up_and_learned_radiation_takes_a_small_share():
    """Shares and ratios follow from the three times; the margins are those of a busy machine."""
    network = NetworkConfig(width=32)
    variants = [VARIANTS[name] for name in ("dense-fp32", "sparse-16x16-75-int8")]
    rows = measured_steps(network, variants, resolution="T10L8", n_round=2)
    exact, learned = rows[0], rows[2]
    assert [row["scheme"] for row in rows] == [
        "exact-128+32",
        "exact-41+16",
        "learned, dense-fp32",
        "learned-torch, dense-fp32",
        "learned, sparse-16x16-75-int8",
        "learned-torch, sparse-16x16-75-int8",
    ]
    # every ratio is to one measurement of the exact scheme
    for row in rows:
        assert row["radiation_ratio"] * row["radiation_s"] == pytest.approx(exact["radiation_s"])
    rest = learned["dynamics_s"] + learned["physics_s"]
    whole = rest + learned["radiation_s"]
    assert learned["radiation_share"] == pytest.approx(learned["radiation_s"] / whole)
    assert learned["step_ratio"] == pytest.approx((rest + exact["radiation_s"]) / whole)
    assert learned["step_ratio_3h"] < learned["step_ratio"] < learned["radiation_ratio"]
    assert exact["step_ratio"] == 1.0
    assert learned["radiation_share"] < 0.5 * exact["radiation_share"]
    assert "learned, dense-fp32" in step_table(rows)
