"""Graphs kept on disk: the same bits, and a damaged or foreign file is never believed."""

import numpy as np
import pytest

from apps.chemistry.datasets import graph_cache
from apps.chemistry.datasets.graph_cache import cache_file, cached_graphs
from apps.chemistry.molecules import mol_from_smiles
from apps.lab.checkpoint import save_checkpoint

# a dative bond, a metal without mass of its own column, stereo of both kinds, a single atom
TEXTS = ["C[C@H](N)C(=O)O", "F/C=C/c1ccncc1", "C", "[NH3]->[Pt]Cl", "Clc1ccc2[nH]ccc2c1"]


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """Numbers of molecules that were featurised, one entry a call."""
    monkeypatch.setattr(graph_cache, "cache_dir", lambda: tmp_path)
    monkeypatch.setattr(graph_cache, "MIN_MOLECULE", 1)
    seen = []

    def counted(mols):
        seen.append(len(mols))
        return made(mols)

    made = graph_cache.featurise_many
    monkeypatch.setattr(graph_cache, "featurise_many", counted)
    return seen


def read(texts=TEXTS):
    return cached_graphs(texts, [mol_from_smiles(text) for text in texts])


def assert_same(a, b):
    assert len(a) == len(b)
    for one, other in zip(a, b, strict=True):
        for x, y in zip(one, other, strict=True):
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y)


def test_the_second_command_reads_the_same_bits(calls):
    first, second = read(), read()
    assert calls == [len(TEXTS)]
    assert_same(first, second)


def test_other_texts_and_other_ways_to_read_them_are_other_files(calls):
    read()
    read(TEXTS[::-1])
    assert calls == [len(TEXTS)] * 2
    assert cache_file(TEXTS) != cache_file(TEXTS, "parent")


@pytest.mark.parametrize("damage", ["cut", "flipped", "foreign", "empty"])
def test_a_file_that_is_not_what_was_written_is_made_anew(calls, damage):
    first = read()
    path = cache_file(TEXTS)
    whole = path.read_bytes()
    if damage == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "flipped":
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    elif damage == "foreign":
        save_checkpoint(path, {}, {})
    else:
        path.write_bytes(b"")
    assert_same(first, read())
    assert calls == [len(TEXTS)] * 2
    assert_same(first, read())
    assert calls == [len(TEXTS)] * 2


def test_a_folder_that_cannot_be_written_costs_time_alone(calls, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(graph_cache, "cache_dir", lambda: tmp_path / "file")
    assert_same(read(), read())
    assert calls == [len(TEXTS)] * 2


def test_the_oldest_files_go(calls, monkeypatch):
    monkeypatch.setattr(graph_cache, "MAX_FILE", 2)
    for n in range(1, 5):
        read(TEXTS[:n])
    assert len(list(cache_file(TEXTS).parent.glob("*.safetensors"))) == 2
