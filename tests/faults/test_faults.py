"""Faults under the long commands and their files: nothing is lost, nothing torn is believed.

Commands run in forked children of this process, so that a kill costs seconds, not imports. What a
fault must leave: every file in place is whole, a resumed run ends with the bits of an undisturbed
one, and every refusal is one sentence on standard error. `python run faults` counts them.
"""

import contextlib
import errno
import importlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

import numpy as np
import pytest
import torch

from apps.lab.checkpoint import load_checkpoint, save_checkpoint
from apps.lab.record import read_record
from apps.suite.cli import main
from core.errors import TesseraError

pytestmark = pytest.mark.faults

LIMIT_S = 600.0  # a command that takes longer hangs
N_KILL = {"chemistry": 40, "weather": 12, "simulate": 24, "study": 12}
N_TORN = 24  # of each kind of file, cut short and with a flipped bit
FAULTS: list[str] = []  # what was injected, for the count at the end


def chains(n):
    """A table of molecules whose value is their length and their end."""
    ends = ["O", "N", "c1ccccc1", "C(=O)O", "Cl", "OC1CC1"]
    rows = [f"{'C' * (i // 6 + 1)}{ends[i % 6]},{0.3 * (i // 6) + i % 6}" for i in range(n)]
    return "smiles,y\n" + "\n".join(rows) + "\n"


SMALL = ["train.n_epoch=8", "model.d_hidden=16", "model.n_layer=2"]
STUDY = """
title = "faults"
seeds = [0, 1]
machines = ["ipu_bow"]
[[sweep]]
application = "chemistry"
base.train.n_epoch = 1
base.model.d_hidden = 16
base.model.n_layer = 2
base.data.source = "{table}"
base.data.smiles = "smiles"
base.data.target = "y"
[sweep.grid]
variant.density = [1.0, 0.5]
"""


def command(kind, folder):
    """The words of a small run of `kind`; inputs are the same files for all runs."""
    table = Path(os.environ["FAULT_INPUT"]) / "molecules.csv"
    out = ["--out", str(folder / "run"), "-q"]
    if kind == "chemistry":
        table.write_text(chains(54))
        words = ["chemistry", "train", "--data", str(table), "--smiles", "smiles", "--target", "y"]
        return [*words, *(w for s in SMALL for w in ("--set", s)), *out]
    if kind == "weather":
        settings = [
            "columns.n_day=20",
            "columns.other_climates=[]",
            "network.n_epoch=6",
            "forecast=none",
        ]
        return ["weather", "train", *(w for s in settings for w in ("--set", s)), *out]
    if kind == "simulate":
        settings = ["n_day=4", "output_every_h=12", "file_day=1"]
        return ["weather", "simulate", *(w for s in settings for w in ("--set", s)), *out]
    table.write_text(chains(54))
    study = table.with_name("study.toml")
    study.write_text(STUDY.format(table=table))
    return ["study", str(study), "--jobs", "1", *out]


def start(words, *, before=None):
    """Fork a child that runs the command in a process group of its own."""
    child = os.fork()
    if child:
        with contextlib.suppress(OSError):  # whoever comes first, child or parent
            os.setpgid(child, child)
        return child
    code = 70
    try:
        os.setpgid(0, 0)
        torch.set_num_threads(1)
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
        sys.stderr = Path(os.environ["FAULT_LOG"]).open("w", buffering=1)  # noqa: SIM115
        if before is not None:
            before()
        code = main(words)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def finish(child, limit_s=LIMIT_S):
    """Wait; give the exit code, negative for a signal. A child that hangs fails the test."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    strike(child, signal.SIGKILL)
    pytest.fail(f"the command hangs: not done in {limit_s:g} s")


def strike(child, number):
    """Send a signal to the child's whole group and collect it after a kill."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, number)
    if number == signal.SIGKILL:
        os.waitpid(child, 0)


