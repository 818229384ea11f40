"""The reader of pairs on files made here, and splits that keep what they promise."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from apps.chemistry.affinity import SPLITS, PairTable, draw_splits, pairs, read_pairs
from core.errors import ConfigError, DataError

N_DRUG, N_TARGET = 15, 20


@pytest.fixture
def table() -> PairTable:
    rng = np.random.default_rng(0)
    value = rng.uniform(5, 9, size=(N_DRUG, N_TARGET))
    value[rng.random(value.shape) < 0.3] = np.nan
    fold = np.where(np.isfinite(value), rng.integers(6, size=value.shape), -1).astype(np.int8)
    return PairTable(
        name="made",
        source="file",
        sha256="",
        unit="pKd",
        smiles=["C" * (i + 1) for i in range(N_DRUG)],
        target=[f"t{i}" for i in range(N_TARGET)],
        sequence=["ACDEFGHIKL"[i // 2 :] for i in range(N_TARGET)],  # two entries each
        value=value,
        fold=fold,
        floor=5.0,
        hit=7.0,
    )


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Two drugs by three proteins in the format of the DeepDTA files."""
    (tmp_path / "affinity").write_text("10 10000 100\n1000 1 nan\n")
    content = {
        "ligands_iso": {"a": "CCO", "b": "CCN"},
        "proteins": {"p": "ACD", "q": "ACDE", "r": "ACD"},
        "train_fold_setting1": [[0], [1], [2], [], []],
        "test_fold_setting1": [3, 4],
    }
    content["train_fold_setting1"][3:] = [[0], [1]]
    for name, value in content.items():
        (tmp_path / name).write_text(json.dumps(value))

    def fetch(name: str) -> SimpleNamespace:
        return SimpleNamespace(
            path=tmp_path / name.partition("/")[2], source="mirror", sha256="0" * 64
        )

    monkeypatch.setattr(pairs, "fetch", fetch)
    return tmp_path


def test_reads_values_names_and_folds(files):
    table = read_pairs("davis")
    assert table.value[0] == pytest.approx([8.0, 5.0, 7.0])  # 9 - log10 of nM
    assert np.isnan(table.value[1, 2])
    assert (table.smiles, table.target) == (["CCO", "CCN"], ["p", "q", "r"])
    assert np.array_equal(table.fold == 5, [[False] * 3, [True, True, False]])
    assert read_pairs("kiba").value[0, 2] == 100.0  # scores stay as they are


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("affinity", "1 2\n", r"the matrix is \[1, 2\], but there are 2 drugs and 3 proteins"),
        ("affinity", "1 x 3\n", "affinity cannot be read"),
        ("proteins", '{"p": "AC', "proteins cannot be read"),
        ("proteins", "[1]", "expected names with their texts"),
        ("test_fold_setting1", "[99]", "fold 5 names pair 99 of 5"),
    ],
)
def test_damaged_files_are_named(files, name, text, message):
    (files / name).write_text(text)
    with pytest.raises(DataError, match=message):
        read_pairs("davis")


def test_unknown_set():
    with pytest.raises(DataError, match="no set is named 'bindingdb'; there are davis, kiba"):
        read_pairs("bindingdb")


@pytest.mark.parametrize("kind", SPLITS)
def test_parts_are_disjoint_and_inner_parts_stay_inside(table, kind):
    splits = draw_splits(table, kind)
    assert len(splits) == (1 if kind == "warm" else 5)
    for inner, outer in splits:
        assert not (outer.train & outer.held).any()
        assert not ((outer.train | outer.held) & ~table.known).any()
        seen = np.zeros(table.value.shape, dtype=int)
        for part in inner:
            assert not (part.train & part.held).any()
            assert not ((part.train | part.held) & ~outer.train).any()
            seen += part.held
        assert np.array_equal(seen == 1, outer.train)  # each training pair is held out once


@pytest.mark.parametrize("kind", SPLITS[1:])
def test_what_is_cold_was_never_seen(table, kind):
    number = np.unique(table.sequence, return_inverse=True)[1]
    held_once = np.zeros(table.value.shape, dtype=int)
    for inner, outer in draw_splits(table, kind, seed=3):
        held_once += outer.held
        for train, held in [outer, *inner]:
            if kind != "cold-target":
                assert not (train.any(axis=1) & held.any(axis=1)).any()
            if kind != "cold-drug":
                assert not set(number[train.any(axis=0)]) & set(number[held.any(axis=0)])
    if kind != "cold-both":
        assert np.array_equal(held_once == 1, table.known)


def test_seed_draws_the_groups(table):
    first, second, again = (
        draw_splits(table, "cold-drug", seed=s)[0].outer.held for s in (0, 1, 0)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, second)


def test_unknown_split(table):
    with pytest.raises(ConfigError, match="split must be one of warm, cold-drug"):
        draw_splits(replace(table), "tepid")
