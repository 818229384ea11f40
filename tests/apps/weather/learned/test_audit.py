import pytest
import torch

from apps.weather.learned.audit import AuditedRadiation, RangeDetector
from apps.weather.learned.emulator import Emulator, features, targets
from apps.weather.physics import Clouds, ExactRadiation, RadiationResult, soundings

# float32 sums of a batch and of a part of it: 2^-20 of heating of some K/day
ROUNDING_K_PER_DAY = 1e-5
EXACT = ExactRadiation(8, 8)


class Stand:
    """In the place of a network: the exact scheme and 1e-5 K/s more longwave heating."""

    def __call__(self, columns):
        found = EXACT(columns)
        return found._replace(heating_lw=found.heating_lw + 1e-5)


def columns(n, seed):
    return soundings(n, 8, generator=torch.Generator().manual_seed(seed))


def detector():
    emulator = Emulator(8, width=16, generator=torch.Generator().manual_seed(0))
    train = columns(2000, 0)
    x, y = features(train, Clouds()), targets(EXACT(train), train.cos_zenith)
    emulator.normalise(x, y, torch.ones(len(x)))
    return RangeDetector(emulator, train), train


def test_training_columns_are_inside_and_a_warmer_world_is_not():
    found, train = detector()
    assert int(found.outside(train).sum()) == 0
    fresh = columns(2000, 1)
    assert float(found.outside(fresh).float().mean()) < 0.01
    warm = fresh._replace(sst=fresh.sst + 8.0, temperature=fresh.temperature + 8.0)
    # the sea is warmer than any in the training where 8 K more exceed its warmest and the margin
    share = float(
        (warm.sst > train.sst.max() + 0.05 * (train.sst.max() - train.sst.min())).mean(
            dtype=torch.float32
        )
    )
    assert share > 0.1
    assert float(found.outside(warm).float().mean()) >= share
    assert bool(found.outside(fresh._replace(sst=fresh.sst * torch.nan)).all())


def test_a_feature_may_pass_its_range_by_the_margin_only():
    found, train = detector()
    one = train.take(train.sst.argmax().reshape(1))
    span = float(train.sst.max() - train.sst.min())
    for share, refused in ((0.04, False), (0.06, True)):
        assert bool(found.outside(one._replace(sst=one.sst + share * span))) is refused


def test_an_audit_measures_the_error_that_is_there():
    audited = AuditedRadiation(
        Stand(), EXACT, every=2, n_column=50, generator=torch.Generator().manual_seed(0)
    )
    some = columns(100, 2)
    for _ in range(5):
        audited(some)
    assert [row["call"] for row in audited.history] == [0.0, 2.0, 4.0]
    for row in audited.history:
        assert row["lw_bias_k_per_day"] == pytest.approx(0.864, rel=1e-4)
        assert row["sw_rmse_k_per_day"] < ROUNDING_K_PER_DAY
        assert row["share_outside"] == 0.0


def test_refused_columns_get_the_exact_scheme_and_the_rest_do_not():
    found, _ = detector()
    some = columns(6, 3)
    some.sst[2] += 80.0
    some.temperature[2] += 80.0
    audited = AuditedRadiation(
        Stand(), EXACT, detector=found, every=1, generator=torch.Generator().manual_seed(0)
    )
    got, exact = audited(some), EXACT(some)
    assert isinstance(got, RadiationResult)
    off = (got.heating_lw - exact.heating_lw).abs().amax(1) > 5e-6
    assert off.tolist() == [True, True, False, True, True, True]
    audited(some)
    assert audited.history[1]["share_outside"] == pytest.approx(1 / 6)