def said():
    """What the last command wrote to standard error."""
    return Path(os.environ["FAULT_LOG"]).read_text(errors="replace")


@pytest.fixture(scope="module", autouse=True)
def log(tmp_path_factory):
    for room in ("chemistry.train", "weather.train", "weather.forecast.simulate", "suite.study"):
        importlib.import_module(f"apps.{room}")  # once here, so that no child imports anything
    os.environ["FAULT_LOG"] = str(tmp_path_factory.mktemp("log") / "stderr")
    os.environ["FAULT_INPUT"] = str(tmp_path_factory.mktemp("input"))
    yield
    print(f"\n{len(FAULTS)} faults injected: {dict((k, FAULTS.count(k)) for k in set(FAULTS))}")


def fingerprint(folder):
    """Bits of what a run leaves for its user: weights, tables, fields, accuracies."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.name.startswith(".") or "checkpoint" in path.name or not path.is_file():
            continue
        if path.suffix == ".safetensors":
            found[name] = {k: v.numpy().tobytes() for k, v in load_checkpoint(path)[0].items()}
        elif path.suffix == ".csv":
            found[name] = path.read_bytes()
        elif path.suffix == ".nc":
            import xarray

            with xarray.open_dataset(path, decode_times=False) as data:
                found[name] = {k: float(np.nansum(v.values)) for k, v in data.data_vars.items()}
        elif path.name == "record.json":
            record = json.loads(path.read_text())
            found[name] = {k: record[k] for k in ("accuracy", "baselines", "members")}
    return found


def check_whole(folder):
    """Every file in place can be read to its end."""
    for path in folder.rglob("*"):
        if path.name.startswith("."):
            continue
        if path.suffix == ".safetensors":
            load_checkpoint(path)
        elif path.name == "record.json":
            read_record(path)
        elif path.suffix == ".nc":
            import xarray

            with xarray.open_dataset(path, decode_times=False) as data:
                data.load()
        elif path.suffix == ".json":
            json.loads(path.read_text())


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """An undisturbed run of each kind: its folder's bits and how long it took."""
    known = {}

    def of(kind):
        if kind not in known:
            folder = tmp_path_factory.mktemp(f"clean-{kind}")
            words = command(kind, folder)
            begin = time.monotonic()
            assert finish(start(words)) == 0, said()
            known[kind] = (fingerprint(folder / "run"), time.monotonic() - begin, folder)
        return known[kind]

    return of


