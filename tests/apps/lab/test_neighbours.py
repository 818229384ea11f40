"""Processes of one machine speak through shared memory: messages whole and in order, or errors."""

import math
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from apps.lab import neighbours
from apps.lab.neighbours import N_BYTE_SLOT, NeighbourError, Neighbours, n_byte

ROOT = Path(__file__).resolve().parents[3]

SCRIPT = """
import sys, torch, torch.distributed as dist
from pathlib import Path
from apps.lab import neighbours, parallel

if sys.argv[2] == "gloo":
    neighbours.PLACE = Path("/nowhere")
names = []
make = neighbours._make
neighbours._make = lambda file, size: names.append(file) or make(file, size)
parallel.join()
assert not any(file.exists() for file in names), "a file is left behind"
assert (parallel._near is None) == (sys.argv[2] == "gloo")
x = torch.randn(60, 8, generator=torch.Generator().manual_seed(0)) * 3 + 1000
model = torch.nn.Sequential(torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 1)).double()
with torch.no_grad():
    for p in model.parameters():
        p.copy_(torch.linspace(-1, 1, p.numel()).view_as(p))
parallel.share_norms(model)
gradients = parallel.Gradients(model, torch.optim.SGD(model.parameters(), 0.1))
gradients.clear()
rows = parallel.share(x.double())
loss = model(rows).tanh().sum() / len(rows)
parallel.weighted(loss, len(rows)).backward()
loss, done = gradients.reduce(loss * len(rows), len(rows), lambda: 7)
assert done == 7
found = torch.cat([loss.reshape(1), *(p.grad.flatten() for p in model.parameters()),
                   model[0].running_mean, model[0].running_var])
torch.save(found, f"{sys.argv[1]}/{dist.get_rank()}.pt")
parallel.leave_unless_first()
"""

DEAD = """
import os, sys, torch, torch.distributed as dist
from apps.lab import parallel
from apps.lab.neighbours import NeighbourError
parallel.join()
if dist.get_rank() == 1:
    os._exit(0)
try:
    parallel._add_up(torch.ones(3), lambda: None)
except NeighbourError as error:
    open(sys.argv[1], "w").write(str(error))
os._exit(0)
"""

needs_shared_memory = pytest.mark.skipif(
    not neighbours.PLACE.is_dir() or os.uname().machine != "x86_64",
    reason="needs Linux on x86-64",
)


def torchrun(tmp_path, text, *arguments, n=2):
    file = tmp_path / "script.py"
    file.write_text(text)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(n), str(file), *map(str, arguments)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": ""}
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture
def pair(tmp_path):
    file = tmp_path / "shared"
    file.write_bytes(bytes(n_byte(2)))
    return [Neighbours(file, rank, 2) for rank in range(2)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
def test_messages_of_any_size_arrive_whole_and_in_order(pair, dtype):
    sizes = [(), (3,), (0,), (5, 7), (N_BYTE_SLOT // 2 + 5,), (1,)] * 5

    def speak(one):
        made = [torch.full(s, 100 * one.rank + i).to(dtype) for i, s in enumerate(sizes)]
        return [one.gather(x).clone() for x in made]

    with ThreadPoolExecutor(2) as pool:
        heard = list(pool.map(speak, pair))
    for of_one in heard:
        for i, (size, found) in enumerate(zip(sizes, of_one, strict=True)):
            assert found.shape == (2, math.prod(size))
            assert (found[0] == i).all()
            assert (found[1] == 100 + i).all()


@pytest.mark.parametrize("n_rank", [2, 3])
def test_sums_are_of_all_and_alike_whether_whole_or_in_parts(tmp_path, n_rank):
    file = tmp_path / "shared"
    file.write_bytes(bytes(n_byte(n_rank, 64)))
    group = [Neighbours(file, rank, n_rank, 64) for rank in range(n_rank)]  # 8 numbers a message
    sizes = [1, 8, 9, 61]
    given = [[torch.randn(n, dtype=torch.float64) for n in sizes] for _ in group]
    wanted = [sum(of_all[1:], of_all[0]) for of_all in zip(*given, strict=True)]

    def speak(one):
        found = [x.clone() for x in given[one.rank]]
        assert [one.add_up(x, lambda: "done") for x in found] == ["done"] * len(sizes)
        return found

    with ThreadPoolExecutor(n_rank) as pool:
        for found in pool.map(speak, group):
            assert all(map(torch.equal, found, wanted))


def test_parts_lie_end_to_end(pair):
    with ThreadPoolExecutor(2) as pool:
        parts = [torch.ones(2, 2), torch.zeros(()), torch.full((1,), 5.0)]
        heard = list(pool.map(lambda one: one.gather(*parts).tolist(), pair))
    assert heard == [[[1.0, 1.0, 1.0, 1.0, 0.0, 5.0]] * 2] * 2


def test_slow_neighbour_is_waited_for(pair):
    def late(one):
        time.sleep(0.5 * one.rank)
        return one.gather(torch.tensor([float(one.rank)])).clone()

    with ThreadPoolExecutor(2) as pool:
        assert all(x.flatten().tolist() == [0.0, 1.0] for x in pool.map(late, pair))


def test_silence_ends_in_an_error(pair, monkeypatch):
    monkeypatch.setattr(neighbours, "WAIT_S", 0.3)
    with pytest.raises(NeighbourError, match="process 1 has been silent"):
        pair[0].gather(torch.ones(2))


@needs_shared_memory
def test_dead_neighbour_is_an_error_within_seconds(tmp_path):
    said = tmp_path / "said"
    torchrun(tmp_path, DEAD, said)
    assert "process 1 has ended" in said.read_text()


@needs_shared_memory
def test_both_ways_of_speaking_give_the_norms_of_the_whole_batch(tmp_path):
    x = torch.randn(60, 8, generator=torch.Generator().manual_seed(0)) * 3 + 1000
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 1)).double()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.linspace(-1, 1, p.numel()).view_as(p))
    loss = model(x.double()).tanh().mean()
    loss.backward()
    want = [loss.detach().reshape(1), *(p.grad.flatten() for p in model.parameters())]
    want += [model[0].running_mean, model[0].running_var]
    for how, n in (("memory", 2), ("memory", 3), ("gloo", 2)):
        folder = tmp_path / f"{how}{n}"
        folder.mkdir()
        torchrun(tmp_path, SCRIPT, folder, how, n=n)
        found = [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(n)]
        assert all(torch.equal(found[0], other) for other in found)
        # float64; the mean of the rows is 300 of their deviations
        torch.testing.assert_close(found[0], torch.cat(want), rtol=1e-9, atol=1e-9)
