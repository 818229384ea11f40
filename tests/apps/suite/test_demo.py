"""The demo: every application in every variant, resumable, one report at the end."""

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from apps.lab.progress import set_verbosity
from apps.lab.variant import VARIANTS
from apps.suite.demo import _jobs, run_demo
from apps.suite.pool import interleaved, work

ROOT = Path(__file__).resolve().parents[3]

# An application whose training takes no time; it counts its runs in a file.
TOY = """
from pathlib import Path
from apps.lab.config import Config
from apps.lab.launch import start_run
from apps.lab.record import new_record, write_record
from apps.lab.variant import VARIANTS, Variant
from core.errors import DataError

class TrainConfig(Config):
    variant: Variant = VARIANTS["dense-fp32"]
    rate: float = {rate}

def run(config, *, out, seed, device="auto", resume=False):
    with (Path(__file__).parent / "log").open("a") as log:
        log.write(f"{{out.name}}\\n")
    {problem}
    with start_run(out, config, seed=seed, device=device, resume=resume, command="toy",
                   application="{name}") as place:
        energy = dict.fromkeys(("compute", "local_memory", "exchange", "off_chip", "static"), 1.0)
        cost = dict(machine="ipu_gc200", phase="inference", variant=config.variant.name,
                    time_s=config.variant.density, energy_j=5.0, peak_tile_memory_byte=1,
                    fits=True, time_interval_s=(0.1, 2.0), energy_by=energy, utilisation=0.5)
        record = new_record(application="{name}", command="toy", config=config, seed=seed,
            device=place.device, accuracy={{"test": {{"rmse": 0.5}}}},
            baselines={{"mean": {{"test": {{"rmse": 1.0}}}}}}, cost=[cost],
            data=dict(name="toy", source="embedded", sha256="0", n_train=1, n_valid=1, n_test=1,
                      unit="pK"))
        write_record(place.dir, record)
    return record
"""


@pytest.fixture
def toys(tmp_path, monkeypatch):
    """Two applications as modules in a folder of this test."""

    def write(name, *, rate=1.0, problem="pass"):
        source = textwrap.dedent(TOY).format(name=name, rate=rate, problem=problem)
        (tmp_path / f"demo_{name}.py").write_text(source)
        sys.modules.pop(f"demo_{name}", None)
        return f"demo_{name}"

    monkeypatch.syspath_prepend(tmp_path)
    modules = {name: write(name) for name in ("north", "south")}
    yield tmp_path, modules, write
    set_verbosity(1)


def log_of(folder):
    log = folder / "log"
    return sorted(log.read_text().split()) if log.exists() else []


def test_it_runs_everything_once_writes_the_report_and_then_keeps_it(toys, capsys):
    folder, modules, _ = toys
    out = folder / "out"
    assert run_demo(out, applications=modules) == 0
    wanted = sorted(f"{name}-{variant}" for name in modules for variant in VARIANTS)
    assert log_of(folder) == wanted
    page = (out / "report.html").read_text()
    assert all(f'href="{name}/record.json"' in page for name in wanted)
    shown = capsys.readouterr()
    assert shown.err.count(": trained, ") == 8
    assert "sparse-16x16-75-int8" in shown.out
    assert "4.00\N{MULTIPLICATION SIGN}" in shown.out

    assert run_demo(out, applications=modules) == 0
    assert log_of(folder) == wanted
    assert capsys.readouterr().err.count(": kept, ") == 8
    assert (out / "report.html").read_text() == page


def job(toys, application="north"):
    folder, modules, _ = toys
    ((first, *_),) = _jobs(folder / "out", 0, "cpu", {application: modules[application]})
    return first


def test_an_unfinished_run_is_resumed_and_one_with_other_settings_made_anew(toys):
    folder, _, write = toys
    one = job(toys)
    assert work(one).status == "trained"
    (one.folder / "record.json").unlink()
    (one.folder / "half").write_text("")
    assert work(one).status == "trained"
    assert (one.folder / "half").exists()  # the same run went on
    assert work(one).status == "kept"
    write("north", rate=2.0)
    assert work(one).status == "trained"
    assert not (one.folder / "half").exists()
    assert json.loads((one.folder / "record.json").read_text())["config"]["rate"] == 2.0
    assert len(log_of(folder)) == 3


def test_what_fails_is_told_and_the_rest_goes_on(toys, capsys):
    folder, modules, write = toys
    write("north", problem="raise DataError('the table is empty')")
    assert run_demo(folder / "out", applications=modules, n_job=1) == 1
    shown = capsys.readouterr().err
    assert shown.count("error: the table is empty") == 4
    assert "failed: north dense-fp32" in shown
    page = (folder / "out" / "report.html").read_text()
    assert "south-dense-fp32/record.json" in page
    assert "north-dense-fp32" not in page


def test_a_mistake_of_ours_keeps_its_traceback(toys):
    toys[2]("north", problem="1 / 0")
    outcome = work(job(toys))
    assert outcome.status == "failed"
    assert "ZeroDivisionError" in outcome.problem


def test_a_folder_of_something_else_is_left_alone(toys):
    one = job(toys)
    one.folder.mkdir(parents=True)
    (one.folder / "thesis.tex").write_text("")
    outcome = work(one)
    assert outcome.status == "failed"
    assert "is not a run folder" in outcome.problem
    assert (one.folder / "thesis.tex").exists()


def test_processes_start_with_different_applications():
    jobs = interleaved(_jobs(Path("out"), 0, "cpu", {"north": "a", "south": "b"})[::-1])
    assert [j.name for j in jobs[:2]] == ["south dense-fp32", "north dense-fp32"]
    assert len({j.folder for j in jobs}) == len(jobs) == 2 * len(VARIANTS)


def test_a_damaged_record_is_made_again(toys):
    one = job(toys)
    assert work(one).status == "trained"
    record = one.folder / "record.json"
    whole = record.read_bytes()
    record.write_bytes(whole[: len(whole) // 2])
    assert work(one).status == "trained"
    assert record.read_bytes() == whole


def test_when_the_demo_is_killed_its_processes_end_and_let_go_of_their_runs(toys):
    folder, modules, write = toys
    told = "out.parent.mkdir(exist_ok=True); (out.parent / 'pid').write_text(str(os.getpid()))"
    write("north", problem=f"import os, time; {told}; time.sleep(99)")
    out, demo = str(folder / "out"), {"north": modules["north"]}
    code = (
        "from pathlib import Path; from apps.suite.demo import run_demo\n"
        f"run_demo(Path({out!r}), applications={demo!r}, n_job=1)"
    )
    paths = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)])}
    whole = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, **paths})
    with whole:
        pid = folder / "out" / "pid"
        assert within(60, lambda: pid.exists() and pid.read_text())
        worker = int(pid.read_text())
        whole.kill()
    assert within(20, lambda: not is_alive(worker))


def within(limit_s, condition):
    """Wait for a condition, and say whether it came."""
    end = time.monotonic() + limit_s
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def is_alive(pid):
    """Whether a process runs; one that has ended and was not yet waited for does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
