import shutil
from pathlib import Path

import pytest
import torch

from apps.weather.atmosphere.constants import DAY_S
from apps.weather.learned import columns as columns_module
from apps.weather.learned.columns import (
    Climate,
    ColumnsConfig,
    cached_columns,
    columns_key,
    label_columns,
    sample_columns,
    split_index,
)
from apps.weather.physics import soundings
from apps.weather.physics.surface import aquaplanet_sst
from apps.weather.physics.thermodynamics import saturation_humidity
from core.errors import ConfigError

# A model small enough to run for days in a test.
TINY = ColumnsConfig(
    other_climates=(),
    resolution="T5L4",
    start="rest",
    skip_day=0,
    n_day=10,
    train_share=0.5,
    gap_day=1.0,
    n_column_per_call=16,
    run_longwave=8,
    run_shortwave=8,
    label_longwave=16,
    label_shortwave=8,
)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("columns")
    return cached_columns(TINY, seed=3, folder=folder), folder


def test_columns_have_labels_of_the_labelling_scheme(found):
    (columns, _), _ = found
    assert len(columns) == 10 * 8 * 16
    label = label_columns(columns.columns, TINY)
    for got, true in zip(columns.label, label, strict=True):
        # chunks of other sizes sum in another order
        assert torch.allclose(got, true, rtol=1e-4, atol=1e-3 * float(true.abs().max()))


def test_splits_are_blocks_of_time_with_gaps(found):
    (columns, _), _ = found
    index = split_index(columns.time_s, TINY)
    day = {name: columns.time_s[rows] / DAY_S for name, rows in index.items()}
    assert day["train"].max().item() <= 5.0
    assert day["valid"].min().item() > 6.0
    assert day["valid"].max().item() <= 7.5
    assert day["test"].min().item() > 8.5
    assert min(len(rows) for rows in index.values()) > 0


def test_only_training_columns_are_widened(found):
    (columns, _), _ = found
    index = split_index(columns.time_s, TINY)
    air = columns.columns
    for name in ("valid", "test"):
        assert torch.unique(air.co2_ppmv[index[name]]).numel() == 1
        assert bool((air.cos_zenith[index[name]] <= 0).any())
    train = index["train"]
    assert bool((air.cos_zenith[train] > 0).all())
    calm = torch.unique(air.sst[index["test"]])
    warmed = (air.sst[train, None] - calm).abs().amin(1) > 1e-3
    assert warmed.double().mean().item() == pytest.approx(0.4, abs=0.08)
    ratio = air.co2_ppmv[train] / air.co2_ppmv[index["test"][0]]
    changed = (ratio != 1.0).double().mean().item()
    # binomial(640, 1/4): four standard deviations
    assert changed == pytest.approx(0.25, abs=0.07)
    assert 0.5 <= ratio.min().item() < 0.7
    assert 3.0 < ratio.max().item() <= 4.0