@pytest.mark.parametrize("kind", N_KILL)
def test_killed_runs_end_with_the_same_bits(kind, clean, tmp_path):
    expected, took_s, folder = clean(kind)
    draw = random.Random(kind)
    for i_run in range(N_KILL[kind] // 2):
        place = tmp_path / str(i_run)
        place.mkdir()
        for cache in folder.glob("columns-*"):  # columns are another command's work: made once
            shutil.copy(cache, place)
        words = command(kind, place)
        for i_kill in range(2):
            child = start([*words, "--resume"] if i_kill else words)
            time.sleep(draw.uniform(0.0, 0.9 * took_s))
            strike(child, signal.SIGKILL)
            FAULTS.append(f"kill {kind}")
            check_whole(place)
        assert finish(start([*words, "--resume"])) == 0, said()
        assert fingerprint(place / "run") == expected
        parts = list((place / "run").glob(".*.part*"))
        assert not parts, f"left behind: {parts}"
        shutil.rmtree(place)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("kind", ["chemistry", "simulate"])
def test_signals_stop_a_run_that_then_goes_on(kind, number, clean, tmp_path):
    expected, took_s, _ = clean(kind)
    draw = random.Random(f"{kind} {number}")
    for i_run in range(5):
        place = tmp_path / str(i_run)
        place.mkdir()
        words = command(kind, place)
        child = start(words)
        time.sleep(draw.uniform(0.0, 0.9 * took_s))
        strike(child, number)
        finish(child)
        FAULTS.append("signal")
        assert "Traceback" not in said()
        check_whole(place)
        assert finish(start([*words, "--resume"])) == 0, said()
        assert fingerprint(place / "run") == expected


@pytest.mark.parametrize("kind", ["chemistry", "simulate"])
def test_a_full_disk_is_one_sentence_and_costs_nothing(kind, clean, tmp_path):
    """A limit on the size of files stands for the full disk: the write fails half way."""
    expected, _, folder = clean(kind)
    largest = max(path.stat().st_size for path in (folder / "run").rglob("*") if path.is_file())
    draw = random.Random(kind)
    for i_run in range(10):
        place = tmp_path / str(i_run)
        place.mkdir()
        words = command(kind, place)
        limit = draw.randrange(1000, largest)

        def shrink(limit=limit):
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        code = finish(start(words, before=shrink))
        FAULTS.append("full disk")
        check_whole(place)
        if code != 0:
            assert "Traceback" not in said(), said()
            assert said().strip(), "a failure says why"
        assert finish(start([*words, "--resume"] if (place / "run").exists() else words)) == 0
        assert fingerprint(place / "run") == expected


@pytest.mark.parametrize("kind", N_KILL)
@pytest.mark.parametrize("where", ["/proc/tessera", "{file}", "{file}/below"])
def test_a_place_that_cannot_be_written_is_refused_at_once(kind, where, tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    words = command(kind, tmp_path)
    words[words.index("--out") + 1] = where.format(file=file)
    assert finish(start(words)) not in (0, 70)
    FAULTS.append("unwritable")
    assert "Traceback" not in said(), said()
    assert said().strip()
    assert file.read_text() == "mine"


@pytest.mark.parametrize("kind", ["chemistry", "simulate"])
def test_two_processes_on_one_folder(kind, clean, tmp_path):
    expected, took_s, _ = clean(kind)
    words = command(kind, tmp_path)
    first = start(words)
    while not (tmp_path / "run" / "run.json").exists():
        time.sleep(0.01)
    for _ in range(3):
        time.sleep(0.1 * took_s)
        os.killpg(first, signal.SIGSTOP)  # so that it cannot finish meanwhile
        os.environ["FAULT_LOG"] += ".2"
        assert finish(start([*words, "--resume"])) != 0
        assert "another process" in said()
        os.environ["FAULT_LOG"] = os.environ["FAULT_LOG"][:-2]
        os.killpg(first, signal.SIGCONT)
        FAULTS.append("two processes")
    assert finish(first) == 0, said()
    assert fingerprint(tmp_path / "run") == expected


@pytest.mark.parametrize("kind", ["chemistry", "simulate"])
def test_a_jumping_clock_changes_nothing(kind, clean, tmp_path):
    expected, _, _ = clean(kind)

    def jumping():
        true, draw = time.time, random.Random(0)
        time.time = lambda: true() + draw.choice([-86400.0, 0.0, 86400.0])

    for i_run in range(5):
        place = tmp_path / str(i_run)
        place.mkdir()
        assert finish(start(command(kind, place), before=jumping)) == 0, said()
        FAULTS.append("clock")
        assert fingerprint(place / "run") == expected


@pytest.mark.parametrize("kind", ["chemistry", "weather", "simulate"])
def test_24_gib_of_memory_are_enough(kind, clean, tmp_path):
    expected, _, folder = clean(kind)
    for cache in folder.glob("columns-*"):
        shutil.copy(cache, tmp_path)

    def bounded():
        resource.setrlimit(resource.RLIMIT_AS, (24 * 2**30, 24 * 2**30))

    assert finish(start(command(kind, tmp_path), before=bounded)) == 0, said()
    FAULTS.append("memory")
    assert fingerprint(tmp_path / "run") == expected


def torn(data, draw):
    """Cut short somewhere, or one bit turned."""
    if draw.random() < 0.5:
        return data[: draw.randrange(len(data))]
    at = draw.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]


FILES = [
    ("chemistry", "model.safetensors"),
    ("chemistry", "checkpoint-0.safetensors"),
    ("weather", "emulator.safetensors"),
    ("weather", "checkpoint.safetensors"),
    ("simulate", "restart.safetensors"),
]


@pytest.mark.parametrize(("kind", "name"), FILES)
def test_torn_tensors_are_never_believed(kind, name, clean, tmp_path):
    path = clean(kind)[2] / "run" / name
    data, draw = path.read_bytes(), random.Random(name)
    part = tmp_path / name
    for _ in range(N_TORN):
        part.write_bytes(torn(data, draw))
        FAULTS.append("torn tensors")
        with pytest.raises(TesseraError, match=name):
            load_checkpoint(part)


@pytest.mark.parametrize("kind", ["chemistry", "weather", "simulate"])
def test_torn_records_are_never_believed(kind, clean, tmp_path):
    path = clean(kind)[2] / "run" / "record.json"
    data, draw = path.read_bytes(), random.Random(kind)
    part = tmp_path / "record.json"
    n_refused = 0
    for _ in range(N_TORN):
        part.write_bytes(torn(data, draw))
        FAULTS.append("torn record")
        problem = ""
        try:
            assert read_record(part) == read_record(path)  # e for E in 1e-5, a lost last line end
        except TesseraError as error:
            problem = str(error)
        if problem:
            assert "record.json" in problem
            n_refused += 1
    assert n_refused > 0.9 * N_TORN


def test_torn_fields_are_never_believed(clean, tmp_path):
    from apps.weather.forecast.netcdf import open_dataset

    path = next((clean("simulate")[2] / "run").glob("*.nc"))
    whole = open_dataset(path)
    data, draw = path.read_bytes(), random.Random("nc")
    for i in range(2 * N_TORN):
        part = tmp_path / f"{i}.nc"
        part.write_bytes(torn(data, draw))
        FAULTS.append("torn netCDF")
        found, problem = None, ""
        try:
            found = open_dataset(part)
        except TesseraError as error:
            problem = str(error)
        if found is None:
            assert part.name in problem
            continue
        # a bit that no value and no name depends on may pass, a changed field may not
        for name in whole.data_vars:
            np.testing.assert_array_equal(found[name].values, whole[name].values)


@pytest.mark.parametrize("kind", ["chemistry", "simulate"])
def test_a_torn_checkpoint_stops_a_resume_with_a_sentence(kind, clean, tmp_path):
    folder = clean(kind)[2]
    name = {"chemistry": "checkpoint-0.safetensors", "simulate": "restart.safetensors"}[kind]
    draw = random.Random(kind)
    for i_run in range(4):
        place = tmp_path / str(i_run)
        shutil.copytree(folder, place)
        words = command(kind, place)
        shutil.rmtree(place / "run")
        shutil.copytree(folder / "run", place / "run")
        (place / "run" / "record.json").unlink()
        (place / "run" / name).write_bytes(torn((folder / "run" / name).read_bytes(), draw))
        code = finish(start([*words, "--resume"]))
        FAULTS.append("torn checkpoint")
        assert code not in (0, 70)
        assert name in said()
        assert "Traceback" not in said()


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = save_checkpoint(tmp_path / "a.safetensors", {"w": torch.ones(3)}, {})
    before = path.read_bytes()
    for number in (errno.ENOSPC, errno.EIO, errno.EDQUOT):
        real = os.replace

        def broken(a, b, number=number):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "replace", broken)
        FAULTS.append("write error")
        with pytest.raises(OSError, match=os.strerror(number)):
            save_checkpoint(path, {"w": torch.zeros(3)}, {})
        monkeypatch.setattr(os, "replace", real)
        assert path.read_bytes() == before
        assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_enough_faults_were_injected():
    """Runs last: the suite as a whole is worth its name."""
    assert len(FAULTS) >= 300, len(FAULTS)
