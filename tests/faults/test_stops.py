"""Processes that are killed, signalled, cut off from their disk or their workers: nothing is lost.

What a fault must leave: every file in place is whole, a resumed run ends with the bits of an
undisturbed one, and every refusal is one sentence on standard error.
"""

import contextlib
import ctypes
import os
import random
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.faults.commands import ALL, RESUMABLE, SHARE, assert_same, check_whole, fingerprint

pytestmark = pytest.mark.faults

N_RUN = {"chemistry train": 10, "weather simulate": 8, "weather train": 3, "demo": 2}  # else 4
QUICK = ["chemistry train", "weather simulate"]


def some(n: int) -> range:
    """Numbers of the runs, all or the asked share."""
    return range(max(1, round(SHARE * n)))


@pytest.mark.parametrize("kind", ALL)
def test_killed_at_any_moment(kind, bench, tmp_path, inject):
    _, took_s, _ = bench.clean(kind)
    draw = random.Random(kind)
    for i_run in some(N_RUN.get(kind, 4)):
        place = bench.place(kind, tmp_path / str(i_run))
        for i_kill in range(2 if kind in RESUMABLE else 1):
            child = bench.start(bench.words(kind, place, resume=i_kill > 0))
            time.sleep(draw.uniform(0.0, 0.9 * took_s))
            bench.strike(child, signal.SIGKILL)
            inject(f"kill -9, {kind}")
            check_whole(place)
        bench.check_ends_as_undisturbed(kind, place)
        shutil.rmtree(place)


def stop_at_write(number, i_write, *, after):
    """Make the process signal itself beside its `i_write`-th file, before or after the rename."""
    true, count = os.replace, iter(range(10**6))

    def replace(source, target):
        due = next(count) == i_write
        if due and not after:
            os.kill(os.getpid(), number)
        true(source, target)
        if due and after:
            os.kill(os.getpid(), number)

    os.replace = replace


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("kind", QUICK)
def test_stopped_in_the_middle_of_a_write(kind, number, after, bench, tmp_path, inject):
    for i_run in some(5):
        i_write = (1, 4, 0, 7, 2)[i_run]
        place = bench.place(kind, tmp_path / str(i_write))

        def before(i_write=i_write):
            stop_at_write(number, i_write, after=after)

        code = bench.finish(bench.start(bench.words(kind, place), before=before))
        inject(f"signal beside a write, {kind}")
        assert "Traceback" not in bench.said()
        assert code != 70
        check_whole(place)
        bench.check_ends_as_undisturbed(kind, place)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("kind", QUICK)
def test_signalled_at_any_moment(kind, number, bench, tmp_path, inject):
    _, took_s, _ = bench.clean(kind)
    draw = random.Random(f"{kind} {number}")
    for i_run in some(4):
        place = bench.place(kind, tmp_path / str(i_run))
        child = bench.start(bench.words(kind, place))
        time.sleep(draw.uniform(0.0, 0.9 * took_s))
        bench.strike(child, number)
        bench.finish(child)
        inject(f"signal, {kind}")
        assert "Traceback" not in bench.said()
        check_whole(place)
        bench.check_ends_as_undisturbed(kind, place)


@pytest.mark.parametrize("kind", ["chemistry train", "weather simulate", "weather climate"])
def test_a_file_that_may_not_grow(kind, bench, tmp_path, inject):
    """The write fails half way, at a random size."""
    folder = bench.clean(kind)[2]
    largest = max(path.stat().st_size for path in (folder / "run").rglob("*") if path.is_file())
    draw = random.Random(kind)
    for i_run in some(6):
        place = bench.place(kind, tmp_path / str(i_run))
        limit = draw.randrange(1000, largest)

        def shrink(limit=limit):
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        code = bench.finish(bench.start(bench.words(kind, place), before=shrink))
        inject(f"full disk, {kind}")
        check_whole(place)
        assert "Traceback" not in bench.said(), bench.said()
        assert code == 0 or bench.said().strip(), "a failure says why"
        bench.check_ends_as_undisturbed(kind, place)


@contextlib.contextmanager
def mounted(place: Path, option: str):
    """A file system of its own at `place`; skipped where this process may not mount."""
    command = ["mount", "-t", "tmpfs", "-o", option, "none", str(place)]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount")
    if done.returncode:
        pytest.skip("may not mount")
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("size_k", [8, 64, 200, 400])
@pytest.mark.parametrize("kind", QUICK)
def test_a_disk_that_is_full(kind, size_k, bench, tmp_path, inject):
    """A real one; when room is made, the run goes on."""
    with mounted(tmp_path, f"size={size_k}k"):
        code = bench.finish(bench.start(bench.words(kind, tmp_path)))
        inject(f"full disk, {kind}")
        check_whole(tmp_path)
        assert "Traceback" not in bench.said(), bench.said()
        assert code == 0 or bench.said().strip()
        command = ["mount", "-o", "remount,size=64m", str(tmp_path)]
        subprocess.run(command, check=True)
        bench.check_ends_as_undisturbed(kind, tmp_path)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("where", ["/proc/tessera", "{file}", "{file}/below"])
