"""Runs are made once, written down one by one, and lost neither by a stop nor by a failure."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from apps.suite.study import StudyView, run_study, write_page
from apps.suite.study import run as module
from apps.suite.study.state import STUDY_FILE, read_state
from core.errors import DataError

N_RUN = 12
ROOT = Path(__file__).resolve().parents[4]


def log_of(folder):
    return (folder / "log").read_text().split()


def go(toy, **options):
    folder, applications = toy
    return run_study(folder / "study.toml", folder / "out", applications=applications, **options)


def test_each_run_is_made_once_and_kept_by_a_later_study(toy, finished):
    folder, _ = toy
    assert len(log_of(folder)) == len(set(log_of(folder))) == N_RUN
    assert read_state(finished).count("done") == N_RUN
    page = (finished / "report.html").read_bytes()
    assert go(toy, resume=True) == 0
    assert len(log_of(folder)) == N_RUN
    assert (finished / "report.html").read_bytes() == page
    # a wider study keeps what is there
    text = (folder / "study.toml").read_text().replace("seeds = [0, 1]", "seeds = [0, 1, 2]")
    (folder / "study.toml").write_text(text)
    assert go(toy, resume=True) == 0
    assert len(log_of(folder)) == N_RUN + 6


def test_a_stopped_study_can_be_read_and_goes_on(toy, serial, monkeypatch):
    folder, _ = toy
    whole = module.run_jobs

    def stopped(jobs, *how):
        for i, done in enumerate(whole(jobs, *how)):
            if i == 5:
                raise KeyboardInterrupt
            yield done

    monkeypatch.setattr(module, "run_jobs", stopped)
    with pytest.raises(KeyboardInterrupt):
        go(toy)
    state = read_state(folder / "out")
    assert (state.count("done"), state.count("waiting")) == (5, N_RUN - 5)
    assert "5 of 12 runs are finished" in write_page(folder / "out").read_text()
    monkeypatch.setattr(module, "run_jobs", whole)
    assert go(toy, resume=True) == 0
    assert sorted(log_of(folder)) == sorted(set(log_of(folder)))  # the sixth had its record


def test_no_run_is_begun_when_the_time_is_over(toy, serial, monkeypatch, capsys):
    folder, _ = toy
    assert go(toy, minutes=0) == 0
    assert read_state(folder / "out").count("waiting") == N_RUN
    assert f"{N_RUN} runs wait; go on with --resume" in capsys.readouterr().err
    # a clock that jumps an hour a look: one to begin with, one for each run
    clock = iter(range(0, 10**6, 3600))
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    assert go(toy, resume=True, minutes=60 * 4.5) == 0
    state = read_state(folder / "out")
    assert (state.count("done"), state.count("waiting")) == (4, N_RUN - 4)
    assert state.sessions[-1].n_run == 4
    assert "4 of 12 runs are finished" in (folder / "out" / "report.html").read_text()


def test_a_point_that_fails_is_told_and_the_rest_goes_on(toy, serial, capsys):
    folder, _ = toy
    text = (folder / "study.toml").read_text().replace("[1.0, 2.0]", "[1.0, 13.0]")
    (folder / "study.toml").write_text(text)
    assert go(toy) == 1
    state = read_state(folder / "out")
    assert (state.count("done"), state.count("failed")) == (6, 6)
    assert "error: the loss is <b>nan</b>" in capsys.readouterr().err
    page = (folder / "out" / "report.html").read_text()
    assert page.count("the loss is &lt;b&gt;nan&lt;/b&gt;") >= 6
    assert "<b>nan" not in page
    n = len(log_of(folder))
    assert go(toy, resume=True) == 1  # failed ones are tried again, finished ones are not
    assert len(log_of(folder)) == n + 6


def test_a_damaged_record_is_reported_and_then_made_again(toy, finished):
    folder, _ = toy
    record = next((finished / "points").glob("toy-*/record.json"))
    whole = record.read_bytes()
    record.write_bytes(whole[:100])
    assert "is not valid JSON" in write_page(finished).read_text()
    assert go(toy, resume=True) == 0
    assert record.read_bytes() == whole
    assert len(log_of(folder)) == N_RUN + 1


def test_folders_that_are_not_ours(toy, finished):
    folder, applications = toy
    with pytest.raises(DataError, match="already holds a study; continue it with --resume"):
        go(toy)
    other = folder / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("")
    with pytest.raises(DataError, match="is not empty and holds no study"):
        run_study(folder / "study.toml", other, applications=applications)
    with pytest.raises(DataError, match="is a file; choose a folder"):
        run_study(folder / "study.toml", other / "thesis.tex", applications=applications)
    with pytest.raises(DataError, match=r"cannot read the study .*name the folder"):
        write_page(other)


def test_a_damaged_state_is_said_and_found_again_in_the_runs(toy, finished, capsys):
    file = finished / STUDY_FILE
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(
        DataError, match=r"does not follow tessera.study/1 .*finished runs are kept"
    ):
        write_page(finished)
    assert go(toy, resume=True) == 0
    assert "written anew" in capsys.readouterr().err
    assert len(log_of(toy[0])) == N_RUN


def test_a_second_process_on_the_folder_is_refused(toy, finished):
    code = (
        "import sys; from apps.lab.launch import take_lock; from pathlib import Path\n"
        "take_lock(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(finished)]
    holder = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(DataError, match="is being written by another process"):
            go(toy, resume=True)
        write_page(finished)  # reading is free
        holder.stdin.close()
    assert go(toy, resume=True) == 0


def test_runs_in_processes_give_the_same_records(toy, finished):
    folder, applications = toy
    other = folder / "parallel"
    assert run_study(folder / "study.toml", other, n_job=2, applications=applications) == 0
    for record in (finished / "points").glob("toy-*/record.json"):
        ours = json.loads(record.read_text())
        theirs = json.loads((other / "points" / record.parent.name / "record.json").read_text())
        for content in (ours, theirs):
            content.pop("versions")  # lists what the process has loaded
        assert ours == theirs


# Python calls that this process may spend on one run: at well over a million a second, less than a
# twentieth of a run of one second; the shortest real ones take about ten.
MOST_CALLS = 50_000


def test_beside_the_runs_little_is_done(toy, serial, monkeypatch):
    """Counted, not timed: calls of this process between runs, in a small and a larger study."""
    folder, applications = toy
    whole = module.run_jobs

    def calls(n_seed):
        counted = 0

        def count(frame, event, argument):
            nonlocal counted
            counted += event == "call"

        def uncounted(jobs, *how):
            for done in whole(jobs, *how):
                sys.setprofile(count)
                yield done
                sys.setprofile(None)

        monkeypatch.setattr(module, "run_jobs", uncounted)
        text = (folder / "study.toml").read_text()
        seeds = f"seeds = {list(range(n_seed))}"
        file = folder / f"{n_seed}.toml"
        file.write_text(text.replace("seeds = [0, 1]", seeds).replace("[break_even]", "[x]"))
        file.write_text(
            file.read_text().partition("[x]")[0]
            + 'break_even = "none"\n[[sweep]]'
            + file.read_text().partition("[[sweep]]")[2]
        )
        before = sys.getprofile()
        try:
            assert run_study(file, folder / f"out{n_seed}", applications=applications) == 0
        finally:
            sys.setprofile(before)
        return counted

    few, many = calls(1), calls(5)
    assert (many - few) / (6 * 4) < MOST_CALLS
    assert os.path.getsize(folder / "out5" / "report.html") < 3e6


def test_a_study_shows_itself_in_a_notebook(finished):
    view = StudyView(finished)
    assert "12 of 12 runs are finished" in repr(view)
    html = view._repr_html_()
    assert "Toys &amp; &lt;i&gt;games&lt;/i&gt;" in html
    assert "density: 1.0" in html
    assert "17 % lower than the best baseline" in html
