"""Imports are quick, and do nothing but define: the seconds a module adds to what it rests on."""

import importlib
import json
import os
import sys
from pathlib import Path

import pytest

from tests.pace import cpu_s, scale

ROOT = Path(__file__).resolve().parents[1]
OURS = ("core", "hw", "apps")
# The stated bound on a public module beyond its dependencies; seconds as tests/pace.py has them.
BEYOND_S = 0.5


def faces() -> list[str]:
    """The public faces: every package, and the modules that commands enter by."""
    files = [file for top in OURS for file in sorted((ROOT / top).rglob("*.py"))]
    inner = {"cli.py", "train.py"}
    names = []
    for file in files:
        parts = file.relative_to(ROOT).with_suffix("").parts
        if file.name == "__init__.py":
            names.append(".".join(parts[:-1]))
        elif file.name in inner:
            names.append(".".join(parts))
    return names


def in_child(work):
    """Give what `work` gives in a forked copy of this process; JSON values."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(write, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return json.loads(text)


def loaded_by(names):
    """Import the modules; give what of others is loaded then."""
    for name in names:
        importlib.import_module(name)
    return [name for name in sys.modules if name.partition(".")[0] not in (*OURS, "__main__")]


def seconds(name):
    return cpu_s(lambda: importlib.import_module(name))


def measure():
    """Print the CPU seconds of each face in a copy of a process that has all dependencies.

    A first copy imports everything: it says what the dependencies are, and leaves the compiled
    modules behind, as a user's first run does.
    """
    names = faces()
    for name in in_child(lambda: loaded_by(names)):
        try:
            importlib.import_module(name)
        except ImportError:  # made by another module, not found on disk
            continue
    assert not any(name.partition(".")[0] in OURS for name in sys.modules)
    found = {name: in_child(lambda name=name: seconds(name)) for name in names}
    for name, took in found.items():  # what seems slow gets more tries
        if took > BEYOND_S:
            found[name] = scale() * min(in_child(lambda name=name: seconds(name)) for _ in range(4))
    print(json.dumps(found))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_face_is_imported_in_half_a_second_beyond_what_it_rests_on(tmp_path):
    import subprocess

    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": str(tmp_path)}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", __file__],
        cwd=ROOT, env=env, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) > 25
    assert {name: took for name, took in found.items() if took > BEYOND_S} == {}


if __name__ == "__main__":
    measure()