def test_a_place_that_cannot_be_written_is_refused_at_once(kind, where, bench, tmp_path, inject):
    file = tmp_path / "file"
    file.write_text("mine")
    words = bench.words(kind, tmp_path)
    words[words.index("--out") + 1] = where.format(file=file)
    if kind == "chemistry predict" and where == "{file}":
        pytest.skip("its output is a file: it takes the place of another")
    code = bench.finish(bench.start(words))
    inject("output that cannot be")
    assert code not in (0, 70)
    assert "Traceback" not in bench.said(), bench.said()
    assert bench.said().strip()
    assert file.read_text() == "mine"


def without_privilege():
    """Let go of what allows the superuser to write anywhere."""
    if os.geteuid() == 0:
        header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        libc = ctypes.CDLL(None)
        libc.prctl(28, 0b11, 0, 0, 0)  # PR_SET_SECUREBITS: no root in what it starts either
        libc.capset(header, none)


@pytest.mark.parametrize("kind", ALL)
def test_a_folder_that_is_read_only(kind, bench, tmp_path, inject):
    """New, or turned read-only under a run that is to be resumed."""
    place = tmp_path / "place"
    place.mkdir()
    words = bench.words(kind, place)
    for resume in (False, True):
        if resume:
            if kind not in RESUMABLE:
                break
            shutil.rmtree(place)
            shutil.copytree(bench.clean(kind)[2], place)
            for record in place.rglob("record.json"):
                record.unlink()
            words = bench.words(kind, place, resume=True)
        for path in (place, *place.rglob("*")):
            if path.is_dir():
                path.chmod(0o555)
            else:
                path.chmod(0o444)
        code = bench.finish(bench.start(words, before=without_privilege))
        inject("read-only output")
        said = bench.said()
        for path in (place, *place.rglob("*")):
            path.chmod(0o755)
        assert code not in (0, 70), f"wrote into a read-only folder: {list(place.rglob('*'))}"
        assert "Traceback" not in said, said
        assert said.strip()


@pytest.mark.parametrize("kind", QUICK)
def test_two_processes_on_one_folder(kind, bench, tmp_path, inject):
    _, took_s, _ = bench.clean(kind)
    first = bench.start(bench.words(kind, tmp_path))
    while not (tmp_path / "run" / "run.json").exists():
        time.sleep(0.01)
    for _ in range(3):
        # the run that was timed had perhaps less of the machine than this one
        time.sleep(0.02 * took_s)
        os.killpg(first, signal.SIGSTOP)  # so that it cannot finish meanwhile
        assert bench.finish(bench.start(bench.words(kind, tmp_path, resume=True))) != 0
        assert "another process" in bench.said()
        os.killpg(first, signal.SIGCONT)
        inject(f"second process, {kind}")
    assert bench.finish(first) == 0
    assert_same(fingerprint(tmp_path / "run"), bench.clean(kind)[0])


@pytest.mark.parametrize("kind", QUICK)
def test_a_jumping_clock_changes_nothing(kind, bench, tmp_path, inject):
    def jumping():
        true, draw = time.time, random.Random(0)
        time.time = lambda: true() + draw.choice([-86400.0, 0.0, 86400.0])

    for i_run in some(3):
        place = bench.place(kind, tmp_path / str(i_run))
        assert bench.finish(bench.start(bench.words(kind, place), before=jumping)) == 0
        inject(f"clock, {kind}")
        assert_same(fingerprint(place / "run"), bench.clean(kind)[0])


@pytest.mark.parametrize("kind", ALL)
def test_24_gib_of_memory_are_enough(kind, bench, tmp_path, inject):
    place = bench.place(kind, tmp_path / "place")

    def bounded():
        resource.setrlimit(resource.RLIMIT_AS, (24 * 2**30, 24 * 2**30))

    assert bench.finish(bench.start(bench.words(kind, place), before=bounded)) == 0, bench.said()
    inject("24 GiB")
    assert_same(fingerprint(place / "run"), bench.clean(kind)[0])


def workers_of(group: int) -> list[int]:
    """Processes of the group that run tasks: what the command's fork server has forked."""
    parents, servers = {}, set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[2]) == group:
                process, parent = int(stat.parent.name), int(fields[1])
                parents[process] = parent
                if b"forkserver" in (stat.parent / "cmdline").read_bytes():
                    servers.add(process)
    return [process for process in servers if parents[process] in servers]


def test_a_lost_worker_costs_a_study_nothing(bench, tmp_path, inject):
    _, took_s, _ = bench.clean("study")
    draw = random.Random(0)
    for i_run in some(4):
        place = bench.place("study", tmp_path / str(i_run))
        child = bench.start(bench.words("study", place, jobs=2))
        time.sleep(draw.uniform(0.3, 0.9) * took_s)
        found = workers_of(child)
        if found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(draw.choice(found), signal.SIGKILL)
            inject("worker killed, study")
        assert bench.finish(child) == 0, bench.said()
        assert_same(fingerprint(place / "run"), bench.clean("study")[0])