def test_warmed_air_keeps_its_relative_humidity():
    columns = soundings(400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pick = torch.arange(0, 400, 2)
    warm = columns_module._warmed(columns, pick, torch.Generator().manual_seed(1))
    by = warm.sst - columns.sst
    assert by[1::2].abs().max().item() == 0.0
    assert by.min().item() > -4.0
    assert by.max().item() < 8.0
    # uniform: standard deviation of the mean of 200 draws is 12 / sqrt(12 * 200) = .25
    assert by[pick].mean().item() == pytest.approx(2.0, abs=1.0)
    ratio = (warm.temperature - columns.temperature)[pick] / by[pick, None]
    assert bool((ratio[:, -1] >= 1.0).all())
    assert bool((ratio >= 0.0).all())
    assert bool((ratio <= 2.0).all())
    calm_top = (ratio[:, 0] == 0.0).double().mean().item()
    # the tropopause .5 u reaches below sigma + .15 = .21 for u > .43: four standard deviations
    assert calm_top == pytest.approx(0.57, abs=0.14)

    def relative(air):
        return air.humidity / saturation_humidity(air.temperature, air.pressure)

    assert torch.allclose(relative(warm), relative(columns), rtol=1e-12)


def test_other_climates_add_training_columns(found):
    (columns, _), _ = found
    several = TINY.model_copy(
        update={
            "other_climates": (Climate(warming_k=4.0, co2_factor=2.0),),
            "other_skip_day": 1,
            "other_day": 1,
            "other_co2_share": 0.0,
            "other_warmth_share": 0.0,
        }
    )
    more = sample_columns(several, seed=3)
    assert len(more) == len(columns) + 8 * 16
    added = torch.arange(len(columns), len(more))
    index = split_index(more.time_s, several)
    assert set(added.tolist()) <= set(index["train"].tolist())
    test = more.take(index["test"]).columns
    assert torch.equal(
        test.temperature,
        columns.take(split_index(columns.time_s, TINY)["test"]).columns.temperature,
    )
    air = more.columns.take(added)
    assert torch.allclose(air.co2_ppmv, torch.tensor(2.0 * 348.0))
    nearest = (air.sst[:, None] - 4.0 - torch.unique(test.sst)).abs().amin(1)
    assert nearest.max().item() < 1e-3


def test_a_climate_has_its_own_sea_and_carbon_dioxide():
    climate = Climate(sst="control", warming_k=2.0, co2_factor=2.0)
    config = TINY.model_copy(
        update={"climate": climate, "n_day": 4, "gap_day": 0.0, "other_warmth_share": 0.0}
    )
    config = config.model_copy(update={"other_co2_share": 0.0})
    columns = sample_columns(config, seed=0).columns
    assert torch.allclose(columns.sst, aquaplanet_sst(columns.latitude, "control", 2.0))
    assert torch.equal(columns.co2_ppmv, torch.full_like(columns.sst, 696.0))


def test_file_is_made_once_and_a_seed_gives_the_same_columns(found, tmp_path, monkeypatch):
    (columns, sha256), folder = found
    again, same = cached_columns(TINY, seed=3, folder=tmp_path)
    assert same == sha256
    for a, b in zip(again.columns, columns.columns, strict=True):
        assert torch.equal(a, b)

    def never(*_args, **_kwargs):
        raise AssertionError("made again")

    monkeypatch.setattr("apps.weather.learned.columns.sample_columns", never)
    _, same = cached_columns(TINY, seed=3, folder=folder)
    assert same == sha256
    with pytest.raises(AssertionError, match="made again"):
        cached_columns(TINY, seed=4, folder=folder)


def test_a_damaged_file_is_made_again_and_said(found, tmp_path, capsys):
    (columns, sha256), folder = found
    (whole,) = folder.glob("columns-*.safetensors")
    data = whole.read_bytes()
    flipped = bytearray(data)
    flipped[-1000] ^= 1
    for damaged in (data[: len(data) // 2], b"", bytes(flipped)):
        (tmp_path / whole.name).write_bytes(damaged)
        again, same = cached_columns(TINY, seed=3, folder=tmp_path)
        assert same == sha256
        assert torch.equal(again.label.toa_lw, columns.label.toa_lw)
        assert "columns are made again, as" in capsys.readouterr().err
    cached_columns(TINY, seed=3, folder=tmp_path)
    assert capsys.readouterr().err == ""


def test_key_follows_all_that_decides_the_columns(tmp_path, monkeypatch):
    """Settings, seed, the state they start from, and every line of the physics."""
    state = tmp_path / "state.safetensors"
    state.write_bytes(b"one")
    started = TINY.model_copy(update={"start": str(state)})
    keys = [
        columns_key(TINY, 0),
        columns_key(TINY, 1),
        columns_key(TINY.model_copy(update={"start": "sample"}), 0),
        columns_key(started, 0),
    ]
    state.write_bytes(b"two")
    keys.append(columns_key(started, 0))
    package = Path(columns_module.__file__).parents[1]
    for changed in (
        "physics/radiation/longwave.py",
        "physics/clouds.py",
        "model.py",
        "atmosphere/dynamics.py",
    ):
        copy = tmp_path / changed.replace("/", "-")
        shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__"))
        monkeypatch.setattr(columns_module, "_WEATHER", copy)
        assert columns_key(TINY, 0) == keys[0]  # whatever the place
        with (copy / changed).open("a") as file:
            file.write("# changed\n")
        keys.append(columns_key(TINY, 0))
    assert len(set(keys)) == len(keys)


def test_too_few_days_are_refused(tmp_path):
    short = TINY.model_copy(update={"n_day": 5})
    with pytest.raises(ConfigError, match=r"n_day = 5 leaves no days to validate and test"):
        cached_columns(short, seed=0, folder=tmp_path)


def test_more_columns_than_a_call_has_are_refused(tmp_path):
    many = TINY.model_copy(update={"n_column_per_call": 500})
    asked = "n_column_per_call = 500 is more than the 128 columns of T5L4; draw fewer, or run a"
    with pytest.raises(ConfigError, match=asked):
        cached_columns(many, seed=0, folder=tmp_path)
