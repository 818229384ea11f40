"""Files cut short or with a flipped bit: none is believed."""

import errno
import os
import random
import shutil

import numpy as np
import pytest
import torch

from apps.lab.checkpoint import load_checkpoint, save_checkpoint
from apps.lab.record import read_record
from core.errors import TesseraError
from tests.faults.commands import INJECTED, SHARE, check_whole

pytestmark = pytest.mark.faults

N_TORN = 24  # of each file
TENSORS = [
    ("chemistry train", "model.safetensors"),
    ("chemistry train", "checkpoint-0.safetensors"),
    ("weather train", "emulator.safetensors"),
    ("weather train", "checkpoint.safetensors"),
    ("weather simulate", "restart.safetensors"),
]
RECORDS = ["chemistry train", "weather train", "weather simulate", "weather score"]


def torn(data, draw):
    """Cut short somewhere, or one bit turned."""
    if draw.random() < 0.5:
        return data[: draw.randrange(len(data))]
    at = draw.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]


@pytest.mark.parametrize(("kind", "name"), TENSORS)
def test_torn_tensors(kind, name, bench, tmp_path, inject):
    path = bench.clean(kind)[2] / "run" / name
    data, draw = path.read_bytes(), random.Random(name)
    part = tmp_path / name
    for _ in range(N_TORN):
        part.write_bytes(torn(data, draw))
        inject(f"torn {name}")
        with pytest.raises(TesseraError, match=name):
            load_checkpoint(part)


@pytest.mark.parametrize("kind", RECORDS)
def test_torn_records(kind, bench, tmp_path, inject):
    path = bench.clean(kind)[2] / "run" / "record.json"
    data, draw = path.read_bytes(), random.Random(kind)
    part = tmp_path / "record.json"
    n_refused = 0
    for _ in range(N_TORN):
        part.write_bytes(torn(data, draw))
        inject("torn record")
        problem = ""
        try:
            assert read_record(part) == read_record(path)  # e for E in 1e-5, a lost last line end
        except TesseraError as error:
            problem = str(error)
        if problem:
            assert "record.json" in problem
            n_refused += 1
    assert n_refused > 0.9 * N_TORN


def test_torn_fields(bench, tmp_path, inject):
    from apps.weather.forecast.netcdf import open_dataset

    path = next((bench.clean("weather simulate")[2] / "run").glob("*.nc"))
    whole = open_dataset(path)
    data, draw = path.read_bytes(), random.Random("nc")
    n_refused = 0
    for i in range(2 * N_TORN):
        part = tmp_path / f"{i}.nc"
        part.write_bytes(torn(data, draw))
        inject("torn netCDF")
        found, problem = None, ""
        try:
            found = open_dataset(part)
        except TesseraError as error:
            problem = str(error)
        if found is None:
            assert part.name in problem
            n_refused += 1
            continue
        # a bit that no value and no name depends on may pass, a changed field may not
        for name in whole.data_vars:
            np.testing.assert_array_equal(found[name].values, whole[name].values)
    assert n_refused > 0.8 * 2 * N_TORN


def test_torn_columns_are_made_anew_or_refused(bench, tmp_path, inject):
    """The cache that trainings share: a run on a torn one ends as usual, or says which file."""
    draw = random.Random("columns")
    cache = next(bench.clean("weather train")[2].glob("columns-*.safetensors"))
    data = cache.read_bytes()
    for i_run in range(3):
        place = bench.place("weather train", tmp_path / str(i_run))
        (place / cache.name).write_bytes(torn(data, draw))
        code = bench.finish(bench.start(bench.words("weather train", place)))
        inject("torn columns")
        assert code != 70
        if code:
            assert cache.name in bench.said()
            assert "Traceback" not in bench.said()
            continue
        bench.check_ends_as_undisturbed("weather train", place)


@pytest.mark.parametrize("kind", ["chemistry train", "weather simulate", "weather train"])
def test_a_torn_checkpoint_stops_a_resume_with_a_sentence(kind, bench, tmp_path, inject):
    folder = bench.clean(kind)[2]
    name = next(n for k, n in TENSORS[::-1] if k == kind)
    draw = random.Random(kind)
    for i_run in range(4):
        place = tmp_path / str(i_run)
        shutil.copytree(folder, place)
        (place / "run" / "record.json").unlink()
        (place / "run" / name).write_bytes(torn((folder / "run" / name).read_bytes(), draw))
        code = bench.finish(bench.start(bench.words(kind, place, resume=True)))
        inject("torn checkpoint on resume")
        assert code not in (0, 70)
        assert name in bench.said()
        assert "Traceback" not in bench.said()


def test_a_torn_state_of_a_study_is_told_and_written_anew(bench, tmp_path, inject):
    folder = bench.clean("study")[2]
    draw = random.Random("study")
    for i_run in range(6):
        place = tmp_path / str(i_run)
        shutil.copytree(folder, place)
        state = place / "run" / "study.json"
        state.write_bytes(torn(state.read_bytes(), draw))
        inject("torn study.json")
        code = bench.finish(bench.start(["study", "report", str(place / "run"), "-q"]))
        assert code not in (70,)
        assert "Traceback" not in bench.said()
        bench.check_ends_as_undisturbed("study", place)
        check_whole(place)


def test_a_torn_record_of_a_study_is_made_anew(bench, tmp_path, inject):
    folder = bench.clean("study")[2]
    draw = random.Random("point")
    for i_run in range(3):
        place = tmp_path / str(i_run)
        shutil.copytree(folder, place)
        records = sorted((place / "run").rglob("record.json"))
        record = draw.choice(records)
        record.write_bytes(record.read_bytes()[: draw.randrange(10, record.stat().st_size)])
        inject("torn record of a study")
        bench.check_ends_as_undisturbed("study", place)
        check_whole(place)


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch, inject):
    path = save_checkpoint(tmp_path / "a.safetensors", {"w": torch.ones(3)}, {})
    before = path.read_bytes()
    for number in (errno.ENOSPC, errno.EIO, errno.EDQUOT):
        real = os.replace

        def broken(a, b, number=number):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "replace", broken)
        inject("write error")
        with pytest.raises(OSError, match=os.strerror(number)):
            save_checkpoint(path, {"w": torch.zeros(3)}, {})
        monkeypatch.setattr(os, "replace", real)
        assert path.read_bytes() == before
        assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_enough_faults_were_injected(request):
    """Runs last: the suite as a whole is worth its name."""
    if (
        SHARE < 1
        or request.config.option.keyword
        or any(".py" in name for name in request.config.args)
    ):
        pytest.skip("a part of the suite was asked for")
    assert INJECTED.total() >= 300
