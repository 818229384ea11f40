"""Work in processes of their own: on this machine, or on those of a dask scheduler.

One door for studies, ensembles, benchmarks and data: `run_tasks` gives results as they come,
`map_tasks` in order. With dask.distributed at hand (extra ``sweep``) tasks go to a local cluster of
one thread each, or to the scheduler that is named; without it, to a plain pool of processes. A task
whose worker dies is tried again, so it should go on from what it left; a task that kills its worker
twice is given up alone. The results do not depend on who did the work.
"""

from __future__ import annotations

import importlib.util
import itertools
import multiprocessing
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from core.errors import ConfigError, DataError, TesseraError

# Workers that may die under a task among others, and again when it is tried alone.
N_TRY = 2
# Workers are forked from a process that has loaded torch and does nothing else: they begin, and
# begin again, in a tenth of a second. Never from this one, whose threads a fork would break.
_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"

_N_CLOSE = 10  # times that the end of a cluster is tried, half a second apart
_CLOSE_S = 20.0  # that one try may take

T = TypeVar("T")
R = TypeVar("R")


class WorkerLostError(TesseraError, RuntimeError):
    """The process of a task died, and died again when the task was tried anew."""

    def __init__(self) -> None:
        super().__init__("the process of this run died, twice: was it killed, or out of memory?")


@dataclass(frozen=True)
class Ended(Generic[T, R]):
    """A task that has ended: `value` is what the function gave, unless `error` says why not."""

    task: T
    value: R | None = None
    error: Exception | None = None


def run_tasks(
    function: Callable[[T], R], tasks: Iterable[T], *, n_job: int, scheduler: str | None = None
) -> Iterator[Ended[T, R]]:
    """Do ``function(task)`` for each task, some at a time; give each as it ends.

    Parameters
    ----------
    function : callable
        At the top of a module, so that a worker can import it; what it gives can be pickled.
    tasks : iterable
        Begun in this order, each taken when a process is free for it.
    n_job : int
        Processes at a time, one thread each; all workers of a `scheduler` are used.
    scheduler : str, optional
        Address of a dask scheduler, ``tcp://host:8786``. Its workers import this package and see
        the same disk.

    Raises
    ------
    ConfigError
        If a scheduler is named and dask.distributed is not installed.
    DataError
        If the scheduler does not answer.
    """
    if has_dask():
        return _by_dask(function, tasks, n_job, scheduler)
    if scheduler is not None:
        raise ConfigError(
            "--scheduler needs dask.distributed; install the extra: pip install tessera-ml[sweep]"
        )
    return _by_processes(function, tasks, n_job)


def map_tasks(
    function: Callable[[T], R],
    tasks: Sequence[T],
    *,
    n_job: int = 1,
    scheduler: str | None = None,
) -> list[R]:
    """Give ``function(task)`` of every task, in order; the first error is raised.

    One job without a scheduler is done in this process. Parameters as for `run_tasks`, where the
    tasks are all different.
    """
    if scheduler is None and (n_job == 1 or len(tasks) < 2):
        return [function(task) for task in tasks]
    found: dict[int, Any] = {}
    for ended in run_tasks(
        _Numbered(function), list(enumerate(tasks)), n_job=n_job, scheduler=scheduler
    ):
        if ended.error is not None:
            raise ended.error
        found[ended.task[0]] = ended.value
    return [found[i] for i in range(len(tasks))]


@dataclass(frozen=True)
class _Numbered(Generic[T, R]):
    """A function of tasks as one of numbered tasks."""

    function: Callable[[T], R]

    def __call__(self, task: tuple[int, T]) -> R:
        return self.function(task[1])


def has_dask() -> bool:
    """Whether dask.distributed is installed; it is not loaded for that."""
    return importlib.util.find_spec("distributed") is not None


def _by_dask(
    function: Callable[[T], R], tasks: Iterable[T], n_job: int, scheduler: str | None
) -> Iterator[Ended[T, R]]:
    """Do the tasks on dask workers.

    A worker that dies takes along all that it had been given, not only what it was at. Those tasks
    are then tried again one by one, so that only a task that kills its own worker fails.
    """
    from distributed import as_completed

    with _client(n_job, scheduler, _module_of(function)) as client:
        # A window of tasks, not all at once: the first of them begin first.
        left = iter(tasks)
        under_way: dict[Any, T] = {}
        hurt: list[T] = []

        def submit(some: Iterable[T]) -> list[Any]:
            found = {client.submit(function, task, pure=False, retries=0): task for task in some}
            under_way.update(found)
            return list(found)

        n_worker = max(n_job, sum(client.nthreads().values())) if scheduler else n_job
        stream = as_completed(submit(itertools.islice(left, n_worker)))
        for future in stream:
            # The result is asked for at once: it is lost with a worker that dies afterwards.
            ended: Ended[T, R] = _ended(under_way.pop(future), future)
            for more in submit(itertools.islice(left, 1)):
                stream.add(more)
            if isinstance(ended.error, WorkerLostError):
                hurt.append(ended.task)
            else:
                yield ended
        for task in hurt:
            (future,) = submit([task])
            under_way.pop(future)
            yield _ended(task, future)


def _ended(task: T, future: Any) -> Ended[T, Any]:
    from distributed import CancelledError, KilledWorker

    try:
        return Ended(task, future.result())
    except (KilledWorker, CancelledError):
        return Ended(task, error=WorkerLostError())
    except Exception as error:
        return Ended(task, error=error)


