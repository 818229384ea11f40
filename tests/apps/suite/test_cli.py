"""The command: it dispatches, and its own help waits for nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from apps.lab import datastore
from apps.suite import bench_cli
from apps.suite.cli import COMMANDS, main

ROOT = Path(__file__).resolve().parents[3]


def test_help_names_every_command_and_loads_nothing_heavy():
    code = (
        "import sys; from apps.suite.cli import main; main(['--help']);"
        "print(sorted({'torch', 'typer', 'pydantic', 'numpy'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert all(f"  {name} " in shown for name in COMMANDS)
    assert shown.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", ["demo", "study", "report", "data", "bench"])
def test_the_help_of_a_command_loads_no_torch(name):
    code = (
        f"import sys; from apps.suite.cli import main; code = main(['{name}', '--help']);"
        "print(code, 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert f"tessera {name}" in shown
    assert shown.splitlines()[-1] == "0 False"


def test_a_command_that_is_not_there(capsys):
    assert main(["chemisty"]) == 2
    assert "no command 'chemisty'; did you mean 'chemistry'?" in capsys.readouterr().err
    assert main(["zzzz"]) == 2
    assert "see `tessera --help`" in capsys.readouterr().err


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip()[0].isdigit()


def test_a_users_error_becomes_the_exit_code(capsys, tmp_path):
    assert main(["report", str(tmp_path / "no"), "--out", str(tmp_path / "r.html")]) == 2
    assert "error: cannot read the record" in capsys.readouterr().err
    assert not (tmp_path / "r.html").exists()
    assert main(["report", "--zzz"]) == 2


def test_data_list_and_fetch(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(datastore, "cache_dir", lambda: tmp_path)
    monkeypatch.delenv("TESSERA_DATA_DIR", raising=False)
    assert main(["data", "list"]) == 0
    assert "moleculeace/CHEMBL234_Ki" in capsys.readouterr().out
    assert main(["data", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {"name": "bace", "byte": 3_897_770, "here": None}.items() <= listed[0].items()
    assert main(["data", "fetch", "base"]) == 2
    assert "did you mean 'bace'?" in capsys.readouterr().err


def test_bench_starts_what_is_there_with_its_own_options(tmp_path, monkeypatch, capsys):
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "toy.py").write_text(
        "def main(arguments):\n    print('toy', arguments)\n    return len(arguments)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(bench_cli, "FOLDER", tmp_path / "benchmarks")
    monkeypatch.delitem(sys.modules, "benchmarks", raising=False)
    assert main(["bench", "toy", "--batch", "3"]) == 2
    assert capsys.readouterr().out == "toy ['--batch', '3']\n"
    assert main(["bench"]) == 0
    assert capsys.readouterr().out == "toy []\n"
    assert main(["bench", "tpy"]) == 2
    assert "no benchmark 'tpy'; did you mean 'toy'?" in capsys.readouterr().err
