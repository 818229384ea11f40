"""Two processes under torchrun train as one does: same batches, same patterns, one result."""

import importlib
import os
import runpy
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from apps.chemistry.datasets import pocket
from apps.lab import parallel
from apps.lab.checkpoint import load_checkpoint
from apps.lab.config import load_config
from apps.lab.record import read_record
from core.errors import DataError

ROOT = Path(__file__).resolve().parents[3]
# In float64 shares are added up in another order: a few units in the last place of each gradient,
# which Adam's division by small second moments enlarges; 1e-9 leaves it a factor of a million.
ROUNDING = 1e-9
# In float32, over some tens of steps.
ROUNDING_FLOAT32 = 2e-3

SCRIPT = """
import sys
from pathlib import Path
import torch
from torch import nn
from apps.lab import parallel
from apps.lab.fit import fit
from apps.lab.recipe import Recipe
from core import LayerSpec, build_linear

parallel.join()
out, method, resume = Path(sys.argv[1]), sys.argv[2], len(sys.argv) > 3
x = torch.randn(150, 16, generator=torch.Generator().manual_seed(1)).double()
y = x.roll(1, dims=1).sin()
seen = (torch.rand(y.shape, generator=torch.Generator().manual_seed(2)) < 0.7).double()
generator = torch.Generator().manual_seed(0)
recipe = Recipe(method=method)
spec = recipe.first_spec(LayerSpec(0.25, 4))
model = nn.Sequential(
    # no bias before a norm: its gradient is rounding alone, and Adam would make steps of that
    build_linear(16, 64, spec, generator=generator, bias=False), nn.BatchNorm1d(64), nn.Tanh(),
    build_linear(64, 16, spec, generator=generator),
).double()

def batches(epoch):
    order = torch.randperm(150, generator=torch.Generator().manual_seed(epoch))
    for rows in order.split(15):  # shares of 8 and 7 rows
        rows = parallel.share(rows)
        yield x[rows], y[rows], seen[rows]

def loss(model, batch):
    return (batch[2] * (model(batch[0]) - batch[1]).square()).sum() / batch[2].sum()

optimizer = recipe.make_optimizer(model, 0.01, weight_decay=0.01)
result = fit(
    model=model, optimizer=optimizer, batches=batches, loss=loss, n_epoch=4, steps_per_epoch=10,
    item_count=lambda b: len(b[0]), loss_weight=lambda b: float(b[2].sum()), ema_decay=0.9,
    clip_norm=1.0, checkpoint=out / "state.safetensors", resume=resume,
    validate=lambda m: {"valid": float((m(x) - y).square().mean())}, monitor="valid",
    updater=recipe.make_updater(model, optimizer, density=0.25, n_step=40, seed=0),
)
rank = torch.distributed.get_rank() if parallel.n_rank() > 1 else 0
from safetensors.torch import save_file
save_file({k: v.contiguous() for k, v in model.state_dict().items()}, out / f"{rank}.safetensors")
(out / f"{rank}.txt").write_text(repr([result.history, result.n_item]))
parallel.leave_unless_first()
"""


