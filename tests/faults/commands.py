"""Small runs of every long command, in forked children of this process.

Forked, so that a kill costs seconds, not imports. Commands that read a trained network get one from
`Bench.inputs`, made once.
"""

import contextlib
import importlib
import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

import apps
from apps.lab.checkpoint import load_checkpoint
from apps.lab.record import read_record
from apps.suite.cli import main
from core.kernels.call import kernels

INJECTED: Counter[str] = Counter()  # faults, by kind
# The variable makes a trial of the suite itself short; its count then falls below the 300.
SHARE = float(os.environ.get("TESSERA_FAULTS", "1"))
LIMIT_S = 600.0  # a command that takes longer hangs
MODULES = [
    *("chemistry.train", "chemistry.answers", "chemistry.compress", "chemistry.benchmark.run"),
    *("weather.train", "weather.forecast.simulate", "weather.forecast.forecast"),
    "weather.finetune",
    *("weather.verdict.score", "weather.verdict.climate", "weather.assimilation.assimilate"),
    *("suite.study", "suite.study.break_even", "suite.demo"),
]
SMALL = ["train.n_epoch=8", "model.d_hidden=16", "model.n_layer=2"]
TINY = [
    *("model.resolution=T5L8", "model.dt_s=5400", "model.n_longwave=16", "model.n_shortwave=8"),
    "start=rest",
]
DATES = ["n_date=2", "spacing_day=1", "lead_day=1", "coarse_longwave=15"]
SETTINGS = {
    "weather train": [
        *("columns.resolution=T5L8", "columns.start=rest", "columns.skip_day=0"),
        *("columns.n_day=20", "columns.n_column_per_call=64", "columns.other_climates=[]"),
        "network.n_epoch=6",
    ],
    "weather simulate": ["model.resolution=T21L8", "n_day=4", "output_every_h=12", "file_day=1"],
    "weather forecast": [*TINY, *DATES],
    "weather finetune": [
        *(*TINY, "skip_day=2", "n_window=4", "window_h=6", "spacing_h=6", "n_epoch=3", "batch=1"),
        *("n_date=2", "spacing_day=1", "lead_day=1"),
    ],
    "weather score": [*TINY, *DATES, "n_climatology_day=10"],
    "weather climate": [*TINY, "n_day=3", "n_settle_day=1", "audit_every_day=1"],
    "weather assimilate": [
        *(*TINY, "n_member=3", "member_spacing_day=1", "n_day=1", "n_withheld_day=1"),
        *("forecast_day=1", "forecast_every_day=1", "n_station=12", "n_flight=4"),
    ],
}
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
DEMO = """
chemistry = {small}
weather = {columns}
"""
CHEMISTRY = ["chemistry train", "chemistry predict", "chemistry compress", "chemistry benchmark"]
ALL = [*CHEMISTRY, "study", "demo", *SETTINGS]
# These begin again, and leave no run behind when killed; the others go on where they were, some
# without being asked.
BEGIN_AGAIN = ["chemistry predict", "chemistry compress"]
UNASKED = ["chemistry benchmark", "demo"]
RESUMABLE = [kind for kind in ALL if kind not in BEGIN_AGAIN]
# Wall or CPU seconds, which no two runs share.
TIMED = ("cpu_ratio", "cpu_s")


def chains(n: int) -> str:
    """A table of molecules whose value is their length and their end."""
    ends = ["O", "N", "c1ccccc1", "C(=O)O", "Cl", "OC1CC1"]
    rows = [f"{'C' * (i // 6 + 1)}{ends[i % 6]},{0.3 * (i // 6) + i % 6}" for i in range(n)]
    return "smiles,y\n" + "\n".join(rows) + "\n"


