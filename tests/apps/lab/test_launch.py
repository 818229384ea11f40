"""How a run begins: what a folder may hold, one writer, seeds and devices."""

import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from apps.lab.config import Config, load_config
from apps.lab.launch import resolve_device, set_seed, start_run
from core.errors import ConfigError, DataError

ROOT = Path(__file__).resolve().parents[3]


class Settings(Config):
    n_epoch: int = 3


def start(out, *, n_epoch=3, seed=1, **given):
    config = Settings(n_epoch=n_epoch)
    names = {"command": "tessera toy train", "application": "toy"}
    return start_run(out, config, seed=seed, device="cpu", **names, **given)


def test_a_new_folder_gets_the_configuration(tmp_path):
    with start(tmp_path / "a" / "b", n_epoch=9) as run:
        assert run.dir == tmp_path / "a" / "b"
        assert run.device == torch.device("cpu")
        assert not run.resumed
        assert load_config(Settings, file=run.dir / "config.toml") == Settings(n_epoch=9)


def test_the_same_run_is_resumed(tmp_path):
    start(tmp_path).close()
    (tmp_path / "checkpoint.safetensors").write_text("")
    with start(tmp_path, resume=True) as run:
        assert run.resumed
    with start(tmp_path / "new", resume=True) as run:  # nothing there yet: just begin
        assert not run.resumed


def test_what_must_not_be_written_over_is_not(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(DataError, match=r"mine is not empty and is not a run folder"):
        start(tmp_path / "mine", resume=True)
    with pytest.raises(DataError, match=r"thesis\.tex is a file; choose a folder"):
        start(tmp_path / "mine" / "thesis.tex")
    start(tmp_path / "run").close()
    (tmp_path / "run" / "checkpoint.safetensors").write_text("")
    with pytest.raises(DataError, match=r"already holds a run; continue it with --resume"):
        start(tmp_path / "run")
    with pytest.raises(DataError, match=r"holds a run with seed 1, this one has 2"):
        start(tmp_path / "run", resume=True, seed=2)
    with pytest.raises(DataError, match=r"config_sha256 .*resume with those, or start anew"):
        start(tmp_path / "run", resume=True, n_epoch=4)


def test_a_run_stopped_by_bad_input_does_not_block_the_next(tmp_path):
    start(tmp_path, n_epoch=3).close()
    with start(tmp_path, n_epoch=5, seed=2) as run:
        assert not run.resumed
        assert load_config(Settings, file=run.dir / "config.toml") == Settings(n_epoch=5)
    (tmp_path / "run.json").unlink()
    with pytest.raises(DataError, match=r"is not empty and is not a run folder"):
        start(tmp_path)


def test_one_writer_at_a_time(tmp_path):
    pytest.importorskip("fcntl")
    code = (
        "import sys; from apps.lab.launch import take_lock; from pathlib import Path\n"
        "take_lock(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    start(tmp_path).close()
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(DataError, match="being written by another process"):
            start(tmp_path, resume=True)
        other.kill()
    start(tmp_path, resume=True).close()  # a writer that died holds nothing


def test_a_seed_gives_the_same_numbers_everywhere():
    draws = []
    for _ in range(2):
        generator = set_seed(7)
        draws.append((torch.rand(3, generator=generator).tolist(), torch.rand(2).tolist()))
        draws[-1] += (random.random(),)
    assert draws[0] == draws[1]
    assert torch.rand(3, generator=set_seed(8)).tolist() != draws[0][0]


def test_devices(monkeypatch):
    assert resolve_device("cpu").type == "cpu"
    with pytest.raises(ConfigError, match="--device gpu: expected auto, cpu or cuda"):
        resolve_device("gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto").type == "cpu"
    with pytest.raises(ConfigError, match="torch sees no CUDA device; use --device cpu or auto"):
        resolve_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert (resolve_device("auto").type, resolve_device("cpu").type) == ("cuda", "cpu")


@pytest.mark.parametrize("i_write", [0, 1])
@pytest.mark.parametrize("resume", [False, True])
def test_a_run_killed_while_its_folder_is_made_begins_anew(tmp_path, i_write, resume):
    how = f"seed=0, device='cpu', command='train', application='a', resume={resume}"
    code = (
        "import os, signal, sys\n"
        "from apps.lab import files, launch\n"
        "from apps.lab.config import Config\n"
        "true, count = os.replace, iter(range(9))\n"
        "def replace(a, b):\n"
        f"    if next(count) == {i_write}: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    true(a, b)\n"
        "if len(sys.argv) > 2: os.replace = replace\n"
        f"launch.start_run(sys.argv[1], Config(), {how}).close()\n"
    )
    words = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path / "run")]
    assert subprocess.run([*words, "die"], cwd=ROOT, check=False).returncode == -9
    subprocess.run(words, cwd=ROOT, check=True)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"config.toml", "run.json", ".lock"}
