"""The pool's door: same results whoever works, lost workers tried again, errors told."""

import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest

from apps.lab import pool
from apps.lab.pool import WorkerLostError, map_tasks, run_tasks
from core.errors import ConfigError, DataError

ENGINES = [
    pytest.param(True, id="dask", marks=pytest.mark.skipif(not pool.has_dask(), reason="no dask")),
    pytest.param(False, id="processes"),
]


def normal(seed):
    import torch

    x = torch.randn(64, 64, generator=torch.Generator().manual_seed(seed))
    return (x @ x).sum().item(), torch.get_num_threads()


def deadly(task):
    """Kill this process, always, or only the first time; or raise; or give the task back."""
    if task == "bad":
        os.kill(os.getpid(), signal.SIGKILL)
    if task == "wrong":
        raise DataError("no such molecule")
    left = Path(task)
    if left.is_absolute() and not left.exists():
        left.write_text("")
        os.kill(os.getpid(), signal.SIGKILL)
    return task


@pytest.fixture(params=ENGINES)
def engine(request, monkeypatch):
    monkeypatch.setattr(pool, "has_dask", lambda: request.param)


def test_results_are_those_of_serial_work_in_order(engine):
    import torch

    n_thread = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        serial = map_tasks(normal, [3, 1, 2])
    finally:
        torch.set_num_threads(n_thread)
    assert map_tasks(normal, [3, 1, 2], n_job=2) == serial
    assert serial[0] == (normal(3)[0], 1)


def test_a_killed_worker_is_replaced_and_its_task_tried_again(engine, tmp_path):
    once = str(tmp_path / "left")
    ended = {e.task: e for e in run_tasks(deadly, ["a", once, "bad", "wrong"], n_job=2)}
    assert {t: e.value for t, e in ended.items()} == {
        "a": "a",
        once: once,
        "bad": None,  # it kills whoever takes it, and fails alone
        "wrong": None,
    }
    assert isinstance(ended["bad"].error, WorkerLostError)
    assert "died, twice" in str(ended["bad"].error)
    assert isinstance(ended["wrong"].error, DataError)


class Stuck:
    """A cluster one of whose workers has no number yet, or never ends; ends as dask's does."""

    def __init__(self, *failures):
        self.failures, self.n_close, self.status, self.workers = list(failures), 0, None, {}

    def close(self, timeout):
        from distributed.core import Status

        assert timeout is not None
        if self.status == Status.closing:
            raise RuntimeError("a second close waits for the first, for ever")
        self.status = Status.closing
        self.n_close += 1
        if self.failures:
            raise self.failures.pop(0)
        self.status = Status.closed


@pytest.mark.skipif(not pool.has_dask(), reason="no dask")
def test_a_cluster_that_does_not_end_holds_nobody_up(monkeypatch):
    monkeypatch.setattr(pool.time, "sleep", lambda seconds: None)
    late = Stuck(AssertionError(), AssertionError())
    pool._close(late)
    assert (late.n_close, late.failures) == (3, [])
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    never = Stuck(TimeoutError())
    never.workers = {0: types.SimpleNamespace(pid=child.pid), 1: types.SimpleNamespace(pid=None)}
    pool._close(never)
    assert never.n_close == 1
    assert child.wait(timeout=30) == -9


def setting(name):
    return os.environ.get(name)


def test_workers_have_the_settings_of_this_moment(engine, monkeypatch):
    for value in ("one", "two"):  # also where an earlier call has begun what they are forked from
        monkeypatch.setenv("TESSERA_TRIAL", value)
        assert map_tasks(setting, ["TESSERA_TRIAL", "TESSERA_TRIAL"], n_job=2) == [value, value]


def test_the_first_error_of_a_map_is_raised(engine):
    with pytest.raises(DataError, match="no such molecule"):
        map_tasks(deadly, ["a", "wrong"], n_job=2)


def test_a_scheduler_elsewhere_is_used_and_is_left_running():
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=50
    ) as cluster:
        for _ in range(2):
            found = map_tasks(normal, [5, 6], scheduler=cluster.scheduler_address)
            assert [value for value, _ in found] == [normal(5)[0], normal(6)[0]]


def test_a_scheduler_that_is_not_there_is_told(monkeypatch):
    monkeypatch.setattr(pool, "has_dask", lambda: False)
    with pytest.raises(ConfigError, match=r"--scheduler needs dask.*tessera-ml\[sweep\]"):
        map_tasks(normal, [1, 2], scheduler="tcp://127.0.0.1:1")