class Bench:
    """Where commands are started, stopped and looked at; `inputs` are the same for all runs."""

    def __init__(self, inputs: Path):
        for room in MODULES:
            importlib.import_module(f"apps.{room}")  # once here, so that no child imports anything
        kernels()  # nor looks for a library that later sources made
        self.inputs, self.log = inputs, inputs / "stderr"
        self.table = inputs / "molecules.csv"
        self.table.write_text(chains(54))
        (inputs / "study.toml").write_text(STUDY.format(table=self.table))
        self.split = inputs / "split.csv"
        self.split.write_text(apps.chemistry.datasets.pocket.generate(60, 10, 30).csv_text())
        data = [f"data.source={self.table}", "data.smiles=smiles", "data.target=y"]
        columns = ["forecast=none", *SETTINGS["weather train"]]
        demo = DEMO.format(small=[*SMALL, *data], columns=columns)
        (inputs / "demo.toml").write_text(demo.replace("'", '"'))
        self._clean: dict[str, tuple[dict, float, Path]] = {}

    def words(self, kind: str, folder: Path, *, resume: bool = False, jobs: int = 1) -> list[str]:
        """The command of a small run of `kind` that writes below `folder`."""
        resume = resume and kind not in UNASKED
        out = ["--out", str(folder / "run"), "-q", *(["--resume"] if resume else [])]
        settings = [word for s in SETTINGS.get(kind, []) for word in ("--set", s)]
        if kind == "chemistry train":
            settings = [word for s in SMALL for word in ("--set", s)]
            columns = ["--smiles", "smiles", "--target", "y"]
            return [*kind.split(), "--data", str(self.table), *columns, *settings, *out]
        if kind == "chemistry predict":
            model, answers = self.clean("chemistry train")[2] / "run", folder / "run" / "a.csv"
            sources = [str(model), str(self.table), "--out", str(answers), "-q", "--jobs", "1"]
            return [*kind.split(), *sources]
        if kind == "chemistry compress":
            model, small = str(self.clean("chemistry train")[2] / "run"), ["--density", "0.5"]
            return [*kind.split(), model, *small, "--block", "8", "--epochs", "5", *out]
        if kind == "chemistry benchmark":
            settings = [word for s in [*SMALL, "n_fold=2"] for word in ("--set", s)]
            return [*kind.split(), "--suite", "pocket", *settings, *out]
        if kind == "demo":
            return ["demo", "--jobs", str(jobs), *out]
        if kind == "study":
            return ["study", str(self.inputs / "study.toml"), "--jobs", str(jobs), *out]
        if kind in ("weather forecast", "weather finetune", "weather score", "weather climate"):
            emulator = self.clean("weather train")[2] / "run"
            return [*kind.split(), "--emulator", str(emulator), *settings, *out]
        if kind == "weather train":
            settings += ["--set", "forecast=none"]
        return [*kind.split(), *settings, *out]

    def clean(self, kind: str) -> tuple[dict, float, Path]:
        """An undisturbed run of `kind`: its bits, how long it took, and where it is."""
        if kind not in self._clean:
            folder = self.inputs / f"clean-{kind.replace(' ', '-')}"
            words = self.words(kind, folder)
            begin = time.monotonic()
            code = self.finish(self.start(words))
            assert code == 0, f"{' '.join(words)}: {self.said()}"
            took_s = time.monotonic() - begin
            self._clean[kind] = (fingerprint(folder / "run"), took_s, folder)
        return self._clean[kind]

    def place(self, kind: str, folder: Path) -> Path:
        """A new folder for a run; columns, which are another command's work, are put there."""
        folder.mkdir()
        for cache in self.clean(kind)[2].glob("columns-*"):
            shutil.copy(cache, folder)
        return folder

    def start(self, words: list[str], *, before=None) -> int:
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
            sys.stderr = self.log.open("w", buffering=1)
            self._make_small()
            if before is not None:
                before()
            code = main(words)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def _make_small(self) -> None:
        """In the child: give the commands that have no settings for it less to do."""
        demo, benchmark = apps.suite.demo, apps.chemistry.benchmark
        demo.SETTINGS = self.inputs / "demo.toml"
        demo.VARIANTS = {name: demo.VARIANTS[name] for name in ("dense-fp32", "sparse-16x16-75")}
        benchmark.suite_sources = lambda suite, targets: [str(self.split)]
        true = benchmark.run.DataConfig
        benchmark.run.DataConfig = lambda source: true(
            source=source, target=("pk",), split_column="split"
        )

    def finish(self, child: int, limit_s: float = LIMIT_S) -> int:
        """Wait; give the exit code, negative for a signal. A child that hangs fails the test."""
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.02)
        self.strike(child, signal.SIGKILL)
        pytest.fail(f"the command hangs: not done in {limit_s:g} s")

    def strike(self, child: int, number: int) -> None:
        """Send a signal to the child's whole group and collect it after a kill."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, number)
        if number == signal.SIGKILL:
            os.waitpid(child, 0)

    def said(self) -> str:
        """What the last command wrote to standard error."""
        return self.log.read_text(errors="replace")

    def check_ends_as_undisturbed(self, kind: str, place: Path, *, jobs: int = 1) -> None:
        """Let the command end in a folder that a fault has been at; its bits must be the usual."""
        expected, _, _ = self.clean(kind)
        if kind not in RESUMABLE:
            shutil.rmtree(place / "run", ignore_errors=True)
        words = self.words(kind, place, resume=kind in RESUMABLE, jobs=jobs)
        assert self.finish(self.start(words)) == 0, self.said()
        assert_same(fingerprint(place / "run"), expected)
        parts = list((place / "run").rglob(".*.part*"))
        assert not parts, f"left behind: {parts}"


def fingerprint(folder: Path) -> dict:
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
        elif path.suffix == ".svg":
            found[name] = path.stat().st_size > 0
        elif path.name == "record.json":
            record = json.loads(path.read_text())
            found[name] = untimed({k: record[k] for k in ("accuracy", "baselines", "members")})
    return found


def untimed(value):
    """Leave out what is a time."""
    if not isinstance(value, dict):
        return value
    return {k: untimed(v) for k, v in value.items() if not k.endswith(TIMED)}


def assert_same(found: dict, expected: dict) -> None:
    """Compare two fingerprints; name what differs, not all of it."""
    assert found.keys() == expected.keys(), found.keys() ^ expected.keys()
    for name in found:
        one, other = found[name], expected[name]
        if one == other:
            continue
        if isinstance(one, dict):
            keys = [k for k in one.keys() | other.keys() if one.get(k) != other.get(k)]
            short = {k: (str(one.get(k))[:300], str(other.get(k))[:300]) for k in keys}
            pytest.fail(f"{name} differs in {short}")
        pytest.fail(f"{name} differs")


def check_whole(folder: Path) -> None:
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