@contextmanager
def _client(n_job: int, scheduler: str | None, module: str) -> Iterator[Any]:
    """Give a client of the scheduler, or of a cluster that lives as long as the block."""
    import dask
    from distributed import Client, LocalCluster

    settings = {
        "distributed.scheduler.allowed-failures": N_TRY - 1,
        "distributed.comm.timeouts.connect": "60s",
        # A run holds its process for minutes; that is no reason to speak up.
        "distributed.admin.tick.limit": "1h",
        # Nobody reads how the workers feel, and asking a thread that takes many small steps for
        # its interpreter fifty times a second slows it down.
        "distributed.admin.tick.interval": "1s",
        "distributed.admin.system-monitor.interval": "10s",
        "distributed.worker.profile.enabled": False,
        "distributed.worker.multiprocessing-method": _METHOD,
    }
    with dask.config.set(settings), _one_thread_each():
        if scheduler is not None:
            try:
                client = Client(scheduler, timeout="20s")
            except (OSError, ValueError) as error:
                raise DataError(
                    f"--scheduler {scheduler}: no dask scheduler answers there ({error}); start "
                    "one with `dask scheduler`, or leave the option out to work on this machine"
                ) from error
            with client:
                yield client
            return
        _begin_server("torch", "distributed", module)
        with tempfile.TemporaryDirectory() as scratch:
            cluster = LocalCluster(
                n_workers=n_job,
                threads_per_worker=1,
                processes=True,
                memory_limit=0,
                # Any free port of this machine alone; None would take 8787 of every address.
                dashboard_address="127.0.0.1:0",
                scheduler_kwargs={"dashboard": False},
                local_directory=scratch,
                silence_logs=50,
                env=dict(os.environ),
            )
            try:
                with Client(cluster) as client:
                    yield client
            finally:
                _close(cluster)


def _close(cluster: Any) -> None:
    """End a cluster; a worker that died and is just being replaced cannot be ended at once.

    All results are here by then: a cluster that does not end in time loses its processes.
    """
    from distributed.core import Status

    for _ in range(_N_CLOSE):
        try:
            return cluster.close(timeout=_CLOSE_S)
        except AssertionError:  # dask's own: the process has no number yet
            cluster.status = Status.failed  # left at closing, the next try would wait for this one
            time.sleep(0.5)
        except TimeoutError:
            break
    for nanny in list(cluster.workers.values()):
        if nanny.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(nanny.pid, signal.SIGKILL)


def _by_processes(
    function: Callable[[T], R], tasks: Iterable[T], n_job: int
) -> Iterator[Ended[T, R]]:
    """Do the tasks in plain processes.

    A process that dies takes its neighbours' pool with it. Those that were under way are then
    tried again alone, twice, since they may not have begun before; so only a task that kills its
    own process fails.
    """
    left = iter(tasks)
    while True:
        hurt: list[T] = []
        yield from _in_one_pool(function, left, n_job, hurt)
        if not hurt:
            return
        for task in hurt:
            for _ in range(N_TRY):
                alone: list[T] = []
                yield from _in_one_pool(function, iter([task]), 1, alone)
                if not alone:
                    break
            else:
                yield Ended(task, error=WorkerLostError())


def _in_one_pool(
    function: Callable[[T], R], left: Iterator[T], n_job: int, hurt: list[T]
) -> Iterator[Ended[T, R]]:
    """Take tasks from `left` until none is left or the pool breaks, which `hurt` then names."""
    with _one_thread_each():
        _begin_server("torch", _module_of(function))
        executor = ProcessPoolExecutor(
            n_job,
            mp_context=multiprocessing.get_context(_METHOD),
            initializer=_begin_worker,
            initargs=(dict(os.environ),),
        )
        with executor as pool:
            yield from _by_executor(pool, function, left, n_job, hurt)


def _by_executor(
    pool: ProcessPoolExecutor,
    function: Callable[[T], R],
    left: Iterator[T],
    n_job: int,
    hurt: list[T],
) -> Iterator[Ended[T, R]]:
    under_way: dict[Future[R], T] = {}

    def fill() -> None:
        while not hurt and len(under_way) < n_job and (some := [*itertools.islice(left, 1)]):
            try:
                under_way[pool.submit(function, some[0])] = some[0]
            except BrokenProcessPool:
                hurt.extend(some)

    try:
        fill()
        while under_way:
            ended, _ = wait(under_way, return_when=FIRST_COMPLETED)
            for future in ended:
                task = under_way.pop(future)
                try:
                    yield Ended(task, future.result())
                except BrokenProcessPool:
                    hurt.append(task)
                except Exception as error:
                    yield Ended(task, error=error)
            fill()
    except BaseException:  # interrupted, or nobody asks for more
        pool.shutdown(wait=False, cancel_futures=True)
        raise


def _module_of(function: Callable[[T], R]) -> str:
    """Name the module that a worker loads to do the tasks of a function."""
    if isinstance(function, _Numbered):
        return _module_of(function.function)
    return str(getattr(function, "__module__", __name__))


def _begin_server(*modules: str) -> None:
    """Start the process that workers are forked from, with what each of them would load."""
    if _METHOD == "forkserver":
        from multiprocessing import forkserver

        multiprocessing.set_forkserver_preload(list(modules))
        forkserver.ensure_running()


def _begin_worker(environment: dict[str, str]) -> None:
    """Take the settings of the process that asks, and end when it is killed, to free its run."""
    os.environ.update(environment)  # the server has those of its own beginning
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Let processes that start here load torch with one thread, so that results repeat."""
    name = "OMP_NUM_THREADS"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