def torchrun(*arguments, n=2):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": ""}
    done = subprocess.run(
        [*command, "--nproc-per-node", str(n), *map(str, arguments)],
        env=env,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    file = tmp_path_factory.mktemp("script") / "train.py"
    file.write_text(textwrap.dedent(SCRIPT))
    return file


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def results(folder, rank=0):
    from safetensors.torch import load_file

    return load_file(folder / f"{rank}.safetensors"), eval((folder / f"{rank}.txt").read_text())


@pytest.mark.parametrize("method", ["rigl", pytest.param("prune", marks=pytest.mark.slow)])
def test_two_processes_are_one_within_rounding(script, tmp_path, method, monkeypatch, one_thread):
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    monkeypatch.setattr(sys, "argv", ["train", str(one), method])
    runpy.run_path(str(script))
    torchrun(script, two, method)
    wanted, (history, n_item) = results(one)
    for rank in (0, 1):
        found, (other, n) = results(two, rank)
        for name, tensor in wanted.items():
            torch.testing.assert_close(found[name], tensor, rtol=ROUNDING, atol=ROUNDING)
        assert n == n_item == 4 * 150
        losses = [[row["loss"] for row in rows] for rows in (history, other)]
        assert losses[0] == pytest.approx(losses[1], rel=ROUNDING)
    first, second = results(two, 0)[0], results(two, 1)[0]
    assert all(torch.equal(first[name], second[name]) for name in first)  # bit for bit
    # both go on from the checkpoint of the first
    torchrun(script, two, method, "resume")
    assert all(torch.equal(results(two, 1)[0][name], first[name]) for name in first)


@pytest.mark.parametrize("application", ["chemistry", "weather"])
def test_an_application_trains_under_torchrun(application, tmp_path, one_thread):
    data = tmp_path / "small.csv"
    data.write_text(pocket.generate(120, 30, 30).csv_text())
    settings = {
        "chemistry": [
            f"data.source={data}", "data.split_column=split", "data.target=pk",
            "model.d_hidden=32", "model.n_layer=2", "train.n_epoch=2",
        ],
        "weather": [
            "columns.resolution=T5L4", "columns.start=rest", "columns.skip_day=0",
            "columns.n_day=10", "columns.other_climates=[]", "columns.train_share=0.5",
            "columns.gap_day=0.5",
            "columns.n_column_per_call=32", "columns.run_longwave=8", "columns.run_shortwave=8",
            "columns.label_longwave=16", "columns.label_shortwave=8", "network.width=32",
            "network.n_epoch=2", "network.sparse_stretch=1", "network.batch=128",
            "forecast=none", "cost=false",
        ],
    }[application]  # fmt: skip
    settings.append("variant.density=0.5")
    room = importlib.import_module(f"apps.{application}.train")
    config = load_config(room.TrainConfig, overrides=settings)
    one = room.run(config, out=tmp_path / "one", seed=0, device="cpu")
    options = [w for text in settings for w in ("--set", text)]
    torchrun("-m", f"apps.{application}", "train", "-q", *options, "--out", tmp_path / "two")
    two = read_record(tmp_path / "two")
    losses = [[row["loss"] for row in record.history] for record in (one, two)]
    assert losses[0] == pytest.approx(losses[1], rel=ROUNDING_FLOAT32)
    metric = next(iter(one.accuracy["test"]))
    assert two.accuracy["test"][metric] == pytest.approx(
        one.accuracy["test"][metric], rel=ROUNDING_FLOAT32
    )
    assert not list(tmp_path.rglob("*.part*"))  # what the second process wrote is gone
    files = (tmp_path / "two").glob("checkpoint*.safetensors")  # one for each network
    assert {load_checkpoint(file)[1]["epoch"] for file in files} == {2}


def test_alone_nothing_is_shared():
    rows = torch.arange(7)
    assert parallel.share(rows) is rows
    assert parallel.n_rank() == 1
    assert parallel.is_first()
    with parallel.first_goes_first():
        parallel.leave_unless_first()


def test_a_process_of_several_can_train_by_itself(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    rows = torch.arange(7)
    assert parallel.n_rank() == 2
    with parallel.alone():
        assert parallel.n_rank() == 1
        assert parallel.share(rows) is rows
    assert parallel.share(rows).tolist() == [1, 3, 5]


@pytest.mark.parametrize("n_rank", [2, 3])
def test_even_shares_are_all_rows_of_like_sizes_in_order(monkeypatch, n_rank):
    generator = np.random.default_rng(0)
    rows, size = generator.permutation(500)[:101], generator.integers(10, 60, 500)
    assert parallel.share_evenly(rows, size[rows]) is rows  # alone
    monkeypatch.setattr(parallel, "n_rank", lambda: n_rank)
    shares = []
    for rank in range(n_rank):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        shares.append(parallel.share_evenly(rows, size[rows]))
    assert sorted(np.concatenate(shares)) == sorted(rows)
    counts = [len(share) for share in shares]
    assert max(counts) - min(counts) <= 1
    place = {row: i for i, row in enumerate(rows.tolist())}
    assert all((np.diff([place[r] for r in share.tolist()]) > 0).all() for share in shares)
    work = [int(size[share].sum()) for share in shares]
    # to and fro, the sums differ by the largest row at most; by chance it is some ten rows
    assert max(work) - min(work) <= size[rows].max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_shared_norm_is_torchs_norm_of_the_rows_of_all(monkeypatch, dtype):
    generator = torch.Generator().manual_seed(0)
    x, grad = (torch.randn(200, 16, generator=generator).mul(2).add(3).to(dtype) for _ in range(2))
    wide = torch.promote_types(dtype, torch.float32)  # of weights and statistics

    def result(rows, grad, is_shared):
        norm = nn.BatchNorm1d(16, dtype=wide)
        with torch.no_grad():
            norm.weight.copy_(torch.linspace(0.5, 2, 16))
            norm.bias.copy_(torch.linspace(-1, 1, 16))
        if is_shared:
            parallel.share_norms(norm)
        rows = rows.clone().requires_grad_()
        out = norm(rows)
        out.backward(grad)
        assert out.dtype == rows.grad.dtype == dtype
        return out, rows.grad, norm.running_mean, norm.running_var, norm.weight.grad

    out, slope, *state, of_weight = result(torch.cat([x, x]), torch.cat([grad, grad]), False)
    monkeypatch.setattr(parallel, "n_rank", lambda: 2)  # the other has the same rows
    monkeypatch.setattr(parallel, "_gathered", lambda *parts: torch.cat(parts).expand(2, -1))
    mine, my_slope, *my_state, my_weight = result(x, grad, True)
    # sums of 400 terms in another order, then one rounding to `dtype`
    near = dict.fromkeys(("rtol", "atol"), 400 * torch.finfo(wide).eps + torch.finfo(dtype).eps)
    torch.testing.assert_close(mine, out[:200], **near)
    torch.testing.assert_close(my_slope, slope[:200], **near)
    torch.testing.assert_close(my_state, state, **near)
    torch.testing.assert_close(my_weight / 200, of_weight / 400, **near)


def test_a_batch_too_small_to_share_is_refused(monkeypatch):
    monkeypatch.setattr(parallel, "n_rank", lambda: 4)
    with pytest.raises(DataError, match="batch of 3 rows cannot be shared by 4 processes"):
        parallel.share(torch.arange(3))
    with pytest.raises(DataError, match="batch of 3 rows cannot be shared by 4 processes"):
        parallel.share_evenly(np.arange(3), np.ones(3))
