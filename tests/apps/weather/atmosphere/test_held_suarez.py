import torch

from apps.weather.atmosphere.held_suarez import HeldSuarez
from apps.weather.physics.columns import Columns

DAY = 86400.0


def columns(temperature, latitude, sigma):
    """One column with one layer at `sigma` and a westerly of 10 m/s."""

    def one(x):
        return torch.tensor([x], dtype=torch.float64)

    layer = one(sigma * 1e5).unsqueeze(-1)
    return Columns(
        temperature=one(temperature).unsqueeze(-1),
        humidity=torch.zeros_like(layer),
        u=torch.full_like(layer, 10.0),
        v=torch.zeros_like(layer),
        pressure=layer,
        pressure_half=torch.tensor([[0.0, 1e5]], dtype=torch.float64),
        sst=one(0.0),
        cos_zenith=one(0.0),
        albedo=one(0.0),
        co2_ppmv=one(0.0),
        latitude=one(latitude),
    )


def test_rates_match_the_paper_at_marked_points():
    """Held and Suarez 1994, section 2: equator and pole at the surface, and the stratosphere."""
    scheme = HeldSuarez()
    assert scheme.radiate(columns(300.0, 0.0, 1.0)) is None
    equator = scheme.tendencies(columns(314.0, 0.0, 1.0), 1.0, None)
    assert torch.allclose(equator.temperature, torch.tensor(1.0 / (4 * DAY)).double())
    assert torch.allclose(equator.u, torch.tensor(-10.0 / DAY).double())
    pole = scheme.tendencies(columns(254.0, torch.pi / 2, 1.0), 1.0, None)
    assert torch.allclose(pole.temperature, torch.tensor(1.0 / (40 * DAY)).double())
    aloft = scheme.tendencies(columns(202.0, 0.5, 0.05), 1.0, None)
    assert torch.allclose(aloft.temperature, torch.tensor(-2.0 / (40 * DAY)).double())
    assert float(aloft.u) == 0.0
